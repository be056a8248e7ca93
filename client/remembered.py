"""The last seconds of what the camera gave, in memory and nowhere else, so that they can be kept after the fact."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from client.cameras.source import Portion
from client.portions import span_us

#: How far back it goes. What is asked for is fifteen seconds; the rest is for the time that pressing takes.
REMEMBERED_NS = 20_000_000_000
#: And at most so much, whatever the camera sees: about 12 million events and 20 seconds of frames.
REMEMBERED_BYTES = 512 << 20

#: Bytes of an event twice: as dv-processing's and as NumPy's.
_EVENT_BYTES = 32


@dataclass(frozen=True)
class _Kept:
    arrived_ns: int
    ends_us: int
    size: int
    portion: Portion


class Remembered:
    """Portions of the last ``span_ns``, at most ``limit`` bytes of them; the oldest are forgotten first."""

    def __init__(self, span_ns: int = REMEMBERED_NS, limit: int = REMEMBERED_BYTES) -> None:
        self._span_ns, self._limit = span_ns, limit
        self._kept: deque[_Kept] = deque()
        self.bytes = 0

    def add(self, portion: Portion, arrived_ns: int) -> None:
        """Remember a portion that has just arrived."""
        span = span_us(portion)
        if span is None:
            return
        self._kept.append(_Kept(arrived_ns, span[1], _size(portion), portion))
        self.bytes += self._kept[-1].size
        while self._kept and (self.bytes > self._limit or self._kept[0].arrived_ns < arrived_ns - self._span_ns):
            self.bytes -= self._kept.popleft().size

    def since(self, camera_us: int) -> list[Portion]:
        """The portion in which this time of the camera's clock is and all after it, as far back as is remembered."""
        return [kept.portion for kept in self._kept if kept.ends_us >= camera_us]

    def seconds(self, now_ns: int) -> float:
        """How far back it goes."""
        return (now_ns - self._kept[0].arrived_ns) / 1e9 if self._kept else 0.0

    def forget(self) -> None:
        """All of it."""
        self._kept.clear()
        self.bytes = 0


def _size(portion: Portion) -> int:
    events = len(portion.events) * _EVENT_BYTES if portion.events is not None else 0
    others = [*(frame.image for frame in portion.frames), portion.imu, portion.triggers]
    return events + sum(other.nbytes for other in others if other is not None)
