"""The main process's side of capture: what it says of a camera that is not there is known, and in no log."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("dv_processing")

from client.capture_link import CaptureLink
from client.page.words import Words
from mcoe_model.data.geometry import Geometry


@pytest.mark.parametrize("device, why", [("recording:/nowhere/anna.aedat4", "anna.aedat4"), ("davis346", "plug")])
def test_why_there_is_no_camera_is_known(tmp_path: Path, device: str, why: str) -> None:
    log = tmp_path / "capture.log"
    link = CaptureLink(device, tmp_path / "none", Geometry, lambda event: None, lambda: None, log)

    async def live() -> None:
        running = asyncio.create_task(link.child.run())
        async with asyncio.timeout(120):
            while why not in link.why_lost or not log.read_bytes():
                await asyncio.sleep(0.05)
        assert Words("de").said(link.why_lost), "the page says it in the wearer's language"
        await link.child.end()
        await running

    asyncio.run(live())
    assert link.camera is None and "anna" not in log.read_text()
