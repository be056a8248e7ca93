"""How many clients a round asks, and which."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcoe_model.errors import SettingsError, TooFewSubjects
from server.cohort import choose_cohort, cohort_size

NAMES = [f"client {index:02}" for index in range(20)]


@pytest.mark.parametrize(
    ("text", "clients", "size"),
    [("all", 7, 7), ("1", 7, 1), ("7", 7, 7), (" 3 ", 7, 3), ("0.5", 8, 4), ("0.01", 8, 1), ("0.99", 8, 8)],
)
def test_all_a_number_or_a_share(text: str, clients: int, size: int) -> None:
    assert cohort_size(text, clients) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1.0", "1.5", "-0.5", "nan", "inf", "half", "50%", "²"])
def test_anything_else_is_a_wrong_setting(text: str) -> None:
    with pytest.raises(SettingsError, match="cohort must be"):
        cohort_size(text, 8)


def test_more_clients_than_there_are() -> None:
    with pytest.raises(TooFewSubjects, match="asks for 9 clients and there are 8"):
        cohort_size("9", 8)


@given(st.permutations(NAMES), st.integers(0, 20), st.integers(0, 99), st.integers(1, 99))
def test_the_choice_depends_on_seed_and_round_alone(listed: list[str], size: int, seed: int, number: int) -> None:
    chosen = choose_cohort(listed, size, seed=seed, round_number=number, attempt=0)
    assert chosen == choose_cohort(NAMES, size, seed=seed, round_number=number, attempt=0)
    assert len(set(chosen)) == len(chosen) == size
    assert list(chosen) == sorted(chosen) and set(chosen) <= set(NAMES)


def test_everybody_is_chosen_about_equally_often() -> None:
    """400 rounds of 5 of 20: each about 100 times, with a standard deviation of 8.7."""
    cohorts = (choose_cohort(NAMES, 5, seed=3, round_number=number, attempt=0) for number in range(400))
    counts = Counter(name for cohort in cohorts for name in cohort)
    assert counts.keys() == set(NAMES)
    assert all(60 < count < 140 for count in counts.values())


def test_another_attempt_at_a_round_asks_others():
    first, second = (choose_cohort(NAMES, 5, seed=3, round_number=1, attempt=attempt) for attempt in (0, 1))
    assert first != second


def test_who_has_waited_is_asked_sooner() -> None:
    clients = [f"c{index}" for index in range(10)]

    def often(waited: dict[str, int] | None) -> int:
        drawn = [choose_cohort(clients, 3, seed=1, round_number=r, attempt=0, waited=waited) for r in range(200)]
        return sum("c0" in cohort for cohort in drawn)

    assert often({"c0": 9}) > 2 * often(None)
    assert often({client: 4 for client in clients}) == often({}) > 0
