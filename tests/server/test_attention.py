"""Which wearables an operator should look at, and why."""

from __future__ import annotations

import pytest

from mcoe_model.health import MOST, Health
from server.attention import attention

TODAY = 20_000
#: Everything known, and nothing to be said of it.
WELL = Health("0.2", 50, 90, 40, 0, 1, 1, 60, 10, 2, 1, TODAY - 1, 0)


def test_nothing_is_said_of_a_wearable_that_is_well_or_unknown() -> None:
    assert attention(WELL, TODAY) == attention(Health(), TODAY) == ()


@pytest.mark.parametrize(
    ("name", "fine", "bad", "says"),
    [
        ("free_gb", 2, 1, "disk nearly full: 1 GB"),
        ("battery_percent", 20, 19, "battery low: 19 %"),
        ("celsius", 74, 75, "hot: 75 degrees"),
        ("throttled", 0, 1, "heat"),
        ("camera_seen", 1, 0, "camera not seen"),
        ("clock_set", 1, 0, "clock not set"),
        ("oldest_day", TODAY - 6, TODAY - 7, "for 7 days"),
        ("error", 0, 139, "code 139"),
    ],
)
def test_every_reason_has_its_limit(name: str, fine: int, bad: int, says: str) -> None:
    assert attention(Health(**{name: fine}), TODAY) == ()  # type: ignore[arg-type]
    [why] = attention(Health(**{name: bad}), TODAY)  # type: ignore[arg-type]
    assert says in why


def test_the_most_urgent_comes_first_and_a_day_to_come_is_no_reason() -> None:
    found = attention(Health("0.2", 0, 5, 90, 1, 0, 0, oldest_day=0, error=1), TODAY)
    assert len(found) == 8
    assert "failed" in found[0] and "disk" in found[1] and "20000 days" in found[-1]
    assert attention(Health(oldest_day=MOST["oldest_day"]), TODAY) == ()
