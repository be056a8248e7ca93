"""Decoding once: the right pixels, the same bytes every time, and nothing half-written or stale."""

import copy
import errno
import fcntl
import json
import os
import queue
import shutil
import threading
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from PIL import Image
from see_folder import NAMES, SeeFolder

from mcoe_model.data.cache import open_clips
from mcoe_model.errors import DataInvalid, DiskFull

SIZE = 16


def published_resize(path: Path, size: int) -> np.ndarray:
    """What torchvision does: RGB, Pillow's bilinear; then the centre."""
    picture = Image.open(path).convert("RGB")
    width, height = picture.size
    short = min(width, height)
    picture = picture.resize((int(size * width / short), int(size * height / short)), Image.Resampling.BILINEAR)
    left, top = round((picture.width - size) / 2), round((picture.height - size) / 2)
    return np.asarray(picture.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("shape", [(20, 20), (16, 16), (9, 9), (20, 31), (33, 20)])
@pytest.mark.parametrize("workers", [1, 3])
def test_pictures_are_the_published_resize(tmp_path: Path, shape: tuple[int, int], workers: int) -> None:
    see = SeeFolder(tmp_path / "see", shape)
    clips = open_clips(see.root, size=SIZE, cache=tmp_path / "cache", workers=workers)
    assert [record.name for record in clips.records] == NAMES and clips.size == SIZE
    for clip, record in enumerate(clips.records):
        frames, events = clips.pictures(clip)
        assert frames.shape == events.shape == (clips.n_frames(clip), SIZE, SIZE) and frames.dtype == np.uint8
        for index in range(record.n_frames):
            for modality, decoded in (("frame", frames), ("event", events)):
                expected = published_resize(see.folder(modality, record.name) / f"{index:05d}.jpg", SIZE)
                for channel in range(3):
                    np.testing.assert_array_equal(decoded[index], expected[:, :, channel])
    clips.verify()


def test_only_the_segment_is_kept(see: SeeFolder, tmp_path: Path) -> None:
    whole, _ = open_clips(see.root, size=SIZE, cache=tmp_path / "cache").pictures(0)
    see.database[NAMES[0]]["annotations"]["segment"] = [2, 5]
    see.annotate()
    part, _ = open_clips(see.root, size=SIZE, cache=tmp_path / "cache").pictures(0)
    np.testing.assert_array_equal(part, whole[2:5])


def test_colour_becomes_luma(see: SeeFolder, tmp_path: Path) -> None:
    path = see.folder("frame", NAMES[0]) / "00000.jpg"
    Image.new("RGB", (20, 20), (250, 20, 20)).save(path, quality=100)
    frames, _ = open_clips(see.root, size=SIZE, cache=tmp_path / "cache").pictures(0)
    assert frames[0].mean() == pytest.approx(0.299 * 250 + 0.587 * 20 + 0.114 * 20, abs=2)


def test_decodes_once(see: SeeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int, note: str) -> None:
        seen.append((done, total))

    first = open_clips(see.root, size=SIZE, cache=tmp_path / "cache", progress=progress, workers=2)
    assert seen == [(done, 5) for done in range(1, 6)]
    monkeypatch.setattr(Image, "open", None)
    again = open_clips(see.root, size=SIZE, cache=tmp_path / "cache", progress=progress)
    assert len(seen) == 5 and again.sha256 == first.sha256 and again.records == first.records
    np.testing.assert_array_equal(again.pictures(3)[1], first.pictures(3)[1])


def test_a_worker_is_sent_the_path_alone(see: SeeFolder, tmp_path: Path) -> None:
    clips = open_clips(see.root, size=SIZE, cache=tmp_path / "cache")
    assert len(ForkingPickler.dumps(clips)) < 500
    again = copy.copy(clips)
    assert again.sha256 == clips.sha256
    np.testing.assert_array_equal(again.pictures(2)[0], clips.pictures(2)[0])


def test_views_cannot_be_written_to(see: SeeFolder, tmp_path: Path) -> None:
    frames, _ = open_clips(see.root, size=SIZE, cache=tmp_path / "cache").pictures(0)
    with pytest.raises(ValueError, match="read-only"):
        frames[0] = 0


def test_the_hash_names_content_not_place_or_time(see: SeeFolder, tmp_path: Path) -> None:
    first = open_clips(see.root, size=SIZE, cache=tmp_path / "cache")
    shutil.copytree(see.root, tmp_path / "copy", copy_function=shutil.copyfile)
    copy = open_clips(tmp_path / "copy", size=SIZE, cache=tmp_path / "cache", workers=2)
    assert copy.path != first.path and copy.sha256 == first.sha256
    assert open_clips(see.root, size=SIZE + 1, cache=tmp_path / "cache").sha256 != first.sha256
    see.database[NAMES[0]]["subset"] = "testing"  # no pixel changes
    see.annotate()
    assert open_clips(see.root, size=SIZE, cache=tmp_path / "cache").sha256 != first.sha256


def test_changed_data_never_meet_an_old_cache(see: SeeFolder, tmp_path: Path) -> None:
    before, _ = open_clips(see.root, size=SIZE, cache=tmp_path / "cache").pictures(0)
    path = see.folder("frame", NAMES[0]) / "00000.jpg"
    Image.new("L", (20, 20), 9).save(path)
    after, _ = open_clips(see.root, size=SIZE, cache=tmp_path / "cache").pictures(0)
    assert (after[0] == 9).all() and not (before[0] == 9).all()


def test_by_subject(see: SeeFolder, tmp_path: Path) -> None:
    clips = open_clips(see.root, size=SIZE, cache=tmp_path / "cache")
    assert [record.take for record in clips.records] == [0, 1, 0, 2, 0], "as SEE's names say"
    assert clips.by_subject() == {"001": (0, 1), "002": (2,), "003": (3,), "004": (4,)}


@pytest.mark.parametrize("content", ["half", "text", "end"])
def test_a_torn_picture_takes_its_sequence_out(see: SeeFolder, tmp_path: Path, content: str) -> None:
    path = see.folder("event", NAMES[1]) / "00003.jpg"
    whole = path.read_bytes()
    path.write_bytes({"half": whole[: len(whole) // 2], "text": b"no picture", "end": whole[:-20]}[content])
    clips = open_clips(see.root, size=SIZE, cache=tmp_path / "cache", workers=2)
    assert [record.name for record in clips.records] == [NAMES[0], *NAMES[2:]]
    assert clips.skipped == ((NAMES[1], f"event/neutraL/{NAMES[1]}/00003.jpg is torn or no picture"),)
    last, _ = clips.pictures(3)
    assert last.shape == (6, SIZE, SIZE)
    clips.verify()
    assert open_clips(see.root, size=SIZE, cache=tmp_path / "cache").skipped == clips.skipped


def test_nothing_usable_leaves_nothing(see: SeeFolder, tmp_path: Path) -> None:
    for name in NAMES:
        (see.folder("frame", name) / "00000.jpg").write_bytes(b"torn")
    with pytest.raises(DataInvalid, match=r"holds no usable sequence: 5 skipped: .*is torn"):
        open_clips(see.root, size=SIZE, cache=tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_disk_that_fails_to_read_does_not_shrink_the_data(
    see: SeeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(Image, "open", failing)
    with pytest.raises(DataInvalid, match=r"cannot read .*00000\.jpg: Input/output error"):
        open_clips(see.root, size=SIZE, cache=tmp_path / "cache")
    monkeypatch.undo()
    assert len(open_clips(see.root, size=SIZE, cache=tmp_path / "cache").records) == 5


def test_a_full_disk_is_named_before_starting(
    see: SeeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 2 * (6 + 5 + 7 + 6 + 6) * SIZE**2
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
    with pytest.raises(DiskFull, match=f"{tmp_path / 'cache'} has .* free .* need {needed:,}"):
        open_clips(see.root, size=SIZE, cache=tmp_path / "cache")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed))
    open_clips(see.root, size=SIZE, cache=tmp_path / "cache")


def test_a_disk_that_fills_while_writing_leaves_nothing(
    see: SeeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.fdopen

    class Filling:
        """A file on a disk with room for two sequences."""

        def __init__(self, file: BinaryIO) -> None:
            self.file, self.writes = file, 0

        def __enter__(self) -> "Filling":
            return self

        def __exit__(self, *fault: object) -> None:
            self.file.close()

        def write(self, content: bytes) -> int:
            self.writes += 1
            if self.writes > 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.file.write(content)

    monkeypatch.setattr(os, "fdopen", lambda *given: Filling(opened(*given)))
    with pytest.raises(DiskFull, match=r"cache/clips-16-\w+\.u8, which needs 15,360 bytes"):
        open_clips(see.root, size=SIZE, cache=tmp_path / "cache", workers=2)
    monkeypatch.undo()
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]
    assert len(open_clips(see.root, size=SIZE, cache=tmp_path / "cache").records) == 5


def test_a_build_that_was_killed_is_cleared_away(see: SeeFolder, tmp_path: Path) -> None:
    clips = open_clips(see.root, size=SIZE, cache=tmp_path / "cache")
    pictures = clips.path.with_suffix(".u8")
    clips.path.unlink()  # as after a kill between the two files
    torn = pictures.with_name(f".{pictures.name}.k1lled")
    torn.write_bytes(b"half")
    again = open_clips(see.root, size=SIZE, cache=tmp_path / "cache")
    assert again.sha256 == clips.sha256 and not torn.exists()


@pytest.mark.parametrize("damage", ["shorter", "gone", "list", "not json", "value"])
def test_a_damaged_cache_is_refused(see: SeeFolder, tmp_path: Path, damage: str) -> None:
    path = open_clips(see.root, size=SIZE, cache=tmp_path / "cache").path
    pictures = path.with_suffix(".u8")
    if damage == "shorter":
        pictures.write_bytes(pictures.read_bytes()[:-1])
    elif damage == "gone":
        pictures.unlink()
    elif damage == "list":
        path.write_text("[]")
    elif damage == "not json":
        path.write_bytes(path.read_bytes()[:100])
    else:
        stored = json.loads(path.read_text())
        stored["content"]["records"][0]["emotion"] = "fear"
        path.write_text(json.dumps(stored))
    with pytest.raises(DataInvalid, match="delete"):
        open_clips(see.root, size=SIZE, cache=tmp_path / "cache")


def test_bit_rot_is_found_by_verify_alone(see: SeeFolder, tmp_path: Path) -> None:
    path = open_clips(see.root, size=SIZE, cache=tmp_path / "cache").path.with_suffix(".u8")
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    clips = open_clips(see.root, size=SIZE, cache=tmp_path / "cache")
    with pytest.raises(DataInvalid, match="has changed on disk"):
        clips.verify()


def test_two_at_once_decode_once(see: SeeFolder, tmp_path: Path) -> None:
    decoded: list[int] = []
    hashes: list[str] = []

    def ask() -> None:
        clips = open_clips(
            see.root, size=SIZE, cache=tmp_path / "cache", progress=lambda done, total, note: decoded.append(done)
        )
        hashes.append(clips.sha256)

    both = [threading.Thread(target=ask) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert [done for done in decoded if done] == [1, 2, 3, 4, 5]  # 0: the other waits
    assert len(set(hashes)) == 1 and len(hashes) == 2


def test_who_waits_for_another_process_says_so_and_for_no_other_data(see: SeeFolder, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    open_clips(see.root, size=SIZE, cache=cache)
    [lock] = cache.glob(".*.lock")
    for made in cache.glob("clips-*"):
        made.unlink()
    said: queue.SimpleQueue[str] = queue.SimpleQueue()

    def build() -> None:
        open_clips(see.root, size=SIZE, cache=cache, progress=lambda done, total, note: said.put(note))

    waiting = threading.Thread(target=build)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting.start()
        assert "waiting for another process" in said.get(timeout=60)
        open_clips(see.root, size=SIZE // 2, cache=cache)
        assert waiting.is_alive() and not list(cache.glob(f"clips-{SIZE}-*"))
    waiting.join(60)
    assert not waiting.is_alive() and list(cache.glob(f"clips-{SIZE}-*"))
