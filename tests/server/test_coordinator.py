"""The coordinator over the local grid: bad clients cost their own contribution, and every restart goes on."""

from __future__ import annotations

import datetime
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flwr.app import Message, MessageType
from toy_clients import BEHAVIOURS
from toy_fleet import toy_engine

from mcoe_model.errors import DiskFull, ExitCode, RoundFailed, TooFewSubjects
from mcoe_model.model_file import tensors_sha256
from mcoe_model.protocol import CheckIn
from mcoe_model.workers import spawn_pool
from server.acceptance import Accepted, Rejected
from server.app import (
    ATTEMPTS,
    REST_S,
    Coordinator,
    Event,
    Policy,
    ReplyJudged,
    RoundEnded,
    RoundOpened,
    Waiting,
    rest,
)
from server.check_ins import CheckIns
from server.children import disk_floor
from server.opening import Opening
from server.presence import Presence
from server.registry import ABANDONED, OPEN, PUBLISHED
from server.registry.tables import Base
from server.rounds import RoundEngine
from simulations.local_grid import FIRST_NODE_ID, LOCAL_POLL, LocalGrid

HONEST = [{"client": f"honest {index}", "behaviour": "honest"} for index in range(3)]


Watch = Callable[[Event], None]


@pytest.fixture(scope="module", autouse=True)
def worker() -> Iterator[None]:
    """The process that plays every client of this module."""
    with spawn_pool(1) as Fleet.pool:
        yield


class Clock:
    """The coordinator's clock, for what would take an hour: it moves with the test, or a step with every look."""

    def __init__(self) -> None:
        self.now = self.step = 0.0

    def monotonic(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("server.app.time", made)
    return made


class SlowGrid(LocalGrid):
    """A local grid that keeps replies of the ``silent`` nodes to itself, and knows what is outstanding."""

    silent: frozenset[int] = frozenset()

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.tasks: dict[str, int] = {}
        self.most = 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        pushed = []
        for message in messages:
            pushed += super().push_messages([message])
            if message.metadata.message_type == MessageType.TRAIN:
                self.tasks[pushed[-1]] = message.metadata.dst_node_id
        self.most = max(self.most, len(self.tasks))
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        known = [name for name in message_ids if name in self._replies and self.tasks.get(name) not in self.silent]
        found = list(super().pull_messages(known))
        for message in found:
            self.tasks.pop(message.metadata.reply_to_message_id, None)
        return found


class Fleet:
    """A coordinator and its engine in this process, and its clients in another."""

    pool: ProcessPoolExecutor
    grid_kind: type[SlowGrid]

    def __init__(self, folder: Path, nodes: list[dict[str, Any]], **engine: Any) -> None:
        self.engine: RoundEngine = toy_engine(folder, **engine)
        self.log = folder / f"asked-{time.monotonic_ns()}"
        self.nodes = nodes
        self.events: list[Event] = []
        self.under_way: dict[str, str] = {}
        self.grid_kind = SlowGrid
        self.obstacle: Callable[[], str | None] = lambda: None

    def run(
        self,
        rounds: int = 1,
        cohort: str = "all",
        seed: int = 0,
        watch: Watch | None = None,
        check_ins: CheckIns = CheckIns(),  # noqa: B008 (it is frozen)
        **policy_of: Any,
    ) -> None:
        with closing(self.grid_kind("toy_clients:app", self.nodes, {"log": str(self.log)}, self.pool)) as self.grid:
            policy = Policy(rounds, cohort, poll_s=LOCAL_POLL, **policy_of)
            presence = Presence(self.grid, self.engine.registry.saw, check_ins=check_ins)
            self.coordinator = Coordinator(presence, self.engine, policy, seed, watch or self.events.append)
            self.coordinator.under_way = lambda name: dict(self.under_way)
            self.coordinator.obstacle = self.obstacle
            self.coordinator.run()

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
    "another's update id": "not its client's",
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


def test_the_deadline_counts_from_the_opening_whichever_process_opened_the_round(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, HONEST)

    def stop(event: Event) -> None:
        raise Stop

    with pytest.raises(Stop):
        fleet.run(watch=stop)
    hours_ago = fleet.engine.registry.rounds()[0].opened - datetime.timedelta(hours=2)
    with fleet.engine.registry.engine.begin() as connection:
        connection.execute(sa.update(Base.metadata.tables["rounds"]).values(opened=hours_ago))
    again = Fleet(tmp_path, HONEST)
    again.run(deadline_s=3600.0)
    first, second = again.engine.registry.rounds()
    assert (first.state, first.reason) == (ABANDONED, "0 of 3 replies were accepted, 2 are needed")
    assert (second.state, len(again.asked())) == (PUBLISHED, 3)


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


def test_a_round_closes_with_the_first_k_and_nobody_else_is_waited_for(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, HONEST)
    fleet.engine.settings = replace(fleet.engine.settings, first_k=2)
    fleet.run(rounds=3)
    for row in fleet.engine.registry.rounds():
        replies = fleet.engine.registry.replies(row.id)
        assert (len(row.cohort), row.state) == (3, PUBLISHED)
        assert sorted(reply.reason or "" for reply in replies) == ["", "", "no reply"]
        assert [reply.staleness for reply in replies if reply.accepted] == [0, 0]


class ShiftGrid(SlowGrid):
    """A local grid with one node at a time: each leaves when it was there for so many looks."""

    looks = 0

    def get_node_ids(self) -> Iterable[int]:
        nodes = list(super().get_node_ids())
        self.looks += 1
        assert self.looks < 20_000, "no model was made"
        return [nodes[self.looks // 40 % len(nodes)]]


def test_clients_that_are_never_there_together_make_new_models(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, HONEST)
    fleet.grid_kind = ShiftGrid
    fleet.engine.settings = replace(fleet.engine.settings, first_k=3, max_staleness=2)

    def until_two(event: Event) -> None:
        fleet.events.append(event)
        if isinstance(event, RoundEnded) and event.number == 2:
            fleet.coordinator.stopped.set()

    few = Opening(min_clients=3)
    # They were heard long before, as far as check-ins go, and yet within the time that a round waits.
    fleet.run(rounds=0, opening=few, deadline_s=600.0, check_ins=CheckIns(every_s=0.001), watch=until_two)
    for row in fleet.engine.registry.rounds():
        assert (row.state, len(row.cohort)) == (PUBLISHED, 3)
        assert {reply.client_id for reply in fleet.engine.registry.replies(row.id) if reply.accepted} == set(row.cohort)


def test_an_update_whose_client_withdraws_does_not_close_the_round(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, HONEST)
    fleet.engine.settings = replace(fleet.engine.settings, first_k=2)

    def withdraw_the_first(event: Event) -> None:
        if isinstance(event, ReplyJudged) and not fleet.events:
            fleet.engine.registry.withdraw(event.client_id)
            fleet.events.append(event)

    fleet.run(watch=withdraw_the_first)
    (first,) = fleet.events
    assert isinstance(first, ReplyJudged)
    assert fleet.reasons() == {
        node["client"]: "the client has withdrawn" if node["client"] == first.client_id else None for node in HONEST
    }


def test_clients_that_were_never_asked_come_first_when_draws_are_fair(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, [{"client": f"honest {index}", "behaviour": "honest"} for index in range(6)])
    fleet.run(rounds=12, cohort="2", fair=True)
    asked = [client for row in fleet.engine.registry.rounds() for client in row.cohort]
    assert {client: asked.count(client) for client in set(asked)}.keys() == {f"honest {index}" for index in range(6)}
    assert fleet.engine.registry.waited()["honest 0"] <= 12


def test_a_model_that_is_rolled_back_during_a_round_is_not_brought_back_by_it(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, HONEST)

    def roll_back(event: Event) -> None:
        if isinstance(event, RoundOpened) and event.number == 2 and not fleet.events:
            fleet.engine.registry.release_again(1)
            fleet.events.append(event)

    fleet.run(rounds=2, watch=roll_back)
    models, rounds = fleet.engine.registry.models(), fleet.engine.registry.rounds()
    assert [row.state for row in rounds] == [PUBLISHED, ABANDONED, PUBLISHED]
    assert rounds[2].base_sha256 == models[-1].parent_sha256 == models[0].sha256


def test_a_client_whose_version_is_too_old_is_asked_for_nothing(tmp_path: Path) -> None:
    record = replace(CheckIn("honest 2", 10), client_version="0.0.9").to_record()
    old = {**HONEST[2], "check-in": json.dumps(record)}
    fleet = Fleet(tmp_path, [*HONEST[:2], old])
    fleet.run(check_ins=CheckIns(least="0.1"))
    assert fleet.engine.registry.rounds()[0].cohort == ("honest 0", "honest 1")
    assert fleet.engine.registry.client("honest 2").standing == "too-old"


def test_at_most_so_many_train_messages_are_outstanding(undisturbed: str, tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, HONEST)
    fleet.run(max_in_flight=2)
    assert fleet.grid.most == 2
    assert result(fleet) == undisturbed


def test_clients_that_are_absent_keep_nobody_from_being_asked(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, HONEST, quorum=0.1)

    def stop(event: Event) -> None:
        raise Stop

    with pytest.raises(Stop):
        fleet.run(watch=stop)
    again = Fleet(tmp_path, HONEST[2:], quorum=0.1)
    again.run(max_in_flight=2)
    assert again.reasons() == {"honest 0": "no reply", "honest 1": "no reply", "honest 2": None}


def test_nobody_is_asked_while_more_than_allowed_is_outstanding_since_before(tmp_path: Path, clock: Clock) -> None:
    fleet = Fleet(tmp_path, [{"client": f"honest {index}", "behaviour": "honest"} for index in range(5)], quorum=0.1)
    fleet.under_way = {"from before": "honest 0", "likewise": "honest 1"}

    def tick(event: Event) -> None:
        fleet.events.append(event)
        if isinstance(event, RoundEnded):
            fleet.coordinator.stopped.set()

    clock.step = 1.0
    fleet.run(rounds=0, opening=Opening(min_clients=5), max_in_flight=1, deadline_s=50, watch=tick)
    assert fleet.asked() == []
    assert set(fleet.reasons().values()) == {"no reply"}


def test_a_round_closes_at_its_deadline_and_the_late_reply_is_taken_out_of_the_grid(
    tmp_path: Path, clock: Clock
) -> None:
    fleet = Fleet(tmp_path, HONEST)

    def hear(event: Event) -> None:
        fleet.events.append(event)
        if event == RoundOpened(1, 3, 3):
            fleet.grid.silent = frozenset({FIRST_NODE_ID + 2})
        elif isinstance(event, ReplyJudged) and (event.number, len(fleet.events)) == (1, 3):
            clock.now += 3601.0  # the opening and two replies
        elif isinstance(event, RoundEnded) and event.number == 1:
            assert len(fleet.grid.tasks) == 1
            fleet.grid.silent = frozenset()

    fleet.run(rounds=2, deadline_s=3600.0, watch=hear)
    first, second = fleet.engine.registry.rounds()
    assert {reply.client_id: reply.reason for reply in fleet.engine.registry.replies(first.id)} == {
        "honest 0": None, "honest 1": None, "honest 2": "no reply"
    }  # fmt: skip
    assert (first.state, second.state) == (PUBLISHED, PUBLISHED)
    assert fleet.reasons() == dict.fromkeys(("honest 0", "honest 1", "honest 2"))
    assert fleet.grid.tasks == {}


def test_the_pause_after_failed_attempts_grows_up_to_a_bound() -> None:
    assert [rest(5.0, failed) for failed in range(4)] == [0.0, 10.0, 20.0, 40.0]
    assert rest(5.0, 10) == rest(5.0, 10_000) == REST_S


def test_a_fleet_without_an_end_rests_longer_after_every_failed_attempt_and_says_so(
    tmp_path: Path, clock: Clock
) -> None:
    fleet = Fleet(tmp_path, [{"client": f"bad {index}", "behaviour": "NaN"} for index in range(2)])

    def hear(event: Event) -> None:
        failed = fleet.engine.registry.failed_attempts()
        if isinstance(event, Waiting) and event.reason.startswith(f"attempt {failed} at round 1 was abandoned"):
            fleet.events.append(event)
            if failed == 3:
                assert fleet.engine.registry.request_round()  # the operator does not wait
            else:
                clock.now += rest(0.01, failed)
        elif isinstance(event, RoundEnded) and failed == 4:
            fleet.coordinator.stopped.set()

    fleet.run(rounds=0, pause_s=0.01, watch=hear)
    assert len(fleet.events) == 3


def test_a_disk_that_fills_up_while_an_update_is_spooled_ends_the_process_and_no_row_names_it(
    undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet, replace_file = Fleet(tmp_path, HONEST), os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target).parent.parent == fleet.engine.spool and len(fleet.events) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace_file(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(DiskFull, match="round-1-1"):
            fleet.run()
    registry = fleet.engine.registry
    assert [row.state for row in registry.rounds()] == [OPEN]
    assert list(fleet.reasons().values()) == [None]
    assert [path.stem for path in fleet.engine.spool.glob("*/*")] == [
        contribution.update_id for contribution in registry.contributions(registry.rounds()[0].id)
    ]
    again = Fleet(tmp_path, HONEST)
    again.run()
    assert again.events[0] == RoundOpened(1, 3, 2)
    assert result(again) == undisturbed


def test_no_round_opens_below_the_disk_floor(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free >> 20
    assert disk_floor(tmp_path, 0)() is None
    obstacle = disk_floor(tmp_path, 2 * free + 1)
    fleet = Fleet(tmp_path, HONEST)
    fleet.obstacle = obstacle

    def hear(event: Event) -> None:
        fleet.events.append(event)
        if isinstance(event, Waiting) and "MB are free" in event.reason:
            fleet.coordinator.stopped.set()

    fleet.run(rounds=0, watch=hear)
    assert fleet.events[-1] == Waiting(f"less than {2 * free + 1} MB are free in {tmp_path}, which a round needs")
    assert fleet.engine.registry.rounds() == []
