"""When rounds open: as soon as clients have something new, on a schedule, on command; and what is said meanwhile."""

from __future__ import annotations

import datetime
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from toy_fleet import toy_engine

from mcoe_model.errors import SettingsError
from mcoe_model.protocol import CheckIn
from mcoe_model.workers import spawn_pool
from server.app import Coordinator, Event, Policy, RoundEnded, Waiting
from server.opening import Opening
from server.presence import Presence
from server.registry import Registry
from server.rounds import RoundEngine
from server.settings import ServerSettings
from simulations.local_grid import LOCAL_POLL, LocalGrid

NOW = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)
CLIENTS = ("honest 0", "honest 1")


def test_ready_waits_for_nothing_but_clients() -> None:
    assert Opening().not_yet(NOW, NOW, requested=False) is None


def test_a_schedule_counts_from_the_last_opening() -> None:
    daily = Opening("schedule", every_hours=24)
    assert daily.not_yet(NOW, None, requested=False) is None
    assert daily.not_yet(NOW, NOW - 24 * HOUR, requested=False) is None
    said = daily.not_yet(NOW, NOW - 23 * HOUR, requested=False)
    assert said is not None and "2026-11-21 13:00 UTC" in said
    assert daily.not_yet(NOW, NOW + HOUR, requested=False) is None, "a clock that was wrong holds up nothing"


def test_only_a_request_opens_rounds_on_command() -> None:
    said = Opening("command").not_yet(NOW, None, requested=False)
    assert said is not None and "rounds open" in said
    for opening in (Opening("command"), Opening("schedule"), Opening()):
        assert opening.not_yet(NOW, NOW, requested=True) is None


def test_who_is_awaited_is_said_with_names() -> None:
    opening = Opening(min_clients=3)
    assert opening.too_few(["a", "b", "c"], ["d"]) is None
    said = opening.too_few(["a", "b"], ["d"])
    assert said == "2 clients with new clips are there, 3 are needed (present: with new clips a b, without d)"
    said = opening.too_few(["a", "b"], [], ["d", "e"])
    assert str(said).endswith("(present: with new clips a b; absent: d e)")
    assert "nobody" in str(opening.too_few([], []))
    assert "w4 and 5 more" in str(opening.too_few([], [], [f"w{index}" for index in range(10)]))
    many = opening.too_few([], [f"w{index}" for index in range(1000)])
    assert "w4 and 995 more" in str(many)


def test_settings_that_cannot_be_are_named_together() -> None:
    with pytest.raises(SettingsError) as caught:
        Opening("sometimes", 0, float("inf"), -1)  # type: ignore[arg-type]
    assert len(caught.value.faults) == 4
    with pytest.raises(SettingsError) as caught:
        ServerSettings(open_when="never", round_every_hours=0.0, same_data_rounds=-1)  # type: ignore[arg-type]
    assert len(caught.value.faults) == 3


def test_a_cohort_of_a_fixed_number_waits_for_as_many() -> None:
    assert ServerSettings(min_clients=2, cohort="10").opening.min_clients == 10
    assert ServerSettings(min_clients=4, cohort="3").opening.min_clients == 4
    assert ServerSettings(min_clients=2, cohort="0.5").opening.min_clients == 2


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """The process that plays the clients."""
    with spawn_pool(1) as made:
        yield made


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[RoundEngine]:
    made = toy_engine(tmp_path)
    yield made
    made.registry.engine.dispose()


def run(engine: RoundEngine, pool: ProcessPoolExecutor, opening: Opening, then: Callable[[Waiting], bool]) -> list[str]:
    """Run rounds without an end until ``then`` says False to why none is open; returns the reasons."""
    nodes: list[dict[str, Any]] = [{"client": client, "behaviour": "honest"} for client in CLIENTS]
    reasons: list[str] = []
    with closing(LocalGrid("toy_clients:app", nodes, {}, pool)) as grid:
        policy = Policy(0, opening=opening, poll_s=LOCAL_POLL)

        def watch(event: Event) -> None:
            if isinstance(event, Waiting):
                reasons.append(event.reason)
                assert engine.registry.waiting().reason == event.reason  # type: ignore[union-attr]
                if not then(event):
                    coordinator.stopped.set()
            elif isinstance(event, RoundEnded):
                assert engine.registry.waiting() is None

        presence = Presence(grid, engine.registry.saw)
        everybody_there(presence)
        coordinator = Coordinator(presence, engine, policy, 0, watch)
        coordinator.run()
    return reasons


def everybody_there(presence: Presence, clients: int = len(CLIENTS)) -> None:
    while len(presence.clients) < clients:
        presence.refresh()
        time.sleep(LOCAL_POLL)


def test_a_request_opens_one_round(engine: RoundEngine, pool: ProcessPoolExecutor) -> None:
    def ask_once(event: Waiting) -> bool:
        return not engine.registry.rounds() and engine.registry.request_round()

    reasons = run(engine, pool, Opening("command"), ask_once)
    assert len(reasons) == 2 and set(reasons) == {"rounds open on command: mcoe-server rounds open"}
    assert engine.registry.last_published() == 1
    assert not engine.registry.round_requested()


def test_a_request_outlives_the_process_that_heard_it(engine: RoundEngine, pool: ProcessPoolExecutor) -> None:
    engine.registry.request_round()
    again = Registry(engine.registry.engine, engine.registry.experiment)
    assert again.round_requested() and not again.request_round()
    run(engine, pool, Opening("command"), lambda event: False)
    assert again.last_published() == 1
    run(engine, pool, Opening("command"), lambda event: False)
    assert again.last_published() == 1


def test_a_schedule_opens_at_once_and_then_waits_unless_asked(engine: RoundEngine, pool: ProcessPoolExecutor) -> None:
    def ask_once(event: Waiting) -> bool:
        return engine.registry.last_published() == 1 and engine.registry.request_round()

    reasons = run(engine, pool, Opening("schedule", every_hours=5), ask_once)
    assert len(reasons) == 2 and all("the next round opens at" in reason for reason in reasons)
    assert engine.registry.last_published() == 2


def test_clips_that_were_learned_often_enough_open_no_round_until_there_are_others(
    engine: RoundEngine, pool: ProcessPoolExecutor
) -> None:
    def record_once(event: Waiting) -> bool:
        for client in CLIENTS:
            engine.registry.saw(CheckIn(client, 99))
        return engine.registry.last_published() == 2

    reasons = run(engine, pool, Opening(same_data_rounds=2), record_once)
    assert all("without honest 0 honest 1" in reason for reason in reasons)
    assert engine.registry.last_published() == 4


def test_what_stands_in_the_way_is_said(engine: RoundEngine, pool: ProcessPoolExecutor) -> None:
    nodes: list[dict[str, Any]] = [{"client": "honest 0", "behaviour": "honest"}]
    said: list[Event] = []
    with closing(LocalGrid("toy_clients:app", nodes, {}, pool)) as grid:

        def watch(event: Event) -> None:
            said.append(event)
            coordinator.stopped.set()

        presence, policy = Presence(grid, engine.registry.saw), Policy(0, poll_s=LOCAL_POLL)
        everybody_there(presence, 1)
        coordinator = Coordinator(presence, engine, policy, 0, watch, lambda: "the disk is full")
        coordinator.run()
    assert said == [Waiting("the disk is full")]
    assert engine.registry.rounds() == []


class WithOneThatIsSilent(LocalGrid):
    """The local grid, and a node of which nothing is ever heard."""

    def get_node_ids(self) -> Iterable[int]:
        return [*super().get_node_ids(), 7]

    def _push(self, message: Message) -> str:
        return "unheard" if message.metadata.dst_node_id == 7 else super()._push(message)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return super().pull_messages([message_id for message_id in message_ids if message_id != "unheard"])


def test_a_node_that_does_not_answer_holds_up_no_round_of_a_fleet_without_a_pause(
    engine: RoundEngine, pool: ProcessPoolExecutor
) -> None:
    nodes = [{"client": client, "behaviour": "honest"} for client in CLIENTS]
    with closing(WithOneThatIsSilent("toy_clients:app", nodes, {}, pool)) as grid:
        presence = Presence(grid, engine.registry.saw)
        everybody_there(presence)
        assert presence.unanswered == 1

        def watch(event: Event) -> None:
            coordinator.stopped.set()

        looks = itertools.count()

        def give_up() -> None:
            if next(looks) > 100:
                coordinator.stopped.set()

        policy = Policy(0, pause_s=0.0, poll_s=LOCAL_POLL)
        coordinator = Coordinator(presence, engine, policy, 0, watch, undecided=give_up)
        coordinator.run()
    assert [row.cohort for row in engine.registry.rounds()] == [CLIENTS]


@pytest.mark.parametrize("undecided", [True, False])
def test_who_is_forgotten_between_two_looks_is_in_no_round(
    engine: RoundEngine, pool: ProcessPoolExecutor, undecided: bool
) -> None:
    """While a model is undecided, which takes its time, and between the choice of a cohort and its round."""
    nodes = [{"client": client, "behaviour": "honest"} for client in CLIENTS]
    registry = engine.registry
    engine.settings = replace(engine.settings, cohort_filter="honest*")

    def forget_one() -> None:
        registry.forget(CLIENTS[0], "keep")

    with closing(LocalGrid("toy_clients:app", nodes, {}, pool)) as grid:
        presence = Presence(grid, registry.saw)
        everybody_there(presence)

        def watch(event: Event) -> None:
            coordinator.stopped.set()

        coordinator = Coordinator(presence, engine, Policy(0, poll_s=LOCAL_POLL), 0, watch)
        if undecided:
            coordinator.undecided = forget_one
        else:
            coordinator.obstacle = forget_one
        coordinator.run()
    assert [row.cohort for row in registry.rounds()] == [CLIENTS[1:]]
