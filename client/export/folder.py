"""Everything about a wearer, as a folder on a medium or as a ZIP that is sent while it is made."""

from __future__ import annotations

import errno
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from client.export.everything import ExportFile
from client.export.place import new_folder
from mcoe_model.errors import DiskFull
from mcoe_model.files import fsync_folder
from mcoe_model.progress import Progress, silent

#: The ZIP is handed out in portions of about this size.
_PORTION_BYTES = 1 << 20


def write_folder(out: Path, files: Iterable[ExportFile], total_bytes: int, progress: Progress = silent) -> int:
    """Write the files as a new folder, whole or not at all; how many bytes. Raises OutputExists, DiskFull.

    ``progress`` counts bytes; ``total_bytes`` is about how many will come.
    """
    done = 0
    try:
        with new_folder(out) as folder:
            for name, content in files:
                _write(folder / name, content)
                done += len(content)
                progress(done, max(done, total_bytes), "")
            for inner in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
                fsync_folder(inner)
    except OSError as fault:
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no space left while writing {out}; nothing was left there") from fault
        raise
    return done


def zipped(files: Iterable[ExportFile]) -> Iterator[bytes]:
    """The files as a ZIP, in portions, written to no disk. Recordings are compressed already, so they are stored."""
    made = _Portions()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for name, content in files:
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o600 << 16
            with archive.open(info, "w", force_zip64=True) as file:
                for begin in range(0, len(content), _PORTION_BYTES):
                    file.write(content[begin : begin + _PORTION_BYTES])
                    if len(made.held) >= _PORTION_BYTES:
                        yield made.take()
    yield made.take()


class _Portions:
    """A file that can only be written to; what was written is taken away."""

    def __init__(self) -> None:
        self.held = bytearray()

    def write(self, content: bytes) -> int:
        self.held += content
        return len(content)

    def flush(self) -> None:
        """Nothing waits."""

    def take(self) -> bytes:
        taken = bytes(self.held)
        self.held.clear()
        return taken


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
