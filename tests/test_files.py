"""A crash leaves the old bytes or the new ones; a full disk is named. With real kills and a real small disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcoe_model.errors import DiskFull, ExitCode
from mcoe_model.files import atomic_write, read_json, remove_torn, write_bytes, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_new_bytes_replace_the_old_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "some" / "new folder" / "file"
    for content in (b"first", b"second, which is longer", b""):
        write_bytes(path, content)
        assert path.read_bytes() == content
    assert names(path.parent) == ["file"]


def test_an_error_while_writing_leaves_the_old_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(b"new" * 1000)
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


KILLED = """
import os, signal, sys
from pathlib import Path
import mcoe_model.files as files

phase, path = sys.argv[1], Path(sys.argv[2])
kill = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
if phase == "fsync":
    os.fsync = kill
if phase == "rename":
    os.replace = kill
if phase == "renamed":
    files.fsync_folder = kill
with files.atomic_write(path) as file:
    file.write(b"new" * 100_000)
    if phase == "write":
        file.flush()
        kill()
"""


@pytest.mark.parametrize(
    ("phase", "expected"), [("write", b"old"), ("fsync", b"old"), ("rename", b"old"), ("renamed", b"new" * 100_000)]
)
def test_a_process_killed_while_writing_leaves_a_whole_file(phase: str, expected: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    assert subprocess.run([sys.executable, "-c", KILLED, phase, str(path)]).returncode == -9
    assert path.read_bytes() == expected
    write_bytes(tmp_path / ".settings", b"no temporary file")
    assert remove_torn(tmp_path) == (phase != "renamed")
    assert names(tmp_path) == [".settings", "file"]


def test_every_new_folder_is_synced_into_the_one_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut takes the folder away and with it a file that was promised."""
    synced = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_bytes(tmp_path / "a" / "b" / "file", b"content")
    assert synced[0:2] == [tmp_path, tmp_path / "a"]
    assert synced[2].name.startswith(".file.")
    assert synced[3] == tmp_path / "a" / "b"
    synced.clear()
    write_bytes(tmp_path / "a" / "b" / "file", b"other content")
    assert len(synced) == 2


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB with few files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=5", "tmpfs", str(folder)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(options, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_named_and_the_old_bytes_stay(tiny_disk: Path) -> None:
    path = tiny_disk / "file"
    write_bytes(path, b"old")
    with pytest.raises(DiskFull, match=str(path)) as caught:
        write_bytes(path, b"x" * (2 << 20))
    assert caught.value.exit_code is ExitCode.DISK_FULL
    assert path.read_bytes() == b"old"
    assert names(tiny_disk) == ["file"]


def test_a_disk_without_room_for_another_name_is_full_too(tiny_disk: Path) -> None:
    for index in range(4):
        (tiny_disk / str(index)).touch()
    for path in (tiny_disk / "file", tiny_disk / "folder" / "file"):
        with pytest.raises(DiskFull):
            write_bytes(path, b"content")


def test_a_full_quota_is_a_full_disk_and_other_errors_keep_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, expected in ((errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EIO, OSError)):

        def fsync(descriptor: int, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(expected):
            write_bytes(tmp_path / "file", b"content")
    assert names(tmp_path) == []


def test_json_is_written_whole_and_read_back(tmp_path: Path) -> None:
    content = {"name": "ж", "values": [1, 2.5, None], "inner": {"a": True}}
    write_json(tmp_path / "file.json", content)
    assert read_json(tmp_path / "file.json") == content == json.loads((tmp_path / "file.json").read_text())


def test_json_refuses_nan_before_it_touches_the_file(tmp_path: Path) -> None:
    write_json(tmp_path / "file.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file.json", {"a": float("nan")})
    assert read_json(tmp_path / "file.json") == {"a": 1}
