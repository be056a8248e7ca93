"""Accepted updates on disk, one file each, until their round is aggregated.

An update is written once (temporary file, fsync, rename) under its update id, so a repeat changes nothing. Reading goes by
columns of one tensor, so that aggregation never holds a whole update, let alone a cohort of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from mcoe_model.files import write_bytes

Float32s = NDArray[np.float32]


def spool_path(folder: Path, update_id: str) -> Path:
    """Where the update with this id lies in a round's spool folder."""
    return folder / f"{update_id}.safetensors"


def write_update(folder: Path, update_id: str, update: Mapping[str, NDArray[Any]]) -> None:
    """Write an accepted update durably; when it is there already, nothing happens. Raises DiskFull."""
    path = spool_path(folder, update_id)
    if not path.exists():
        write_bytes(path, bytes(save({name: np.asarray(update[name], order="C") for name in sorted(update)})))


@dataclass(frozen=True)
class SpooledUpdate:
    """An open update in the spool: where each tensor's bytes begin and end in the file."""

    descriptor: int
    extents: Mapping[str, tuple[int, int]]

    def __contains__(self, name: str) -> bool:
        return name in self.extents

    def columns(self, name: str, start: int, stop: int) -> Float32s:
        """Values start..stop of the flattened tensor: (stop - start,) float32."""
        begin, end = self.extents[name]
        first, last = begin + 4 * start, min(begin + 4 * stop, end)
        return np.frombuffer(os.pread(self.descriptor, last - first, first), np.float32)


@contextmanager
def open_update(folder: Path, update_id: str) -> Iterator[SpooledUpdate]:
    """Open a spooled update for reading by columns."""
    descriptor = os.open(spool_path(folder, update_id), os.O_RDONLY)
    try:
        length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
        header = json.loads(os.pread(descriptor, length, 8))
        header.pop("__metadata__", None)
        extents = {name: (8 + length + e["data_offsets"][0], 8 + length + e["data_offsets"][1]) for name, e in header.items()}
        yield SpooledUpdate(descriptor, extents)
    finally:
        os.close(descriptor)
