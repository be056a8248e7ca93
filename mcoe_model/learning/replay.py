"""The replay memory: what a wearable keeps of the clips that it has learned, so that later ones do not undo them.

NumPy only: whoever takes a deleted clip out needs no torch. A memory is a value; every change gives a new one.

Kept are the features of one window of a clip and what the model said of it, never a picture. The memory is stratified
by (emotion, lighting) and bounded in bytes. When it is full an entry of the largest stratum goes, as in class-balancing
reservoir sampling (Chrysakis & Moens 2020, "Online Continual Learning from Imbalanced Data",
https://proceedings.mlr.press/v119/chrysakis20a.html); among equally large ones the newcomer's own stratum gives way.

Inside a stratum every clip that ever came has the same chance to be kept, as with algorithm R (Vitter 1985, "Random
Sampling with a Reservoir", https://doi.org/10.1145/3147.3165). What differs: a clip has one random number, from its
name, and those with the lowest stay. It is the same sample in law, holds while a stratum shrinks, and needs no count of
clips seen, so that a clip which is learned again in the next round is not a second one. Room that removal or age made
is taken by whatever comes next.
"""

from __future__ import annotations

import json
from bisect import insort
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mcoe_model.errors import DataInvalid
from mcoe_model.names import EMOTIONS, LIGHTINGS
from mcoe_model.streams import stream_seed
from mcoe_model.tensors import pack, unpack

#: The lightings of an entry: those of the data, and that it is not known.
UNKNOWN_LIGHTING = "unknown"
STRATUM_LIGHTINGS: tuple[str, ...] = (*LIGHTINGS, UNKNOWN_LIGHTING)
#: What an entry counts beside its arrays [bytes]: room for its name, emotion, lighting and day.
ENTRY_BYTES = 256
_NAME_BYTES = 200
_LAST_DAY = 2**31 - 1

Stratum = tuple[int, str]


@dataclass(frozen=True, eq=False)
class Exemplar:
    """What is kept of one learned clip. Raises DataInvalid for anything that does not fit.

    ``emotion`` is an index into EMOTIONS, ``lighting`` one of STRATUM_LIGHTINGS, ``day`` the UTC day since 1970, 0 for
    one that is not known.
    """

    name: str
    emotion: int
    lighting: str
    day: int
    ends: NDArray[np.float16]  # (4, F) features of first frame, last frame, first event picture, last event picture
    logits: NDArray[np.float32]  # (c,) what the model said of them when the clip came into the memory

    def __post_init__(self) -> None:
        if not 1 <= len(self.name.encode()) <= _NAME_BYTES:
            raise _unfit(f"a name has 1 to {_NAME_BYTES} bytes, not {len(self.name.encode())}")
        if not 0 <= self.emotion < len(EMOTIONS):
            raise _unfit(f"there is no emotion {self.emotion}")
        if self.lighting not in STRATUM_LIGHTINGS:
            raise _unfit(f"there is no lighting {self.lighting!r}")
        if not 0 <= self.day <= _LAST_DAY:
            raise _unfit(f"there is no day {self.day}")
        if self.ends.ndim != 2 or len(self.ends) != 4 or self.ends.shape[1] < 1 or self.ends.dtype != np.float16:
            raise _unfit(f"its features are {self.ends.dtype}{self.ends.shape}, not float16(4, F)")
        if self.logits.shape != (len(EMOTIONS),) or self.logits.dtype != np.float32:
            raise _unfit(f"its logits are {self.logits.dtype}{self.logits.shape}, not float32({len(EMOTIONS)},)")
        if not (np.isfinite(self.ends).all() and np.isfinite(self.logits).all()):
            raise _unfit("its features or logits are not finite")

    @property
    def stratum(self) -> Stratum:
        return self.emotion, self.lighting

    @property
    def size_bytes(self) -> int:
        """What it counts against the limit of a memory."""
        return self.ends.nbytes + self.logits.nbytes + ENTRY_BYTES


@dataclass(frozen=True, eq=False)
class ReplayMemory:
    """Exemplars of one generation's features, in name order; never more than ``limit_bytes`` of them.

    The default limit holds some 850 clips of ``mcoe-edge``. Make one empty or with `from_bytes`; entries come by `add`.
    """

    generation: str
    limit_bytes: int = 2_000_000
    exemplars: tuple[Exemplar, ...] = ()

    @property
    def size_bytes(self) -> int:
        """What the entries count: their arrays, and ENTRY_BYTES each."""
        return sum(exemplar.size_bytes for exemplar in self.exemplars)

    @property
    def names(self) -> tuple[str, ...]:
        """The clips of which something is kept."""
        return tuple(exemplar.name for exemplar in self.exemplars)

    def add(self, exemplars: Iterable[Exemplar]) -> ReplayMemory:
        """With these clips, as far as there is room. The same clips in the same order give the same memory.

        A clip that is here already stays as it came, with the logits of then; with another emotion or lighting it is
        exchanged. Raises DataInvalid for features of another size than those that are here.
        """
        strata: dict[Stratum, list[Exemplar]] = {}
        held: dict[str, Exemplar] = {}
        used = 0
        shape: tuple[int, ...] = ()
        for new in (*self.exemplars, *exemplars):
            shape = shape or new.ends.shape
            if new.ends.shape != shape:
                raise _unfit(f"its features are {new.ends.shape}, those of the other entries {shape}")
            old = held.get(new.name)
            if old is not None:
                if old.stratum == new.stratum:
                    continue
                strata[old.stratum].remove(old)
                used -= old.size_bytes
            insort(strata.setdefault(new.stratum, []), new, key=_rank)
            held[new.name] = new
            used += new.size_bytes
            while used > self.limit_bytes:
                largest = max(strata, key=lambda stratum: (len(strata[stratum]), stratum == new.stratum, stratum))
                gone = strata[largest].pop()
                del held[gone.name]
                used -= gone.size_bytes
        return replace(self, exemplars=tuple(held[name] for name in sorted(held)))

    def without(self, names: Collection[str]) -> ReplayMemory:
        """Without the clips of these names: those that the wearer deleted, or labelled anew."""
        return replace(self, exemplars=tuple(e for e in self.exemplars if e.name not in names))

    def expire(self, today: int, days: int = 180) -> ReplayMemory:
        """Without what was learned more than ``days`` before ``today`` (UTC days since 1970; 0 if not known).

        What was learned on a day that was not known counts from ``today`` on.

        Half a year by default: the light of spring is that of autumn, so that every light comes back within it, and
        what does not come back in that time is hardly worth keeping a wearer's data for.
        """
        dated = (e if e.day or not today else replace(e, day=today) for e in self.exemplars)
        return replace(self, exemplars=tuple(e for e in dated if e.day >= today - days))

    def to_bytes(self) -> bytes:
        """The memory as a safetensors file, to be sealed (`mcoe_model.sealed`). Equal memories give equal bytes."""
        about = json.dumps({"generation": self.generation, "names": self.names}, ensure_ascii=False)
        width = self.exemplars[0].ends.shape[1] if self.exemplars else 1
        lightings = [STRATUM_LIGHTINGS.index(exemplar.lighting) for exemplar in self.exemplars]
        return pack(
            {
                "about": np.frombuffer(about.encode(), np.uint8),
                "day": np.array([exemplar.day for exemplar in self.exemplars], np.int32),  # (N,)
                "emotion": np.array([exemplar.emotion for exemplar in self.exemplars], np.uint8),  # (N,)
                "ends": np.array([e.ends for e in self.exemplars], np.float16).reshape(-1, 4, width),  # (N, 4, F)
                "lighting": np.array(lightings, np.uint8),  # (N,)
                "logits": np.array([e.logits for e in self.exemplars], np.float32).reshape(-1, len(EMOTIONS)),  # (N, c)
            }
        )

    @staticmethod
    def from_bytes(content: bytes, *, generation: str | None, limit_bytes: int = 2_000_000) -> ReplayMemory:
        """The memory of `to_bytes`; where it is larger than the limit, entries go as in `add`.

        ``generation``: the model's, or None for whichever it is, to take clips out of it. Raises DataInvalid when it is
        of another generation, and when it is damaged in any way; both times the caller begins with an empty one.
        """
        try:
            arrays = unpack(content)
            about = json.loads(arrays["about"].tobytes())
            columns = [arrays[name] for name in ("emotion", "lighting", "day", "ends", "logits")]
            if not isinstance(about["generation"], str) or len(set(about["names"])) != len(about["names"]):
                raise ValueError("its generation or its names are no such thing")
            if columns[0].dtype != np.uint8 or columns[1].dtype != np.uint8 or columns[2].dtype != np.int32:
                raise ValueError("its columns are of another kind")
            found = tuple(
                Exemplar(name, int(emotion), STRATUM_LIGHTINGS[lighting], int(day), ends, logits)
                for name, emotion, lighting, day, ends, logits in zip(about["names"], *columns, strict=True)
            )
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, DataInvalid) as fault:
            raise DataInvalid(f"the replay memory cannot be read ({fault}); it begins anew") from fault
        if generation not in (None, about["generation"]):
            raise DataInvalid(
                f"the replay memory is of generation {about['generation']}, the model of {generation}; it begins anew"
            )
        return ReplayMemory(about["generation"], limit_bytes).add(found)


def _rank(exemplar: Exemplar) -> int:
    """The clip's random number, uniform on 63 bits: the lowest of a stratum are kept."""
    return stream_seed("replay", exemplar.name)


def _unfit(what: str) -> DataInvalid:
    return DataInvalid(f"an entry does not fit into the replay memory: {what}")
