"""Where an export may go: to a new name on a local medium with room for it, outside of the wearable's own folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from client.filesystem import LARGEST_FILE, filesystem, is_remote
from mcoe_model.errors import DataMissing, DiskFull, OutputExists, SettingsError
from mcoe_model.files import fsync_folder

#: What stays free on the medium.
_SPARE_BYTES = 16 << 20


def check_place(out: Path, wearable: Path, needed_bytes: int) -> str:
    """The kind of file system there. Raises OutputExists, SettingsError, DataMissing without the medium, DiskFull."""
    place, own = out.absolute().parent.resolve() / out.name, wearable.absolute().resolve()
    if os.path.lexists(place):
        raise OutputExists(f"{out} exists already; name a new one")
    if place.is_relative_to(own) or own.is_relative_to(place):
        raise SettingsError([f"{out} lies in the wearable's own folder; name a place on a medium to be taken away"])
    if not place.parent.is_dir():
        raise DataMissing(f"there is no folder {out.absolute().parent}; plug the medium in, or make it")
    kind = filesystem(place)
    if is_remote(kind):
        raise SettingsError([f"{out} lies on another machine; an export goes to a local medium only"])
    free = shutil.disk_usage(place.parent).free
    if free < needed_bytes + _SPARE_BYTES:
        raise DiskFull(f"{out} needs about {needed_bytes / 1e6:.0f} MB, of which {free / 1e6:.0f} MB are free")
    return kind


def check_file(kind: str, needed_bytes: int) -> None:
    """Raises SettingsError for a file that this kind of file system does not take."""
    if needed_bytes > LARGEST_FILE.get(kind, needed_bytes):
        needs = f"about {needed_bytes / 1e9:.1f} GB"
        raise SettingsError([f"the medium ({kind}) takes no file of {needs}; format it as exFAT, or take another"])


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A private folder to be filled, which has its name once that is done; else nothing is left of it.

    Raises OutputExists where an export that was killed left something: it may be read, so it is not kept quiet.
    """
    partial = out.with_name(f"{out.name}.partial")
    try:
        partial.mkdir(mode=0o700)
    except FileExistsError as fault:
        raise OutputExists(f"{partial} was left by an export that was broken off; delete it") from fault
    try:
        yield partial
        os.rename(partial, out)
        fsync_folder(out.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
