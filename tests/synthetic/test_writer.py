"""Writing: SEE's layout, the same bits in any way of running, and going on after a kill."""

from __future__ import annotations

import errno
import hashlib
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from mcoe_model.data.see import read_see
from mcoe_model.data.synthetic import SyntheticSettings, write_see
from mcoe_model.data.synthetic.design import plan
from mcoe_model.data.synthetic.statistics import measure
from mcoe_model.errors import DataInvalid, DiskFull, OutputExists
from mcoe_model.names import EMOTIONS

SMALL = SyntheticSettings(subjects=4, sequences=4, size=32, seed=3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set written by one process without interruption."""
    root = tmp_path_factory.mktemp("whole") / "see"
    write_see(root, SMALL, workers=1)
    return root


def digest(root: Path) -> dict[str, str]:
    """SHA-256 of every file, by its path in the set."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_layout_is_sees(whole: Path) -> None:
    annotation = json.loads((whole / "emotion.json").read_text())
    assert [label.lower() for label in annotation["labels"]] == list(EMOTIONS)
    assert "neutraL" in annotation["labels"]
    assert set(annotation["database"]) == {clip.name for clip in plan(SMALL)}
    for clip in plan(SMALL):
        entry = annotation["database"][clip.name]
        assert entry == {"subset": clip.split, "annotations": {"label": clip.folder, "segment": [0, clip.length]}}
        for kind in ("event", "frame"):
            pictures = sorted(path.name for path in (whole / kind / clip.folder / clip.name).iterdir())
            assert pictures == [f"{number:05d}.jpg" for number in range(clip.length)]
    assert {path.name for path in whole.iterdir()} == {"event", "frame", "emotion.json", "synthetic.json"}


def test_the_reader_uses_every_sequence(whole: Path) -> None:
    index = read_see(whole)
    assert index.skipped == ()
    assert [record.name for record in index.records] == [clip.name for clip in plan(SMALL)]


def test_pictures_are_grey_and_close_to_what_was_drawn(whole: Path) -> None:
    clip = plan(SMALL)[0]
    with Image.open(whole / "event" / clip.folder / clip.name / "00003.jpg") as picture:
        assert (picture.mode, picture.size, picture.format) == ("L", (32, 32), "JPEG")
        grey = np.asarray(picture).astype(int)
    nearest = np.abs(grey[..., None] - np.array([0, 128, 255])).min(axis=-1)
    assert np.mean(nearest < 32) > 0.95


def test_two_workers_write_the_same_bits(whole: Path, tmp_path: Path) -> None:
    write_see(tmp_path / "see", SMALL, workers=2)
    assert digest(tmp_path / "see") == digest(whole)


def test_a_killed_run_goes_on(whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "see"
    program = (
        "from pathlib import Path; import sys, time\n"
        "from PIL import Image\n"
        "save = Image.Image.save\n"
        "def slowly(*arguments, **options):\n"  # in the workers too: there is time to kill it
        "    time.sleep(0.02)\n"
        "    save(*arguments, **options)\n"
        "Image.Image.save = slowly\n"
        "from mcoe_model.data.synthetic import SyntheticSettings, write_see\n"
        "if __name__ == '__main__':\n"
        "    settings = SyntheticSettings(subjects=4, sequences=4, size=32, seed=3)\n"
        "    write_see(Path(sys.argv[1]), settings, workers=2)\n"
    )
    script = tmp_path / "write.py"
    script.write_text(program)
    running = psutil.Popen([sys.executable, str(script), str(root)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while len(list(root.glob("frame/*/*"))) < 2:
        assert time.monotonic() < deadline and running.is_running()
        time.sleep(0.005)
    workers = running.children(recursive=True)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert psutil.wait_procs(workers, timeout=120)[1] == []  # none outlives its parent

    assert not (root / "emotion.json").exists()
    finished = list(root.glob("frame/*/*"))
    assert 2 <= len(finished) < len(plan(SMALL))
    for folder in finished:  # whole or not at all
        assert len(list(folder.iterdir())) == int(folder.name.split("_")[7])
    write_see(root, SMALL, workers=1)
    assert digest(root) == digest(whole)


def test_an_event_folder_without_frames_is_drawn_again(whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "see"
    write_see(root, SMALL, workers=1)
    clip = plan(SMALL)[2]
    (root / "emotion.json").unlink()
    for picture in (root / "frame" / clip.folder / clip.name).iterdir():
        picture.unlink()
    (root / "frame" / clip.folder / clip.name).rmdir()
    write_see(root, SMALL, workers=1)
    assert digest(root) == digest(whole)


def test_a_finished_set_is_left_alone(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.jpg")}
    calls: list[tuple[int, int]] = []
    write_see(whole, SMALL, workers=2, progress=lambda done, total, note: calls.append((done, total)))
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*.jpg")} == before
    assert calls == [(16, 16)]


def test_other_settings_are_refused_by_name(whole: Path) -> None:
    with pytest.raises(OutputExists, match=r"seed 3 there, 4 here"):
        write_see(whole, SyntheticSettings(subjects=4, sequences=4, size=32, seed=4))


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("my only copy")
    with pytest.raises(OutputExists, match="no synthetic data set"):
        write_see(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("content", ["{", "[]", '{"settings": 3}'])
def test_damaged_settings_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "synthetic.json").write_text(content)
    with pytest.raises(DataInvalid, match=r"synthetic\.json"):
        write_see(tmp_path, SMALL)


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "see").touch()
    for root in (tmp_path / "see", tmp_path / "see" / "below"):
        with pytest.raises(OutputExists, match="a file"):
            write_see(root, SMALL)


def test_two_runs_into_one_folder_do_not_disturb_each_other(whole: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        for run in [pool.submit(write_see, tmp_path / "see", SMALL, workers=1) for _ in range(2)]:
            run.result()
    assert digest(tmp_path / "see") == digest(whole)


def test_progress_counts_sequences(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_see(tmp_path / "see", SMALL, workers=1, progress=lambda done, total, note: calls.append((done, total)))
    assert calls[0] == (0, 16)
    assert calls[-1] == (16, 16)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_a_full_disk_is_named_and_leaves_nothing_half_written(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, room = tmp_path / "see", iter(range(150))
    save = Image.Image.save

    def until_full(self: Image.Image, *arguments: object, **options: object) -> None:
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Image.Image, "save", until_full)
        with pytest.raises(DiskFull, match="no space left"):
            write_see(root, SMALL, workers=1)
    assert not (root / ".partial").exists()
    assert not (root / "emotion.json").exists()
    write_see(root, SMALL, workers=1)
    assert digest(root) == digest(whole)


def test_sessions_are_beside_a_wearable_set(tmp_path: Path) -> None:
    settings = SyntheticSettings(subjects=1, design="wearable", size=24)
    write_see(tmp_path / "see", settings, workers=1)
    sessions = json.loads((tmp_path / "see" / "sessions.json").read_text())
    assert set(sessions) == {record.name for record in read_see(tmp_path / "see").records}
    assert {entry["session"] for entry in sessions.values()} == set(range(1, 7))


def test_statistics_read_what_was_written(whole: Path) -> None:
    found = measure(whole, plan(SMALL))
    assert set(found) == {"normal", "overexposed", "low-light", "hdr", "all"}
    assert found["overexposed"].frame_mean > 2 * found["normal"].frame_mean > 2 * found["low-light"].frame_mean
    assert found["all"].event_mean == pytest.approx(0.503, abs=0.004)
