"""Accepted updates on disk, one file each, until their round is aggregated.

An update is written durably (temporary file, fsync, rename) under its update id, before the registry names it. Reading
goes by columns, so that aggregation never holds a whole update, let alone a cohort of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from mcoe_model.errors import DataInvalid, DataMissing
from mcoe_model.files import write_bytes

Float32s = NDArray[np.float32]


def spool_path(folder: Path, update_id: str) -> Path:
    """Where the update with this id lies in a round's spool folder."""
    return folder / f"{update_id}.safetensors"


def write_update(folder: Path, update_id: str, update: Mapping[str, NDArray[Any]]) -> None:
    """Write an accepted update durably, in place of what a killed process may have left there. Raises DiskFull."""
    content = save({name: np.asarray(update[name], order="C") for name in sorted(update)})
    write_bytes(spool_path(folder, update_id), bytes(content))


@dataclass(frozen=True)
class SpooledUpdate:
    """An update in the spool: where each tensor's bytes lie in its file, which is open only while read."""

    path: Path
    extents: Mapping[str, tuple[int, int]]

    def __contains__(self, name: str) -> bool:
        return name in self.extents

    def read(self, columns: Iterable[tuple[str, int, int]], into: Float32s) -> None:
        """Fill ``into`` (C,) with values start..stop of the named flattened tensors, one after the other."""
        with self.path.open("rb", buffering=0) as file:
            filled = 0
            for first, last in self._runs(columns):
                target = into[filled : filled + (last - first) // 4]
                file.seek(first)
                if file.readinto(target.data.cast("B")) != last - first:
                    raise torn_update(self.path)
                filled += len(target)

    def _runs(self, columns: Iterable[tuple[str, int, int]]) -> Iterator[tuple[int, int]]:
        """Byte ranges of the columns; those that touch become one, since a read costs more than its bytes."""
        begin = end = 0
        for name, start, stop in columns:
            tensor = self.extents[name][0]
            first, last = tensor + 4 * start, tensor + 4 * stop
            if first != end:
                if end > begin:
                    yield begin, end
                begin = first
            end = last
        yield begin, end


def torn_update(path: Path) -> DataInvalid:
    """The error for an update whose bytes are not all there."""
    return DataInvalid(f"the accepted update {path} is torn")


def open_update(folder: Path, update_id: str) -> SpooledUpdate:
    """Find a spooled update's tensors. Raises DataMissing when its file is gone, DataInvalid when it is torn."""
    path = spool_path(folder, update_id)
    if not path.is_file():
        raise DataMissing(f"the accepted update {path} is gone")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, size)))
        header.pop("__metadata__", None)
        offsets = {name: entry["data_offsets"] for name, entry in header.items()}
        extents = {name: (8 + length + begin, 8 + length + end) for name, (begin, end) in offsets.items()}
        torn = size != max((end for _, end in extents.values()), default=8 + length)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        torn = True
    if torn:
        raise torn_update(path)
    return SpooledUpdate(path, extents)


def is_whole(folder: Path, update_id: str) -> bool:
    """Whether a spooled update is there with all its bytes."""
    try:
        open_update(folder, update_id)
    except (DataMissing, DataInvalid):
        return False
    return True
