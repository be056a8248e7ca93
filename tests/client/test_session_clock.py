"""Times as rows tell them: what the kernel says of its clock, what is believed of it, and the wearer's own zone."""

from __future__ import annotations

import datetime
import time
from types import SimpleNamespace
from typing import Any

import pytest

from client.clock_state import ClockState, clock_state
from client.sessions.times import DAY_US, Moment, believed, now, zone_of


def kernel(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[bytes]:
    """Let adjtimex(2) give this answer, or raise it; what it was given."""
    given: list[bytes] = []

    def adjtimex(asked: Any) -> int:
        given.append(asked.raw)
        if isinstance(answer, Exception):
            raise answer
        return int(answer)

    monkeypatch.setattr("client.clock_state.ctypes.CDLL", lambda name: SimpleNamespace(adjtimex=adjtimex))
    return given


#: What adjtimex answers (include/uapi/linux/timex.h); a leap second changes nothing, TIME_ERROR is a clock not kept.
ANSWERS: list[tuple[Any, ClockState]] = [
    *((answer, "synchronised") for answer in range(5)),
    (5, "unsynchronised"),
    (-1, "unknown"),
    (OSError("not permitted"), "unknown"),
]


@pytest.mark.parametrize(("answer", "state"), ANSWERS)
def test_the_clocks_state_is_the_kernels_and_asking_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, answer: Any, state: ClockState
) -> None:
    given = kernel(monkeypatch, answer)
    assert clock_state() == state
    # struct timex has 208 bytes where a long has 8, and its first field says what to change.
    assert len(given) == 1 and len(given[0]) >= 208 and not any(given[0])
    assert now().clock_state == state


def test_where_the_system_has_no_such_call_the_state_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.clock_state.ctypes.CDLL", lambda name: SimpleNamespace())
    assert clock_state() == "unknown"


def test_this_machines_kernel_answers() -> None:
    assert clock_state() in ("synchronised", "unsynchronised", "unknown")


@pytest.mark.parametrize(
    ("state", "right"), [("synchronised", True), ("unknown", True), ("unsynchronised", False), ("", False)]
)
def test_a_clock_that_is_known_not_to_be_kept_right_tells_no_day(state: Any, right: bool) -> None:
    assert believed(state) is right
    assert Moment(20_000 * DAY_US + 1, 5, "+00:00", state).day == (20_000 if right else 0)


def test_now_is_utc_the_monotonic_clock_and_the_wearers_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        with monkeypatch.context() as patch:
            patch.setenv("TZ", "XXX-05:30")  # five and a half hours east
            time.tzset()
            before_us, before_ns = time.time_ns() // 1000, time.monotonic_ns()
            moment = now()
            assert before_us <= moment.utc_us <= time.time_ns() // 1000
            assert before_ns <= moment.monotonic_ns <= time.monotonic_ns()
            assert moment.zone == "+05:30"
            wall = datetime.datetime.fromtimestamp(moment.utc_us / 1e6).replace(tzinfo=None)
            assert moment.local.replace(tzinfo=None) == wall
    finally:
        time.tzset()


@pytest.mark.parametrize(("offset", "hours"), [("+01:00", 1), ("-03:30", -3.5), ("+00:00", 0), ("+14:00", 14)])
def test_an_offset_is_a_zone(offset: str, hours: float) -> None:
    assert zone_of(offset).utcoffset(None) == datetime.timedelta(hours=hours)
