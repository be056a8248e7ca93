"""The coordinator over the local grid: bad clients cost their own contribution, and every restart goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from toy_clients import BEHAVIOURS
from toy_fleet import toy_engine

from mcoe_model.errors import ExitCode, RoundFailed, TooFewSubjects
from mcoe_model.model_file import tensors_sha256
from mcoe_model.workers import spawn_pool
from server.acceptance import Accepted, Rejected
from server.app import ATTEMPTS, Coordinator, Event, Policy, ReplyJudged, RoundEnded, RoundOpened
from server.presence import Presence
from server.registry import ABANDONED, PUBLISHED
from server.rounds import RoundEngine
from simulations.local_grid import LOCAL_POLL, LocalGrid

HONEST = [{"client": f"honest {index}", "behaviour": "honest"} for index in range(3)]


Watch = Callable[[Event], None]


@pytest.fixture(scope="module", autouse=True)
def worker() -> Iterator[None]:
    """The process that plays every client of this module."""
    with spawn_pool(1) as Fleet.pool:
        yield


class Fleet:
    """A coordinator and its engine in this process, and its clients in another."""

    pool: ProcessPoolExecutor

    def __init__(self, folder: Path, nodes: list[dict[str, Any]], **engine: Any) -> None:
        self.engine: RoundEngine = toy_engine(folder, **engine)
        self.log = folder / f"asked-{time.monotonic_ns()}"
        self.nodes = nodes
        self.events: list[Event] = []

    def run(
        self, rounds: int = 1, cohort: str = "all", seed: int = 0, watch: Watch | None = None, **policy_of: Any
    ) -> None:
        with closing(LocalGrid("toy_clients:app", self.nodes, {"log": str(self.log)}, self.pool)) as grid:
            policy = Policy(rounds, cohort, poll_s=LOCAL_POLL, **policy_of)
            presence = Presence(grid, self.engine.registry.saw)
            Coordinator(presence, self.engine, policy, seed, watch or self.events.append).run()

    def asked(self) -> list[str]:
        """The round and name of every client that was asked to train, in order."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def reasons(self) -> dict[str, str | None]:
        """What is stored about the replies of the newest round, by client."""
        newest = self.engine.registry.rounds()[-1].id
        return {reply.client_id: reply.reason for reply in self.engine.registry.replies(newest)}


def result(fleet: Fleet) -> str:
    return tensors_sha256(fleet.engine.artifacts.get(str(fleet.engine.registry.newest_model()))[0])


def test_rounds_are_run_and_told(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, HONEST)
    fleet.run(rounds=2)
    registry = fleet.engine.registry
    assert [(row.number, row.state, row.cohort) for row in registry.rounds()] == [
        (number, PUBLISHED, ("honest 0", "honest 1", "honest 2")) for number in (1, 2)
    ]
    assert fleet.events[0] == RoundOpened(1, 3, 3)
    assert [type(event) for event in fleet.events[1:4]] == [ReplyJudged] * 3
    assert fleet.events[4] == RoundEnded(1, registry.rounds()[0].published_sha256)
    assert fleet.events[-1] == RoundEnded(2, registry.newest_model())
    assert fleet.reasons() == dict.fromkeys(("honest 0", "honest 1", "honest 2"))


REASONS = {
    "raises": "client error: RuntimeError: the camera [/] fell off?and broke?",
    "error": "client error: not today",
    "error without a reason": "client error: no reason given",
    "an actor that died": "client error: <class 'ray.exceptions.ActorDiedError'>",
    "nothing": "holds no record 'update'",
    "no update": "holds no record 'update'",
    "records of other kinds": "reply cannot be read",
    "garbage records": "UpdateMeta: missing",
    "NaN": "not finite",
    "wrong shape": "is float32(1, 5), expected float32(4, 5)",
    "other dtype": "is float64(4, 5)",
    "lying count": "router statistics of 10 examples, the report says 900000",
    "no bytes": "reply cannot be read",
    "random bytes": "reply cannot be read",
    "a torn zip": "reply cannot be read",
    "an archive": "reply cannot be read",
    "a claim of a petabyte": "reply cannot be read",
    "an unclosed header": "reply cannot be read",
    "a pickle": "reply cannot be read",
    "another name": "names another client",
    "another's update id": "another client sent an update with this id",
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The model that the three honest clients make alone."""
    fleet = Fleet(tmp_path_factory.mktemp("undisturbed"), HONEST)
    fleet.run()
    return result(fleet)


def test_there_is_a_reason_for_every_way_to_misbehave() -> None:
    assert REASONS.keys() == BEHAVIOURS.keys() - {"honest"}


def test_every_bad_client_is_rejected_with_its_reason_and_the_round_goes_on(undisturbed: str, tmp_path: Path) -> None:
    bad = [{"client": f"z {behaviour}", "behaviour": behaviour} for behaviour in REASONS]
    fleet = Fleet(tmp_path, HONEST + bad, quorum=0.01)
    fleet.run()
    found = fleet.reasons()
    assert {client for client, reason in found.items() if reason is None} == {node["client"] for node in HONEST}
    for behaviour, reason in REASONS.items():
        stored = found[f"z {behaviour}"]
        assert stored is not None and reason in stored and stored.isprintable()
    told = {event.client_id: event.verdict for event in fleet.events if isinstance(event, ReplyJudged)}
    assert told.keys() == found.keys()
    assert all(isinstance(told[client], Accepted if reason is None else Rejected) for client, reason in found.items())
    assert result(fleet) == undisturbed


@pytest.mark.parametrize(
    "check_in",
    [
        {},
        {"client_id": "mallory"},
        {"client_id": "mallory", "examples": -5, "protocol_version": 1, "client_version": "1"},
        {"client_id": "mallory", "examples": 10**15, "protocol_version": 1, "client_version": "1"},
        {"client_id": "mallory", "examples": 5, "protocol_version": 99, "client_version": "1"},
        {"client_id": "mal\0lory", "examples": 5, "protocol_version": 1, "client_version": "1"},
        {"client_id": "honest 0", "examples": 5, "protocol_version": 1, "client_version": "1"},
    ],
)
def test_a_node_that_does_not_say_who_it_is_takes_no_part(check_in: dict[str, Any], tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, [*HONEST, {"behaviour": "honest", "check-in": json.dumps(check_in), "client": "mallory"}])
    fleet.run()
    assert fleet.engine.registry.rounds()[0].cohort == ("honest 0", "honest 1", "honest 2")
    assert fleet.asked() == ["1 honest 0", "1 honest 1", "1 honest 2"]


def test_a_node_that_fails_to_check_in_or_has_no_clips_takes_no_part(tmp_path: Path) -> None:
    others = [{"client": "silent", "behaviour": "silent"}, {"client": "empty", "behaviour": "honest", "examples": 0}]
    fleet = Fleet(tmp_path, HONEST + others)
    fleet.run()
    assert fleet.engine.registry.rounds()[0].cohort == ("honest 0", "honest 1", "honest 2")


def test_nobody_there_is_an_error_of_its_own(tmp_path: Path) -> None:
    for nodes in ([], [{"client": "silent", "behaviour": "silent"}]):
        with pytest.raises(TooFewSubjects):
            Fleet(tmp_path, nodes).run()


def test_a_missed_quorum_is_tried_again_and_then_ends_the_run(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, [HONEST[0], *({"client": f"bad {i}", "behaviour": "NaN"} for i in range(2))])
    before = result(fleet)
    with pytest.raises(RoundFailed, match=r"round 1 was abandoned 3 times.*1 of 3 replies were accepted") as caught:
        fleet.run()
    assert caught.value.exit_code is ExitCode.ROUND_FAILED
    assert [(row.number, row.attempt, row.state) for row in fleet.engine.registry.rounds()] == [
        (1, attempt + 1, ABANDONED) for attempt in range(ATTEMPTS)
    ]
    assert result(fleet) == before
    assert [event for event in fleet.events if isinstance(event, RoundEnded)] == [RoundEnded(1, None)] * ATTEMPTS


def test_a_fault_that_passes_costs_an_attempt_only(undisturbed: str, tmp_path: Path) -> None:
    mended = [{**node, "behaviour": "raises", "mended-from-attempt": 3} for node in HONEST[:2]]
    fleet = Fleet(tmp_path, [*mended, HONEST[2]])
    fleet.run()
    assert [row.state for row in fleet.engine.registry.rounds()] == [ABANDONED, ABANDONED, PUBLISHED]
    assert result(fleet) == undisturbed


def test_the_cohort_is_the_same_for_the_same_seed_and_changes_with_the_round(tmp_path: Path) -> None:
    nodes = [{"client": f"client {index:02}", "behaviour": "honest"} for index in range(12)]

    def cohorts(name: str, listed: list[dict[str, Any]], seed: int) -> list[tuple[str, ...]]:
        fleet = Fleet(tmp_path / name, listed)
        fleet.run(rounds=3, cohort="4", seed=seed)
        return [row.cohort for row in fleet.engine.registry.rounds()]

    first = cohorts("first", nodes, 7)
    assert first == cohorts("other order of nodes", nodes[::-1], 7)
    assert first != cohorts("other seed", nodes, 8)
    assert len(set(first)) == 3
    assert all(len(cohort) == 4 and list(cohort) == sorted(cohort) for cohort in first)


def test_a_reply_that_the_courier_lost_is_no_verdict_and_the_client_is_asked_again(
    undisturbed: str, tmp_path: Path
) -> None:
    passing = [{**HONEST[0], "behaviour": "an actor that died", "mended-from-attempt": 3}, *HONEST[1:]]
    fleet = Fleet(tmp_path, passing)
    fleet.run()
    assert fleet.asked().count("1 honest 0") == 3
    assert [row.attempt for row in fleet.engine.registry.rounds()] == [1]
    assert result(fleet) == undisturbed


class Stop(Exception):
    """Ends the coordinator as a crash would."""


@pytest.mark.parametrize("heard", [0, 1, 2, 3])
def test_a_coordinator_that_stopped_goes_on_with_those_it_had_not_heard(
    heard: int, undisturbed: str, tmp_path: Path
) -> None:
    fleet = Fleet(tmp_path, HONEST)
    judged: list[str] = []

    def stop_after(event: Event) -> None:
        judged.extend([event.client_id] if isinstance(event, ReplyJudged) else [])
        if len(judged) == heard:
            raise Stop

    with pytest.raises(Stop):
        fleet.run(watch=stop_after)
    again = Fleet(tmp_path, HONEST)
    again.run()
    assert again.events[0] == RoundOpened(1, 3, 3 - heard)
    assert sorted(again.asked()) == [f"1 {node['client']}" for node in HONEST if node["client"] not in judged]
    assert result(again) == undisturbed


def test_a_client_that_is_gone_after_a_restart_counts_as_silent(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, HONEST)

    def stop(event: Event) -> None:
        raise Stop

    with pytest.raises(Stop):
        fleet.run(watch=stop)
    again = Fleet(tmp_path, HONEST[:2])
    again.run()
    assert again.reasons() == {"honest 0": None, "honest 1": None, "honest 2": "no reply"}


def test_rounds_that_are_published_already_are_not_run_again(tmp_path: Path) -> None:
    Fleet(tmp_path, HONEST).run(rounds=1)
    again = Fleet(tmp_path, HONEST)
    again.run(rounds=1)
    assert again.events == []
    again.run(rounds=2)
    assert [event.number for event in again.events if isinstance(event, RoundEnded)] == [2]


def test_more_are_asked_than_needed_and_the_round_closes_when_enough_were_accepted(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, [{"client": f"honest {index}", "behaviour": "honest"} for index in range(6)])
    fleet.run(cohort="2", over_select=2.0)
    row = fleet.engine.registry.rounds()[0]
    replies = fleet.engine.registry.replies(row.id)
    assert len(row.cohort) == 4 and row.state == PUBLISHED
    assert sorted(reply.reason or "" for reply in replies) == ["", "", "no reply", "no reply"]


def test_clients_that_were_never_asked_come_first_when_draws_are_fair(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, [{"client": f"honest {index}", "behaviour": "honest"} for index in range(6)])
    fleet.run(rounds=12, cohort="2", fair=True)
    asked = [client for row in fleet.engine.registry.rounds() for client in row.cohort]
    assert {client: asked.count(client) for client in set(asked)}.keys() == {f"honest {index}" for index in range(6)}
    assert fleet.engine.registry.waited()["honest 0"] <= 12
