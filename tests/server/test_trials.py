"""A new model's way over the local grid: clients that judge it, honestly or not, restarts, and the operator's word."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_fleet import enlist, honest_reply
from toy_judges import OFFERED, RUNS, Town, judges

from mcoe_model.protocol import CheckIn
from server.app import Coordinator, Event, Policy, RoundOpened, Waiting
from server.check_ins import CheckIns
from server.dashboard.watch import Watcher
from server.registry import Registry
from server.registry.models import CANARY, HELD, RELEASED
from server.spool import write_update

GOOD, WORSE, SAME = "20 of 20, 18", "10 of 20, 18", "18 of 20, 18"
CANARY_OF_ALL = {"canary_share": 1.0, "canary_check_ins": 4}


@pytest.fixture(autouse=True)
def nothing_runs() -> None:
    RUNS.clear()
    OFFERED.clear()


def kinds(registry: Registry) -> list[str]:
    return [event.kind for event in registry.events(20)]


# -- the comparison with the parent ---------------------------------------------------------------------------


def test_without_clips_clients_or_canary_a_finite_model_is_released_at_once(tmp_path: Path) -> None:
    town = Town(tmp_path, judges(*"abc"))
    made = town.candidate()
    assert town.registry.newest_model() != made
    assert not town.steps()
    assert (town.registry.newest_model(), town.state(), town.note()) == (made, RELEASED, "it is finite")


@pytest.mark.parametrize(("finds", "state"), [(GOOD, RELEASED), (SAME, RELEASED), (WORSE, HELD)])
def test_clients_say_whether_a_candidate_is_as_good_as_its_parent(tmp_path: Path, finds: str, state: str) -> None:
    town = Town(tmp_path, judges(*"abc", finds=finds), evaluation_clients=3)
    parent = town.registry.newest_model()
    made = town.candidate()
    assert not town.steps(5)
    assert town.state() == state and "3 clients" in town.note()
    assert town.registry.newest_model() == (made if state == RELEASED else parent)
    assert f"model {state}" in kinds(town.registry)


def test_the_operators_clips_decide_alone_and_are_looked_at_once(tmp_path: Path) -> None:
    town = Town(tmp_path, judges(*"abc", finds=WORSE), evaluation_clients=3, release="manual")
    asked = []

    def gate(sha256: str, parent: str) -> str | None:
        asked.append((sha256, parent))
        return "WAR fell from 0.8 to 0.5" if len(asked) == 2 else None

    town.trials.gate = gate
    first = town.registry.newest_model()
    made = town.candidate()
    assert town.steps(3) and asked == [(made, first)] and "models promote 2" in town.note()
    town.registry.set_model_state(made, RELEASED)
    worse = town.candidate()
    assert not town.steps() and asked[1:] == [(worse, made)]
    assert (town.state(), town.note()) == (HELD, "WAR fell from 0.8 to 0.5")


def test_clients_that_the_model_did_not_learn_from_are_asked_before_the_others(tmp_path: Path) -> None:
    town = Town(tmp_path, judges(*"abcdef"), evaluation_clients=3)
    town.candidate("abc")
    trial = None
    while town.steps():
        trial = town.registry.trial()
    assert trial is None or {report.client_id for report in trial.reports} <= set("def")
    assert town.state() == RELEASED


def test_fewer_clients_than_needed_leave_it_a_candidate_until_more_come(tmp_path: Path) -> None:
    town = Town(tmp_path, judges(*"ab"), evaluation_clients=3)
    made = town.candidate("ab")
    why = "of 3 clients have compared it with its parent"
    assert town.steps() == f"model version 2 is candidate: 0 {why}, 2 are asked"
    assert town.steps(5) == f"model version 2 is candidate: 2 {why}, 0 are asked"
    assert (town.state(), town.note()) == ("candidate", f"2 {why}, 0 are asked")
    town.live(judges(*"abc"))
    assert not town.steps(5)
    assert town.registry.newest_model() == made


def test_a_client_without_clips_is_not_asked(tmp_path: Path) -> None:
    town = Town(tmp_path, [*judges(*"ab"), *judges("empty", examples=0)], evaluation_clients=3)
    town.candidate("ab")
    assert town.steps(5)
    trial = town.registry.trial()
    assert trial and [report.client_id for report in trial.reports] == ["a", "b"]


def test_a_client_whose_program_is_too_old_is_not_asked(tmp_path: Path) -> None:
    town = Town(tmp_path, [*judges(*"ab"), *judges("old", version="0.0.1")], evaluation_clients=3)
    town.presence.check_ins = CheckIns(least="0.0.2")
    town.candidate("ab")
    assert town.steps(5)
    trial = town.registry.trial()
    assert trial and [report.client_id for report in trial.reports] == ["a", "b"]


LIARS: dict[str, dict[str, Any]] = {
    "an error": {"finds": "error"},
    "an exception": {"finds": "raises"},
    "nothing": {"finds": "nothing"},
    "garbage": {"finds": "garbage"},
    "more right than there are clips": {"finds": "30 of 20, 18"},
    "a negative count": {"finds": "-3 of 20, 18"},
    "no clips": {"finds": "0 of 0, 0"},
    "more clips than anybody has": {"finds": "1 of 1000000000, 1"},
    "another's name": {"named": "b"},
    "another model": {"another model": True},
}


@pytest.mark.parametrize("lie", LIARS)
def test_what_cannot_be_costs_a_client_its_own_report(tmp_path: Path, lie: str) -> None:
    town = Town(tmp_path, [*judges(*"abc", finds=WORSE), *judges("liar", **LIARS[lie])], evaluation_clients=3)
    town.candidate("abc")  # so that the liar is the first to be asked
    assert town.steps()
    assert not town.steps(5)
    assert (town.state(), town.note()[:9]) == (HELD, "3 clients")
    [rejected] = [event for event in town.registry.events(20) if event.kind == "evaluation rejected"]
    assert rejected.client_id == "liar" and rejected.detail.isprintable()


@pytest.mark.parametrize(("honest", "state"), [(GOOD, RELEASED), (WORSE, HELD)])
def test_a_liar_within_bounds_does_not_decide(tmp_path: Path, honest: str, state: str) -> None:
    lie = "0 of 900000, 900000" if state == RELEASED else "900000 of 900000, 0"
    clients = [*judges(*"ab", finds=honest), *judges("liar", finds=lie)]
    town = Town(tmp_path, clients, evaluation_clients=3)
    town.candidate("ab")
    assert not town.steps(5)
    assert town.state() == state


def test_a_report_that_is_late_is_asked_of_another(tmp_path: Path) -> None:
    town = Town(tmp_path, judges(*"abcd"), evaluation_clients=3)
    town.candidate("abc")
    town.trials.deadline_s = 0.0
    pull = town.presence.grid.pull_messages
    town.presence.refresh()
    town.presence.grid.pull_messages = lambda message_ids: []  # type: ignore[method-assign]
    assert town.trials.step() and town.trials.step()
    town.presence.grid.pull_messages = pull  # type: ignore[method-assign]
    trial = town.registry.trial()
    assert trial is not None and trial.reports == ()
    assert town.steps(5)  # three of the four were asked in vain, and are left alone for a while


@pytest.mark.parametrize("whose", ["its own", "its parent's"])
def test_a_candidate_whose_file_is_gone_is_held(tmp_path: Path, whose: str) -> None:
    town = Town(tmp_path, judges(*"abc"), evaluation_clients=3)
    parent, made = str(town.registry.newest_model()), town.candidate()
    town.artifacts.path(made if whose == "its own" else parent).unlink()
    assert not town.steps()
    assert town.state() == HELD and "there is no model file" in town.note()


def test_a_model_that_is_not_finite_is_no_candidate(tmp_path: Path) -> None:
    town = Town(tmp_path, judges(*"abc"))
    enlist(town.engine, *"abc")
    current = town.engine.open(("a", "b", "c"))
    for client in "abc":
        reply = honest_reply(current.expectation, client)
        town.engine.receive(current, reply)
        broken = {name: np.full_like(value, np.inf) for name, value in reply.update.items()}  # as no acceptance lets in
        write_update(town.engine.spool / current.row.spool_name, str(reply.meta["update_id"]), broken)
    town.engine.finish(current)
    assert town.state() == HELD and not town.steps()
    assert "not finite" in town.registry.events(1)[0].detail


def test_no_more_clients_are_asked_at_a_time_than_may_be(tmp_path: Path) -> None:
    town = Town(tmp_path, judges(*"abcdef"), evaluation_clients=5)
    town.trials.max_in_flight = 2
    made = town.candidate("a")
    said = [town.steps() for _ in range(4)]
    assert [str(why).split(": ")[1].split(" ")[0] for why in said[:3]] == ["0", "2", "4"]
    assert said[3] is None and town.registry.newest_model() == made


# -- the canary -----------------------------------------------------------------------------------------------


def test_a_canary_is_released_after_enough_check_ins(tmp_path: Path) -> None:
    town = Town(tmp_path, judges(*"abc"), **CANARY_OF_ALL)
    parent = town.registry.newest_model()
    made = town.candidate()
    assert town.steps()
    assert (town.state(), town.registry.newest_model()) == (CANARY, parent)
    shown = town.registry.trial_summary()
    assert shown and (shown.clients, shown.check_ins, shown.check_ins_needed, shown.share) == (3, 0, 4, 1.0)
    assert town.steps()
    shown = town.registry.trial_summary()
    assert shown and (shown.running, shown.check_ins, shown.refusals) == (3, 3, 0)
    assert not town.steps()
    assert (town.state(), town.registry.newest_model()) == (RELEASED, made)
    assert kinds(town.registry)[:2] == ["model released", "model canary"]


def test_only_its_share_of_the_clients_is_offered_the_canary(tmp_path: Path) -> None:
    town = Town(tmp_path, judges(*"abcdef", offers="ignores"), canary_share=0.3)
    parent, made = town.registry.newest_model(), town.candidate("abcdef")
    assert town.steps(3)
    offered = {client: town.registry.offer(client) for client in "abcdef"}
    chosen = [client for client, offer in offered.items() if offer and offer.canary]
    assert len(chosen) == 2
    assert all(offer and offer.sha256 == (made if client in chosen else parent) for client, offer in offered.items())


@pytest.mark.parametrize("why", ["worse", "damaged", "not finite", "other generation"])
def test_a_refusal_stops_it_and_the_webhook_hears_of_it(tmp_path: Path, why: str) -> None:
    town = Town(tmp_path, [*judges(*"ab"), *judges("c", offers=why)], canary_share=1.0, canary_check_ins=100)
    parent, made = town.registry.newest_model(), town.candidate()
    watcher = Watcher(town.registry)
    assert list(watcher.look()) == []
    assert town.steps() and not town.steps(2)
    assert (town.state(), town.registry.newest_model()) == (HELD, parent)
    assert town.note() == f"a client refused it: {why}"
    assert [(event.event, event.model) for event in watcher.look()] == [("canary stopped", made)]
    [refused] = [event for event in town.registry.events(9) if event.kind == "canary refused"]
    assert (refused.client_id, refused.detail) == ("c", f"{made}: {why}")
    assert all(offer and offer.sha256 == parent for offer in map(town.registry.offer, "abc"))


def test_a_client_that_goes_back_to_another_model_stops_it(tmp_path: Path) -> None:
    town = Town(tmp_path, judges("a", offers="goes back"), canary_share=1.0, canary_check_ins=100)
    town.candidate("a")
    assert not town.steps(9)
    assert town.state() == HELD and "gone back" in town.note()


def test_a_canary_that_is_not_heard_of_in_its_time_is_held(tmp_path: Path) -> None:
    town = Town(tmp_path, judges(*"abc", offers="ignores"), canary_share=1.0)
    town.candidate()
    assert town.registry.begin_canary(2, "abc", 1.0, 5, datetime.datetime.now(datetime.UTC))
    assert not town.steps(2)
    assert town.state() == HELD and town.note().startswith("only 0 of 5 check-ins")


def test_a_canary_waits_for_a_client_that_checks_in(tmp_path: Path) -> None:
    town = Town(tmp_path, judges(*"abc"), canary_share=0.5, canary_check_ins=1)
    town.candidate()
    for client in "abc":
        town.registry.withdraw(client)
    town.live([])
    why = town.steps(2)
    assert why and "no client has checked in lately" in why and town.state() == "candidate"
    town.registry.saw(CheckIn("d", 10))
    assert "canary" in str(town.steps())


def test_others_take_the_place_of_canary_clients_that_have_all_left(tmp_path: Path) -> None:
    town = Town(tmp_path, judges(*"abc", offers="ignores"), canary_share=0.1)
    town.candidate()
    assert town.steps(2)
    trial = town.registry.trial()
    assert trial
    [gone] = [client.client_id for client in trial.clients]
    town.registry.revoke(gone)
    town.live([client for client in judges(*"abc", offers="ignores") if client["client"] != gone])
    assert town.steps(2)
    trial = town.registry.trial()
    assert trial
    [instead] = [client.client_id for client in trial.clients]
    assert instead != gone


def test_a_canary_follows_a_comparison_that_was_passed(tmp_path: Path) -> None:
    town = Town(tmp_path, judges(*"abc"), evaluation_clients=3, canary_share=1.0, canary_check_ins=1)
    made = town.candidate()
    states = [town.state()]
    while town.steps():
        states.append(town.state())
    assert {CANARY, "candidate"} == set(states) and town.registry.newest_model() == made


# -- restarts and the operator --------------------------------------------------------------------------------


def test_a_restart_goes_on_with_the_same_reports_and_the_same_canary(tmp_path: Path) -> None:
    how: dict[str, Any] = {"evaluation_clients": 3, "canary_share": 0.5, "canary_check_ins": 6}
    town = Town(tmp_path, judges(*"ab"), **how)
    made = town.candidate()
    assert town.steps(3)
    before = town.registry.trial()
    assert before and len(before.reports) == 2
    town = Town(tmp_path, judges(*"abc"), **how)
    while town.state() != CANARY:
        assert town.steps()
    town.steps()
    before = town.registry.trial()
    assert before and len(before.reports) == 3 and sum(client.check_ins for client in before.clients) == 2
    town = Town(tmp_path, judges(*"abc"), **how | {"canary_share": 1.0, "canary_check_ins": 1})
    assert town.registry.trial() == before
    assert town.steps() and not town.steps()
    assert town.registry.newest_model() == made


def test_a_manual_release_waits_for_the_operator(tmp_path: Path) -> None:
    town = Town(tmp_path, judges(*"abc"), release="manual", **CANARY_OF_ALL)
    parent, made = town.registry.newest_model(), town.candidate()
    assert town.steps(5)
    assert (town.state(), town.registry.newest_model()) == ("candidate", parent)
    assert "models promote 2" in town.note()
    town.registry.set_model_state(made, RELEASED)
    assert not town.steps() and (town.registry.newest_model(), town.note()) == (made, "released by hand")


@pytest.mark.parametrize("state", ["candidate", CANARY])
@pytest.mark.parametrize("word", ["promote", "hold", "rollback", "rollback to it", "import"])
def test_the_operators_word_goes_over_the_trial(tmp_path: Path, state: str, word: str) -> None:
    how = CANARY_OF_ALL if state == CANARY else {"evaluation_clients": 3}
    town = Town(tmp_path, judges("a"), **how)
    parent, made = str(town.registry.newest_model()), town.candidate("a")
    assert town.steps(2) and town.state() == state
    if word in ("promote", "hold"):
        town.registry.set_model_state(made, RELEASED if word == "promote" else HELD)
    elif word == "import":
        town.registry.import_model("c" * 64, "generation")
    else:
        town.registry.release_again(1 if word == "rollback" else 2)
    newest = {"promote": made, "hold": parent, "rollback": parent, "rollback to it": made, "import": "c" * 64}[word]
    assert town.registry.newest_model() == newest
    assert not town.steps(3)
    assert town.registry.newest_model() == newest
    assert town.registry.model(2).state == (RELEASED if newest == made else HELD)
    assert "by hand" in town.registry.trial_notes()[2]


def test_a_decision_that_the_operator_took_first_stands(tmp_path: Path) -> None:
    town = Town(tmp_path, judges(*"abc"), **CANARY_OF_ALL)
    made = town.candidate()
    town.registry.set_model_state(made, HELD)
    ends = datetime.datetime.now(datetime.UTC)
    assert not town.registry.begin_canary(2, "abc", 1.0, 3, ends)
    assert not town.registry.decide(2, "candidate", RELEASED, "late")
    assert town.state() == HELD


def test_no_round_opens_while_a_model_is_undecided_and_it_is_said_why(tmp_path: Path) -> None:
    town = Town(tmp_path, judges(*"ab"), evaluation_clients=3)
    town.candidate("ab")
    events: list[Event] = []
    coordinator = Coordinator(town.presence, town.engine, Policy(9, poll_s=0.0), 0, events.append)
    looks = 0

    def undecided() -> str | None:
        nonlocal looks
        looks += 1
        if looks == 20:
            town.registry.set_model_state(town.registry.models()[-1].sha256, RELEASED)
        return town.trials.step()

    def watch(event: Event) -> None:
        events.append(event)
        if isinstance(event, RoundOpened):
            coordinator.stopped.set()

    coordinator.undecided, coordinator.watch = undecided, watch
    coordinator.run()
    why = [event.reason for event in events if isinstance(event, Waiting)]
    assert len(events) == len(why) + 1 and isinstance(events[-1], RoundOpened) and looks == 20
    assert why[-1] == "model version 2 is candidate: 2 of 3 clients have compared it with its parent, 0 are asked"
