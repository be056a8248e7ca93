"""What the operator decides over models while a round or a trial goes on, on every database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from registry_databases import DATABASES, fresh_database
from toy_fleet import CARD, enlist, honest_reply, toy_engine, toy_model

from server.acceptance import Accepted, Rejected
from server.registry import ABANDONED, PUBLISHED
from server.registry.models import CANARY, CANDIDATE, HELD, RELEASED
from server.rounds import RoundEngine, RoundInProgress


@pytest.fixture(params=DATABASES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RoundEngine]:
    """Versions 1 and 2 are released, version 3 is held."""
    with fresh_database(request.param, tmp_path, migrated=True) as url:
        made = toy_engine(tmp_path / "server", url=url)
        enlist(made, *"abc")
        for _ in range(2):
            assert made.finish(begin(made))
        made.registry.set_model_state(made.registry.model(3).sha256, HELD)
        yield made
        made.registry.engine.dispose()


def begin(engine: RoundEngine, answering: str = "ab") -> RoundInProgress:
    current = engine.open(("a", "b", "c"))
    for client in answering:
        assert isinstance(engine.receive(current, honest_reply(current.expectation, client)), Accepted)
    return current


def rollback(engine: RoundEngine) -> str:
    engine.registry.release_again(1)
    return engine.registry.model(1).sha256


def hold(engine: RoundEngine) -> str:
    engine.registry.set_model_state(engine.registry.model(2).sha256, HELD)
    return engine.registry.model(1).sha256


def promote(engine: RoundEngine) -> str:
    engine.registry.set_model_state(engine.registry.model(3).sha256, RELEASED)
    return engine.registry.model(3).sha256


def import_one(engine: RoundEngine) -> str:
    sha256 = engine.artifacts.put(toy_model(seed=3), CARD)
    engine.registry.import_model(sha256, CARD.generation.id)
    return sha256


DECISIONS = (rollback, hold, promote, import_one)


def once(place: Any, name: str, what: Callable[[], object], *, before: bool = False) -> None:
    """Do something at the next call of this method, after it or before."""
    real = getattr(place, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        setattr(place, name, real)
        if before:
            what()
        result = real(*arguments, **named)
        if not before:
            what()
        return result

    setattr(place, name, wrapped)


@pytest.mark.parametrize("decide", DECISIONS)
@pytest.mark.parametrize("phase", ["open", "about to be closed", "closed", "aggregated"])
def test_no_round_publishes_a_child_of_a_model_that_was_overtaken(
    engine: RoundEngine, decide: Callable[[RoundEngine], str], phase: str
) -> None:
    current, decided = begin(engine), list[str]()

    def word() -> None:
        decided.append(decide(engine))

    if phase == "closed":
        engine.registry.close_round(current.row.id)
    if phase == "about to be closed":
        once(engine.registry, "close_round", word, before=True)
    elif phase == "aggregated":
        once(engine.artifacts, "put", word)
    else:
        word()
        assert engine.waiting_for(current) == ()
        late = honest_reply(current.expectation, "c")
        assert engine.receive(current, late) == Rejected("the round is closed")
    assert engine.finish(current) is None
    assert decided == [engine.registry.newest_model()]
    ended = engine.registry.rounds()[-1]
    assert (ended.state, ended.reason) == (ABANDONED, "its model is no longer the newest released one")
    assert list(engine.spool.glob("round-*")) == []
    named = {model.sha256 for model in engine.registry.models()}
    assert {path.stem for path in engine.artifacts.folder.iterdir()} == named
    again = begin(engine)
    assert (again.row.number, again.row.attempt, again.row.base_sha256) == (3, 2, decided[0])
    made = engine.finish(again)
    assert made is not None and made == engine.registry.newest_model()


def test_a_decision_that_leaves_the_newest_model_leaves_the_round(engine: RoundEngine) -> None:
    current = begin(engine)
    engine.registry.release_again(2)
    engine.registry.set_model_state(engine.registry.model(1).sha256, HELD)
    assert engine.finish(current) is not None
    assert [row.state for row in engine.registry.rounds()] == [PUBLISHED] * 3
    assert engine.registry.models()[-1].parent_sha256 == engine.registry.model(2).sha256


@pytest.mark.parametrize("decide", DECISIONS)
def test_a_round_that_opens_just_after_the_decision_ends(
    engine: RoundEngine, decide: Callable[[RoundEngine], str]
) -> None:
    once(engine.registry, "open_round", lambda: decide(engine), before=True)
    current = engine.open(("a", "b", "c"))
    assert engine.waiting_for(current) == ()
    assert engine.finish(current) is None


def test_a_round_that_a_killed_process_opened_on_an_overtaken_model_is_not_resumed(engine: RoundEngine) -> None:
    settings = engine.registry.rounds()[-1].settings
    engine.registry.open_round(engine.registry.model(1).sha256, ("a",), settings, None)
    assert engine.resume() is None
    assert engine.registry.rounds()[-1].state == ABANDONED


@pytest.mark.parametrize("state", [CANDIDATE, CANARY])
@pytest.mark.parametrize("decide", [hold, promote])
def test_an_undecided_model_is_held_when_its_parent_is_overtaken(
    engine: RoundEngine, decide: Callable[[RoundEngine], str], state: str
) -> None:
    engine.new_state = CANDIDATE
    made = str(engine.finish(begin(engine)))
    if state == CANARY:
        engine.registry.set_model_state(made, CANARY)
    newest = decide(engine)
    assert engine.registry.model(made).state == HELD
    assert engine.registry.newest_model() == newest
    assert "its parent is no longer" in engine.registry.events(1)[0].detail


@pytest.mark.parametrize("decide", ["by the server", "by hand", "rolled back", "imported", "with its parent"])
def test_what_went_into_a_model_that_is_not_gone_on_from_is_to_be_learned_again(
    engine: RoundEngine, decide: str
) -> None:
    registry = engine.registry
    assert registry.nothing_new(1) == {"a", "b"} and not registry.nothing_new(2)  # in version 2; 3 is held
    engine.new_state = RELEASED if decide in ("rolled back", "imported") else CANDIDATE
    made = engine.finish(begin(engine, answering="bc"))
    assert made is not None and registry.nothing_new(1) == {"a", "b", "c"} and registry.nothing_new(2) == {"b"}
    match decide:
        case "by the server":
            assert registry.decide(registry.model(made).version, CANDIDATE, HELD, "worse")
        case "by hand":
            registry.set_model_state(made, HELD)
        case "rolled back":
            registry.release_again(2)
        case "with its parent":
            registry.set_model_state(registry.model(2).sha256, HELD)
        case "imported":
            import_one(engine)
    expected = {"with its parent": set(), "imported": set()}.get(decide, {"a", "b"})
    assert (registry.nothing_new(1), registry.nothing_new(2)) == (expected, set())


def test_a_model_that_is_held_from_the_start_was_not_learned(engine: RoundEngine) -> None:
    engine.new_state = HELD
    before = engine.registry.nothing_new(1)
    assert engine.finish(begin(engine, answering="bc"))
    assert engine.registry.nothing_new(1) == before


def test_who_stays_when_another_is_forgotten_has_its_clips_to_learn_again(engine: RoundEngine) -> None:
    engine.new_state = CANDIDATE
    assert engine.finish(begin(engine, answering="bc"))
    engine.registry.forget("c", "rollback-before")
    assert (engine.registry.nothing_new(1), engine.registry.nothing_new(2)) == ({"a", "b"}, set())
