"""When a wearable leaves, and when it comes again."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.outbox import Outbox
from client.radio import LINGER_S, SENT_S, Radio
from client.told import ToldFile
from mcoe_model.protocol import News

FIRST, SECOND = "0" * 32, "1" * 32


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    (tmp_path / "outbox").mkdir()
    return Outbox(tmp_path / "outbox", bytes(32))


def radio(outbox: Outbox, next_check_in_s: float) -> Radio:
    told = ToldFile(outbox.folder.parent / "told.json")
    told.hear(News(next_check_in_s=next_check_in_s))
    return Radio(told, outbox)


def keep(outbox: Outbox, update_id: str) -> None:
    (outbox.folder / f"{update_id}.sealed").write_bytes(b"sealed")


def test_without_a_next_check_in_nobody_leaves(outbox: Outbox) -> None:
    assert not radio(outbox, 0.0).may_sleep(10 * SENT_S)


def test_a_client_lingers_after_its_last_answer_then_sleeps_until_its_time(outbox: Outbox) -> None:
    made = radio(outbox, 500.0)
    assert not made.may_sleep(LINGER_S - 1)
    assert made.may_sleep(LINGER_S)
    assert 490 < made.seconds_left() <= 500


def test_an_update_that_was_sent_keeps_it_until_the_server_has_heard(outbox: Outbox) -> None:
    made = radio(outbox, 5000.0)
    keep(outbox, FIRST)
    outbox.sent.add(FIRST)
    assert not made.may_sleep(SENT_S - 1)
    outbox.hear(News(accepted=(FIRST,)))
    assert made.may_sleep(LINGER_S)


def test_one_that_nobody_answers_for_does_not_keep_it_for_ever_nor_wake_it(outbox: Outbox) -> None:
    made = radio(outbox, 5000.0)
    keep(outbox, FIRST)
    outbox.sent.add(FIRST)
    assert made.may_sleep(SENT_S)
    assert made.seconds_left() > 0


def test_what_an_earlier_process_left_behind_does_not_keep_it(outbox: Outbox) -> None:
    keep(outbox, FIRST)
    made = radio(outbox, 500.0)
    assert made.may_sleep(LINGER_S) and made.seconds_left() > 0


def test_something_new_in_the_outbox_wakes_it(outbox: Outbox) -> None:
    made = radio(outbox, 500.0)
    keep(outbox, FIRST)
    outbox.sent.add(FIRST)
    assert made.may_sleep(SENT_S)
    keep(outbox, SECOND)
    assert made.seconds_left() == 0.0


def test_a_closed_gate_lets_it_leave_and_keeps_it_away_whatever_the_server_wants(outbox: Outbox) -> None:
    told, closed = ToldFile(outbox.folder.parent / "told.json"), ["a recording runs"]
    made = Radio(told, outbox, lambda: closed)
    assert not made.may_sleep(LINGER_S - 1)
    assert made.may_sleep(LINGER_S)
    keep(outbox, FIRST)
    assert made.seconds_left() > 0
    closed.clear()
    assert made.seconds_left() == 0.0
    assert not made.may_sleep(10 * SENT_S)


def test_before_the_server_was_reached_only_a_closed_gate_ends_the_attempt(outbox: Outbox) -> None:
    told, closed = ToldFile(outbox.folder.parent / "told.json"), list[str]()
    told.hear(News(next_check_in_s=5000.0))
    made = Radio(told, outbox, lambda: closed)
    keep(outbox, FIRST)
    outbox.sent.add(FIRST)
    assert not made.may_sleep(None)
    closed.append("a recording runs")
    assert made.may_sleep(None)


def test_new_clips_wake_it_after_a_rest_and_those_it_had_do_not(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, clips = ToldFile(outbox.folder.parent / "told.json"), ["1-1"]
    told.hear(News(next_check_in_s=5000.0))
    made = Radio(told, outbox, clips=lambda: clips)
    assert made.may_sleep(LINGER_S)
    clips.append("2-2")
    assert made.seconds_left() > 0
    monkeypatch.setattr("client.radio.REST_S", 0.0)
    assert made.seconds_left() == 0.0
    assert made.may_sleep(LINGER_S)
    assert made.seconds_left() > 0
    clips.remove("1-1")
    assert made.seconds_left() > 0
