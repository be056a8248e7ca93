"""Events in memory, as the cameras hand them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.cameras.source import dv_processing
from mcoe_model.data.events import EVENT


@dataclass(frozen=True, eq=False)
class NumpyEvents:
    """Events of an array (n,) of dtype EVENT, made into a packet only when a recorder asks for it."""

    array: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.array)

    def numpy(self) -> NDArray[np.void]:
        return self.array

    def packet(self) -> Any:
        """About 2 million events per second: dv-processing takes events from Python one by one."""
        dv = dv_processing()
        return dv.EventPacket(dv.EventPacket.EventVector(map(dv.Event, *_columns(self.array))))

    def store(self) -> Any:
        return as_store(self.array)


@dataclass(frozen=True, eq=False)
class StoredEvents:
    """Events of dv-processing's stores, one after the other, and the same as an array (n,) of dtype EVENT."""

    stores: Sequence[Any]
    array: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.array)

    def numpy(self) -> NDArray[np.void]:
        return self.array

    def packet(self) -> Any:
        """Exactly these events. A writer that is given a slice's store instead writes all that it was cut from."""
        return self.store().toPacket()

    def __getitem__(self, part: slice) -> StoredEvents:
        start, stop, _ = part.indices(len(self))
        return StoredEvents([self.store().slice(start, stop - start)], self.array[part])

    def store(self) -> Any:
        if len(self.stores) == 1:
            return self.stores[0]
        joined = dv_processing().EventStore()
        for store in self.stores:
            joined.add(store)
        return joined


def joined(parts: Sequence[StoredEvents]) -> StoredEvents:
    """Events one after the other."""
    if len(parts) == 1:
        return parts[0]
    return StoredEvents([store for part in parts for store in part.stores], np.concatenate([p.array for p in parts]))


def as_events(array: NDArray[Any]) -> NDArray[np.void]:
    """An array with the fields of EVENT, such as a store's, in the layout of EVENT.

    ON is whatever is above 0, so that 0 and 1, False and True, -1 and 1 mean the same: -1 would become ON in a store.
    """
    events = np.empty(len(array), EVENT)
    for name in EVENT.names or ():
        events[name] = array[name] > 0 if name == "polarity" else array[name]
    return events


def as_store(array: NDArray[np.void]) -> Any:
    """Events (n,) as one of dv-processing's stores; about 2 million per second."""
    store = dv_processing().EventStore()
    for event in zip(*_columns(array), strict=True):
        store.push_back(*event)
    return store


def _columns(array: NDArray[np.void]) -> list[list[int]]:
    return [array[name].tolist() for name in EVENT.names or ()]
