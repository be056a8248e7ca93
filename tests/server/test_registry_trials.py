"""The registry's contract on every database: reports on a candidate, clients of a canary, and decisions."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from registry_databases import DATABASES, fresh_database

from mcoe_model.protocol import CheckIn, EvaluateReport, Offer
from server.lifecycle import CanaryClient
from server.registry import Registry, utc_now
from server.registry.database import open_database

FIRST, NEW = "0" * 64, "1" * 64
HOUR = datetime.timedelta(hours=1)


@pytest.fixture(params=DATABASES)
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """Version 1 is released, version 2 is a candidate, and a, b and c have checked in."""
    with fresh_database(request.param, tmp_path, migrated=True) as url:
        made = Registry(open_database(url), "contract")
        made.add_first_model(FIRST, "generation")
        for client in "abc":
            made.saw(CheckIn(client, 10))
        row = made.open_round(FIRST, ("a", "b"), {}, None)
        made.publish_round(row.id, NEW, "generation", "candidate")
        yield made
        made.engine.dispose()


def begin(registry: Registry, clients: str = "ab", check_ins: int = 3) -> datetime.datetime:
    ends = utc_now() + HOUR
    assert registry.begin_canary(2, clients, 0.5, check_ins, ends)
    return ends


def heard(registry: Registry) -> dict[str, CanaryClient]:
    trial = registry.trial()
    assert trial is not None
    return {client.client_id: client for client in trial.clients}


def test_a_candidate_is_on_trial_and_nothing_else_is(registry: Registry) -> None:
    trial = registry.trial()
    assert trial and (trial.model.version, trial.model.parent_sha256, trial.says) == (2, FIRST, "")
    assert (trial.reports, trial.clients, trial.share, trial.ends) == ((), (), None, None)
    assert registry.asked_for(NEW) == {"a", "b"}
    assert Registry(registry.engine, "other").trial() is None
    registry.decide(2, "candidate", "released", "good")
    assert registry.trial() is None and registry.trial_summary() is None
    assert registry.trial_notes() == {2: "good"}


def test_a_clients_first_report_counts(registry: Registry) -> None:
    first = EvaluateReport("b", NEW, 10, 7, 6)
    registry.record_report(2, first)
    registry.record_report(2, EvaluateReport("b", NEW, 10, 0, 10))
    registry.record_report(2, EvaluateReport("a", NEW, 4, 4, 4))
    registry.record_report(2, EvaluateReport("forgotten", NEW, 4, 4, 4))
    trial = registry.trial()
    assert trial and trial.reports == (EvaluateReport("a", NEW, 4, 4, 4), first)


def test_a_report_on_what_is_decided_is_dropped(registry: Registry) -> None:
    registry.decide(2, "candidate", "held", "bad")
    registry.record_report(2, EvaluateReport("a", NEW, 4, 4, 4))
    registry.set_model_state(NEW, "candidate")
    trial = registry.trial()
    assert trial and trial.reports == ()


def test_check_ins_of_canary_clients_that_run_it_are_counted(registry: Registry) -> None:
    registry.saw(CheckIn("a", 10, runs=NEW))  # before it was a canary
    ends = begin(registry)
    for client in "aabc":
        registry.saw(CheckIn(client, 10, runs=NEW))
    registry.saw(CheckIn("b", 10, runs=NEW))
    assert heard(registry) == {"a": CanaryClient("a", 2), "b": CanaryClient("b", 2)}
    summary = registry.trial_summary()
    assert summary and (summary.clients, summary.running, summary.check_ins, summary.check_ins_needed) == (2, 2, 4, 3)
    assert summary.ends == ends and summary.started and summary.started < ends
    assert registry.was_canary() == {2}


def test_a_client_that_runs_another_model_before_the_canary_has_not_gone_back(registry: Registry) -> None:
    begin(registry)
    registry.saw(CheckIn("a", 10, runs=FIRST))
    registry.saw(CheckIn("b", 10))
    assert heard(registry) == {"a": CanaryClient("a"), "b": CanaryClient("b")}
    registry.saw(CheckIn("a", 10, runs=NEW))
    registry.saw(CheckIn("a", 10, runs=FIRST))
    assert heard(registry)["a"] == CanaryClient("a", 1, None, went_back=True)


def test_the_first_refusal_is_kept_and_audited_once(registry: Registry) -> None:
    begin(registry)
    registry.saw(CheckIn("a", 10, runs=FIRST, refused=NEW, refusal="worse"))
    registry.saw(CheckIn("a", 10, runs=FIRST, refused=NEW, refusal="damaged"))
    registry.saw(CheckIn("b", 10, runs=FIRST, refused=FIRST, refusal="worse"))  # another model
    registry.saw(CheckIn("c", 10, runs=FIRST, refused=NEW, refusal="worse"))  # was not offered it
    assert heard(registry) == {"a": CanaryClient("a", 0, "worse"), "b": CanaryClient("b")}
    refused = [event for event in registry.events(9) if event.kind == "canary refused"]
    assert [(event.client_id, event.detail) for event in refused] == [("a", f"{NEW}: worse")]


def test_a_canary_is_offered_to_its_clients_and_the_newest_released_one_to_the_others(registry: Registry) -> None:
    assert registry.offer("a") == Offer(FIRST)
    begin(registry)
    assert [registry.offer(client) for client in "abc"] == [Offer(NEW, True), Offer(NEW, True), Offer(FIRST)]
    registry.saw(CheckIn("a", 10, refused=NEW, refusal="worse"))
    assert registry.offer("a") == Offer(FIRST)
    registry.add_canary_clients(2, "bc")
    assert registry.offer("c") == Offer(NEW, True)
    registry.decide(2, "canary", "held", "a client refused it")
    assert {registry.offer(client) for client in "abc"} == {Offer(FIRST)}
    registry.set_model_state(NEW, "released")
    assert registry.offer("a") == Offer(NEW)
    assert Registry(registry.engine, "other").offer("a") is None


def test_what_a_client_reported_that_has_left_does_not_count(registry: Registry) -> None:
    for client in "ab":
        registry.record_report(2, EvaluateReport(client, NEW, 4, 4, 4))
    registry.withdraw("a")
    trial = registry.trial()
    assert trial and [report.client_id for report in trial.reports] == ["b"]


def test_a_client_that_has_left_is_no_canary_client(registry: Registry) -> None:
    begin(registry)
    registry.revoke("a")
    now = utc_now()
    assert list(heard(registry)) == ["b"] and registry.seen_clients(now - HOUR) == ("b", "c")
    assert registry.seen_clients(now) == ()
    registry.forget("b")
    assert heard(registry) == {} and registry.seen_clients(now - HOUR) == ("c",)


def test_a_decision_is_taken_once(registry: Registry) -> None:
    begin(registry)
    assert not registry.begin_canary(2, "c", 1.0, 1, utc_now())
    assert list(heard(registry)) == ["a", "b"]
    assert not registry.decide(2, "candidate", "held", "late")
    assert registry.decide(2, "canary", "released", "3 of 3")
    assert not registry.decide(2, "canary", "held", "late")
    assert (registry.newest_model(), registry.trial_notes()) == (NEW, {2: "3 of 3"})


def test_of_decisions_at_the_same_time_one_is_taken(registry: Registry) -> None:
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda index: registry.decide(2, "candidate", "released", str(index)), range(8)))
    assert taken.count(True) == 1
    assert registry.trial_notes() == {2: str(taken.index(True))}
    assert [event.kind for event in registry.events(9)].count("model released") == 1


def test_clients_evaluations_are_kept_for_the_retention_time(registry: Registry) -> None:
    registry.record_report(2, EvaluateReport("a", NEW, 4, 4, 4))
    assert registry.prune(utc_now(), 1).evaluations == 0
    assert registry.prune(utc_now() + 25 * HOUR, 1).evaluations == 1
