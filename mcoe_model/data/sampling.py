"""Which pictures of a sequence the networks see: the published random choice, and its law as an exact distribution.

The data loader of MCO-E Net (https://github.com/hrdhrd/MCO-E-Net, the same as SEEN's) draws for every clip:
an offset o, uniform on {0..4}, only when the stride is above 1; the kept pictures o, o + stride, o + 2 stride, ...
(m of them); a begin b, uniform on {0..max(0, m - samples - 1)}, so that the very last window is never drawn from more
than ``samples`` kept pictures; the ``samples`` kept pictures from b on, repeated from their start when they are fewer.

Differs from the source in one case: it fails on a sequence of fewer than five pictures when the offset leaves none.
Here the offset is uniform on {0..min(4, length - 1)}, so that at least one picture is always kept.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

#: Pictures of a window, and from one of them to the next.
SAMPLES, STRIDE = 4, 4

_LARGEST_OFFSET = 4  # whatever the stride: the source draws 0..4 even at stride 2


class WindowLaw(NamedTuple):
    """Every window that can be drawn from a sequence, in ascending order, with its probability. Both are read-only."""

    windows: NDArray[np.int64]  # (W, samples) picture indices, rows unique
    probability: NDArray[np.float64]  # (W,), sums to one


@functools.lru_cache(maxsize=1024)
def window_law(length: int, *, samples: int = SAMPLES, stride: int = STRIDE) -> WindowLaw:
    """The distribution of ``draw_window`` for a sequence of ``length`` pictures.

    Probabilities are added as fractions and rounded once. Raises ValueError unless all three numbers are positive.
    """
    offsets = _offsets(length, samples, stride)
    mass: dict[tuple[int, ...], Fraction] = defaultdict(Fraction)
    for offset in range(offsets):
        begins = _begins(length, offset, samples, stride)
        for begin in range(begins):
            mass[_window(length, offset, begin, samples, stride)] += Fraction(1, offsets * begins)
    windows = np.array(sorted(mass), dtype=np.int64)  # (W, samples)
    probability = np.array([float(mass[window]) for window in sorted(mass)])  # (W,)
    windows.flags.writeable = probability.flags.writeable = False  # the cache hands the same arrays to everyone
    return WindowLaw(windows, probability)


def draw_window(
    length: int, generator: np.random.Generator, *, samples: int = SAMPLES, stride: int = STRIDE
) -> NDArray[np.int64]:
    """One window (samples,) of a sequence of ``length`` pictures, drawn as published: first the offset, then the begin.

    Raises ValueError unless all three numbers are positive.
    """
    offset = int(generator.integers(_offsets(length, samples, stride)))
    begin = int(generator.integers(_begins(length, offset, samples, stride)))
    return np.array(_window(length, offset, begin, samples, stride), dtype=np.int64)


class Sampling(Protocol):
    """Which pictures of a clip a network sees: the windows, and in which places of a window it looks."""

    @property
    def frames(self) -> tuple[int, ...]:
        """The places in a window whose frame is seen; negative ones count from its end."""
        ...

    @property
    def events(self) -> tuple[int, ...]:
        """The places whose event picture is seen."""
        ...

    def law(self, length: int) -> WindowLaw:
        """The distribution of `draw` for a sequence of ``length`` pictures. Raises ValueError when it has none."""
        ...

    def draw(self, length: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """One window (samples,) of a sequence of ``length`` pictures: indices of its pictures."""
        ...


@dataclass(frozen=True)
class RandomWindow:
    """The published choice, as above: ``samples`` pictures, each ``stride`` after the one before."""

    samples: int = SAMPLES
    stride: int = STRIDE
    frames: tuple[int, ...] = (0, -1)
    events: tuple[int, ...] = (0, -1)

    def law(self, length: int) -> WindowLaw:
        return window_law(length, samples=self.samples, stride=self.stride)

    def draw(self, length: int, generator: np.random.Generator) -> NDArray[np.int64]:
        return draw_window(length, generator, samples=self.samples, stride=self.stride)


def _offsets(length: int, samples: int, stride: int) -> int:
    """How many offsets are equally likely."""
    if min(length, samples, stride) < 1:
        raise ValueError(f"length {length}, samples {samples} and stride {stride} must all be at least 1")
    return min(_LARGEST_OFFSET + 1, length) if stride > 1 else 1


def _begins(length: int, offset: int, samples: int, stride: int) -> int:
    """How many begins are equally likely after this offset."""
    kept = -(-(length - offset) // stride)
    return max(0, kept - samples - 1) + 1


def _window(length: int, offset: int, begin: int, samples: int, stride: int) -> tuple[int, ...]:
    chosen = range(offset, length, stride)[begin : begin + samples]
    return tuple(chosen[position % len(chosen)] for position in range(samples))
