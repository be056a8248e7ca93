"""A disk or a quota that is full at the wrong moment: what was remembered is kept whole, what was taken back ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from test_wearable_facade import TEXT, running, sees, until

from client.sessions import Store
from mcoe_model.errors import CameraMissing, ConsentMissing, DiskFull


def given(store: Store) -> list[str]:
    """What is agreed to by what is written down."""
    return [one.kind for one in {answer.kind: answer for answer in store.consent_history()}.values() if one.given]


def test_what_was_remembered_is_kept_whole_though_it_crosses_the_quota(tmp_path: Path) -> None:
    """Its newest part is what the wearer meant; it comes as a segment of its own."""

    async def scene() -> None:
        async with running(tmp_path, quota_gb=1e-6) as wearable:
            await wearable.set_up(None, ("capture", "labels"), TEXT)
            await until(sees(wearable))
            await until(lambda: wearable.capture.rate.remembered_s > 12.5)
            session = await wearable.save_last(12.0)
            segments = await wearable.kept(lambda store: store.segments(session))
            assert len(segments) == 2, "ten seconds and the rest"
            [found] = await wearable.history()
            assert found.state == "whole" and found.seconds > 11

    asyncio.run(scene())


def test_a_consent_taken_back_ends_what_it_allowed_though_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise DiskFull("no space left")

    async def scene() -> None:
        async with running(tmp_path) as wearable:
            await wearable.set_up(None, ("capture", "labels"), TEXT)
            await until(sees(wearable))
            session = await wearable.start_recording()
            with monkeypatch.context() as patched:
                patched.setattr(Store, "withdraw", full)
                for kind in ("capture", "labels"):
                    with pytest.raises(DiskFull):
                        await wearable.withdraw(kind)
                await until(lambda: wearable.capture.child.pid is None and wearable.under_way is None)
                await wearable.look()
                await asyncio.sleep(2.0)
                assert wearable.capture.child.pid is None, "it does not begin again"
                [found] = await wearable.history()
                assert found.id == session and found.state == "partial"
                with pytest.raises(CameraMissing):
                    await wearable.marker("blink", "stimulus")
                with pytest.raises(ConsentMissing):
                    await wearable.kept(lambda store: store.add_marker("wearer", "blink"))
            while await wearable.kept(given) != []:
                await asyncio.sleep(0.2)  # it is written down once there is space
            await wearable.consent("capture", TEXT)
            await until(sees(wearable))

    asyncio.run(scene())


def test_a_marker_without_a_camera_has_no_time(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running(tmp_path) as wearable:
            await wearable.set_up(None, ("capture", "labels"), TEXT)
            await until(lambda: wearable._camera_clock is not None)
            await wearable.marker("blink", "stimulus")
            wearable.capture._heard({"is": "lost", "why": "unplugged"})
            with pytest.raises(CameraMissing):
                await wearable.marker("blink", "stimulus")

    asyncio.run(scene())
