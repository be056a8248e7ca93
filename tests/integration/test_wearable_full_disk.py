"""A disk that fills while the wearable records: the session ends politely, and everything else goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_fleet import wait_for
from real_wearable import RealWearable


@pytest.fixture
def worn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealWearable]:
    """A wearable on a disk of 8 MB, of which nothing is kept free: the first segment needs more."""
    small = tmp_path / "disk"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine refuses to mount a tmpfs")
    monkeypatch.setenv("MCOE_CLIENT_DISK_FLOOR_GB", "0")
    made = RealWearable(small)
    try:
        made.start()
        yield made
    finally:
        made.remove()
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def test_a_recording_that_finds_no_space_ends_and_leaves_nothing_half_written(worn: RealWearable) -> None:
    worn.ask("new_wearer", code="P01", passphrase=None)
    worn.ask("consent", kind="capture", language="en")
    wait_for(worn.sees, 60, "the camera")
    session = worn.ask("start")
    wait_for(lambda: worn.status()["recording"] is None, 120, "the recording's end")
    found = worn.session(session)
    assert (found["state"], found["ended_why"], found["segments"]) == ("partial", "disk full", 0)
    assert worn.plain_files() == [] and list(worn.folder.rglob("*.sealed")) == []
    assert worn.sees() and worn.status()["stage"] == "open"
    worn.ask("delete", session=session)
    assert worn.ask("sessions") == [] and worn.end() == 0
