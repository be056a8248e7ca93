"""Writing files so that a crash leaves either the old bytes or the new ones, and naming a full disk when it is one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mcoe_model.errors import DiskFull

#: A temporary file of `atomic_write`: its file's name between a dot and eight letters of `tempfile`.
_TORN = re.compile(r"\..+\.[a-z0-9_]{8}")


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``; on success fsync it and rename it over ``path``, else remove it.

    Raises DiskFull when the disk has no space left.
    """
    with full_disk_named(path):
        _make_folder(path.parent)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            fsync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Raise DiskFull where what is written inside, at ``path``, finds no space left."""
    try:
        yield
    except OSError as fault:
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            says = f"no space left while writing {path}; free some and start again"
            raise DiskFull(says) from fault
        raise


def remove_torn(folder: Path) -> int:
    """Remove what processes that were killed in `atomic_write` have left below a folder; how many files that was.

    Only for whoever knows that nobody writes there now.
    """
    torn = [path for path in folder.rglob(".*") if _TORN.fullmatch(path.name) and path.is_file()]
    for path in torn:
        path.unlink(missing_ok=True)
    return len(torn)


def fsync_folder(folder: Path) -> None:
    """Make a rename or a new name inside ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` atomically."""
    with atomic_write(path) as file:
        file.write(content)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, atomically. NaN is refused: JSON has none."""
    write_bytes(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file that this program wrote."""
    return dict(json.loads(path.read_bytes()))


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each of which then survives a power cut."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync_folder(folder.parent)
