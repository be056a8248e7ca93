"""What a representation of events has to be (`mcoe_model.data.representations.Representation`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcoe_model.data.events import EVENT, PERIOD_US
from mcoe_model.data.representations import Representation
from mcoe_model.streams import stream
from simulations.conform.properties import Fresh, Properties, expect

#: (H, W) of the sensor that is tried, of unequal sides.
_SHAPE = (24, 40)
_START_US = 1_000_000
_END_US = _START_US + PERIOD_US


def _says_what_it_is(fresh: Fresh) -> None:
    made = fresh()
    expect(isinstance(made.name, str) and made.name.isprintable() and bool(made.name), "name must be a text")
    expect(type(made.channels) is int and 1 <= made.channels <= 3, f"channels must be 1 to 3, not {made.channels!r}")
    expect(
        type(made.background) is int and 0 <= made.background <= 255,
        f"background must be a grey value from 0 to 255, not {made.background!r}",
    )


def _pictures(fresh: Fresh) -> None:
    made = fresh()
    for count in (0, 1, 500):
        _draw(made, _events(count))


def _background(fresh: Fresh) -> None:
    made = fresh()
    values = sorted(set(_draw(made, _events(0)).reshape(-1).tolist()))
    expect(values == [made.background], f"without events every value must be {made.background}, found {values[:4]}")


def _deterministic(fresh: Fresh) -> None:
    made, events = fresh(), _events(500)
    first = _draw(made, events)
    _draw(made, _events(300, seed=1))
    expect(np.array_equal(first, _draw(made, events)), "the same events gave other bits after other events")
    expect(np.array_equal(first, _draw(fresh(), events)), "the same events gave other bits in another instance")


def _unchanged(fresh: Fresh) -> None:
    events = _events(500)
    before = events.copy()
    _draw(fresh(), events)
    expect(np.array_equal(events, before), "the events that were given have changed")


def _time(fresh: Fresh) -> None:
    made, events = fresh(), _events(500)
    later = events.copy()
    later["timestamp"] += 3_600_000_000
    shifted = made.draw(later, _START_US + 3_600_000_000, _END_US + 3_600_000_000, _SHAPE)
    expect(np.array_equal(_draw(made, events), shifted), "the same events an hour later gave other bits")


def _sees(fresh: Fresh) -> None:
    made = fresh()
    for polarity in (0, 1):
        for x, y in ((0, 0), (_SHAPE[1] - 1, _SHAPE[0] - 1)):
            one = np.array([(_END_US, x, y, polarity)], EVENT)
            picture = _draw(made, one)
            changed = {(int(v), int(u)) for _, v, u in np.argwhere(picture != made.background)}
            expect((y, x) in changed, f"one event (polarity {polarity}) at ({x}, {y}) cannot be seen there")


def _events(count: int, seed: int = 0) -> NDArray[np.void]:
    """Events (m,) of a window, from its first microsecond to its end."""
    random = stream(seed, "conformance events")
    events = np.empty(count, EVENT)
    events["timestamp"] = np.sort(random.integers(_START_US + 1, _END_US + 1, count))
    events["x"], events["y"] = random.integers(0, _SHAPE[1], count), random.integers(0, _SHAPE[0], count)
    events["polarity"] = random.integers(0, 2, count)
    return events


def _draw(made: Representation, events: NDArray[np.void]) -> NDArray[np.uint8]:
    drawn: Any = made.draw(events, _START_US, _END_US, _SHAPE)
    shape = (made.channels, *_SHAPE)
    expect(isinstance(drawn, np.ndarray), f"draw must give an array, not {type(drawn).__name__}")
    expect(drawn.dtype == np.uint8, f"pictures must be uint8, not {drawn.dtype}")
    expect(drawn.shape == shape, f"pictures must be {shape} (C, H, W), not {drawn.shape}")
    return np.asarray(drawn)


PROPERTIES: Properties = {
    "says its name, channels and background": _says_what_it_is,
    "gives pictures (C, H, W) uint8 of no, one and many events": _pictures,
    "shows the background where nothing happened": _background,
    "shows an event where it was, at the sensor's corners too": _sees,
    "gives the same bits for the same events, whatever came before": _deterministic,
    "does not depend on the time of the day": _time,
    "leaves the events as they are": _unchanged,
}
