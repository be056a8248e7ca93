"""What a wearer agreed to, as it travels: short words, no free text."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from mcoe_model.consent import CONSENTS, Consent, read_consents
from mcoe_model.protocol import ProtocolError

GIVEN = datetime.datetime(2026, 11, 21, 9, 30, tzinfo=datetime.UTC)
ONE = Consent("updates", "2.1", GIVEN)


def test_consents_are_the_same_after_the_journey() -> None:
    all_of_them = tuple(Consent(kind, "2026-11", GIVEN) for kind in CONSENTS)
    assert read_consents([consent.to_plain() for consent in all_of_them]) == all_of_them
    assert read_consents([]) == ()


def test_a_date_alone_is_midnight_in_utc() -> None:
    (read,) = read_consents([ONE.to_plain() | {"given": "2026-11-21"}])
    assert read.given == datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    "wrong",
    [
        "updates",
        {"updates": "2"},
        ["updates"],
        [{}],
        [ONE.to_plain() | {"kind": "marketing"}],
        [ONE.to_plain() | {"kind": ["updates"]}],
        [ONE.to_plain() | {"version": "I, Anna, agree"}],
        [ONE.to_plain() | {"version": "2" * 33}],
        [ONE.to_plain() | {"version": ""}],
        [ONE.to_plain() | {"version": 2}],
        [ONE.to_plain() | {"given": "today"}],
        [ONE.to_plain() | {"given": 20261121}],
        [ONE.to_plain() | {"name": "Anna"}],
        [ONE.to_plain(), ONE.to_plain()],
        [ONE.to_plain()] * 100,
    ],
)
def test_anything_else_is_refused(wrong: Any) -> None:
    with pytest.raises(ProtocolError, match="consent"):
        read_consents(wrong)
