"""Events in memory: whichever numbers say ON and OFF, pictures and files are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from recorded import events_between

from client.cameras.events import NumpyEvents, as_events
from mcoe_model.data.events import EVENT, balance
from mcoe_model.data.geometry import Geometry


@pytest.mark.parametrize(
    ("kind", "off"), [("<i1", 0), ("?", 0), ("<i1", -1), ("<i8", -1), ("<f4", -1), ("<u1", 0)]
)
def test_polarity_may_be_0_and_1_a_bool_or_minus_and_plus_1(kind: str, off: int) -> None:
    expected = events_between(0, 1_000, 500)
    others = [(name, EVENT[name]) for name in ("timestamp", "x", "y")]
    given = np.zeros(500, [*others, ("polarity", kind)])
    for name, _ in others:
        given[name] = expected[name]
    given["polarity"] = np.where(expected["polarity"] > 0, 1, off)
    events = as_events(given)
    assert events.dtype == EVENT and set(events["polarity"]) == {0, 1}
    np.testing.assert_array_equal(events, expected)
    np.testing.assert_array_equal(balance(events, Geometry()), balance(expected, Geometry()))
    assert balance(expected, Geometry()).any()
    stored: Any = NumpyEvents(events).store()
    np.testing.assert_array_equal(stored.polarities(), expected["polarity"])


def test_pictures_take_minus_1_for_off_too() -> None:
    events = events_between(0, 1_000, 500)
    signed = events.copy()
    signed["polarity"] = np.where(events["polarity"] > 0, 1, -1)
    np.testing.assert_array_equal(balance(signed, Geometry()), balance(events, Geometry()))
