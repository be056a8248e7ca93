"""What a client hears when it checks in: whether its version is new enough, and when to come again."""

from __future__ import annotations

import numpy as np
import pytest

from mcoe_model.errors import SettingsError
from server.check_ins import JITTER, STILL_THERE, CheckIns
from server.settings import ServerSettings

HOUR = 3600.0
CLIENTS = [f"w{number}" for number in range(1000)]


@pytest.mark.parametrize(
    ("version", "standing"),
    [
        ("0.9.9", "too-old"),
        ("1.2", "update-advised"),
        ("1.2.0", "update-advised"),
        ("1.9.3", "update-advised"),
        ("1.10", "ok"),
        ("1.10.0.dev4", "ok"),
        ("2", "ok"),
        ("unreleased", "too-old"),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, standing: str) -> None:
    assert CheckIns("1.2.0", "1.10").standing(version) == standing


def test_any_version_will_do_unless_the_operator_says_which() -> None:
    assert CheckIns().standing("unreleased") == "ok"
    assert CheckIns(advised="1.0").standing("0.1") == "update-advised"


def test_a_fleet_that_was_switched_on_at_once_is_spread_over_the_whole_time() -> None:
    check_ins, begin = CheckIns(every_s=HOUR), 1e9
    first = [begin + check_ins.next_s(client, begin, 0.5) for client in CLIENTS]
    assert np.histogram(np.mod(first, HOUR), bins=10, range=(0, HOUR))[0].min() > 60
    assert min(first) >= begin + HOUR / 2 and max(first) <= begin + STILL_THERE * HOUR


def test_once_a_client_came_in_its_turn_it_comes_about_as_often_as_it_should() -> None:
    check_ins, draws = CheckIns(every_s=HOUR), np.random.default_rng(0)
    for client in CLIENTS[:50]:
        now = 1e9 + check_ins.next_s(client, 1e9, 0.5)
        for _ in range(20):
            gap = check_ins.next_s(client, now, draws.random())
            assert abs(gap - HOUR) <= 2 * JITTER * HOUR + 1e-3
            now += gap


def test_two_clients_with_one_turn_do_not_come_together_every_time() -> None:
    check_ins = CheckIns(every_s=HOUR)
    assert check_ins.next_s("w1", 1e9, 0.0) != check_ins.next_s("w1", 1e9, 0.9)


def test_without_a_time_clients_stay_connected() -> None:
    assert CheckIns().next_s("w1", 1e9, 0.5) == 0.0


def test_what_cannot_be_meant_is_refused_together() -> None:
    with pytest.raises(SettingsError) as raised:
        ServerSettings(client_version_least="new", client_version_advised="1.x", check_in_s=-1.0)
    assert len(raised.value.faults) == 3
    with pytest.raises(SettingsError, match="deadline_s must be longer than check_in_s, 600"):
        ServerSettings(check_in_s=600, deadline_s=600)
    assert ServerSettings(check_in_s=600, deadline_s=601).check_ins == CheckIns(every_s=600)
