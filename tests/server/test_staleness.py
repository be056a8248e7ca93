"""Rounds that close with the first K replies: who comes too late answers a later round, and counts less there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_fleet import enlist, expectation, honest_reply, toy_engine, toy_model
from toy_updates import SHARED, combine, flat, sent

from mcoe_model.errors import SettingsError
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.model_file import Tensors, tensors_sha256
from mcoe_model.protocol import MAX_OUTBOX, CheckIn, News
from server.acceptance import Accepted, Rejected, Reply, judge
from server.aggregation import RULES
from server.aggregation.rule import RuleSettings
from server.aggregation.staleness import staleness_scales, staleness_weight
from server.delivery import news_for
from server.private_mode import PrivateMode
from server.registry import ABANDONED, PUBLISHED
from server.registry.replies import NO_REPLY
from server.rounds import RoundEngine, RoundInProgress, RoundSettings
from server.settings import ServerSettings


def test_the_weight_is_the_polynomial_of_fedasync() -> None:
    assert [staleness_weight(tau, 0.5) for tau in (0, 3, 8)] == [1.0, 0.5, pytest.approx(1 / 3)]
    assert staleness_weight(7, 0.0) == 1.0
    assert staleness_weight(1, 2.0) == 0.25


def test_fresh_updates_are_not_touched_at_all() -> None:
    fresh = [contribution for contribution, _ in sent([(0,), (1,)])]
    assert staleness_scales(fresh, 0.5) is None
    stale = [replace(fresh[0], staleness=3), fresh[1]]
    assert staleness_scales(stale, 0.5) == [0.5, 1.0]


@pytest.mark.parametrize("rule", sorted(RULES.keys() - {"krum"}))
@pytest.mark.parametrize("router", ["averaged", "damped"])
def test_every_rule_takes_a_stale_update_as_one_that_is_scaled(rule: str, router: str, tmp_path: Path) -> None:
    """But who is chosen or trusted is decided by what was sent."""
    settings = RuleSettings(router=router, staleness_exponent=1.0)  # type: ignore[arg-type]
    updates = sent([(0, 1, 2)] * 6)
    stale = [(replace(c, staleness=index % 3), update) for index, (c, update) in enumerate(updates)]
    scaled = [(c, {n: v / np.float32(1 + index % 3) for n, v in u.items()}) for index, (c, u) in enumerate(updates)]
    reference = flat_mean(updates)
    found = combine(tmp_path / "stale", stale, rule, settings, reference=reference)
    if rule in ("multi-krum", "fltrust"):  # they look at what was sent before they combine it
        plain = combine(tmp_path / "plain", updates, rule, settings, reference=reference)
        assert 0 < distance(found) < distance(plain)
        return
    expected = combine(tmp_path / "scaled", scaled, rule, settings)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def flat_mean(updates: list[tuple[object, Tensors]]) -> Tensors:
    names = updates[0][1]
    return {name: np.mean([update[name] for _, update in updates], axis=0, dtype=np.float32) for name in names}


def distance(tensors: Tensors) -> float:
    """How far the shared tensors moved."""
    return float(np.linalg.norm(flat(tensors) - flat(toy_model())))


def test_krum_chooses_by_what_was_sent_and_moves_by_the_weight(tmp_path: Path) -> None:
    updates = sent([(0,)] * 6)
    plain = combine(tmp_path / "plain", updates, "krum")
    stale = [(replace(c, staleness=3), update) for c, update in updates]
    found = combine(tmp_path / "stale", stale, "krum")
    np.testing.assert_allclose(
        flat(found) - flat(toy_model()), (flat(plain) - flat(toy_model())) / 2, rtol=1e-4, atol=1e-6
    )


def test_a_round_of_stale_updates_moves_the_mean_less(tmp_path: Path) -> None:
    """What a stale update loses goes to nobody: with equal staleness the weights do not cancel."""
    updates = sent([(0,)] * 3)
    moved = [
        distance(combine(tmp_path / str(tau), [(replace(c, staleness=tau), u) for c, u in updates], "weighted-mean"))
        for tau in (0, 3)
    ]
    assert moved[1] == pytest.approx(moved[0] / 2, rel=1e-5)
    assert len(SHARED) == 3


def test_acceptance_takes_the_bases_that_are_welcome_and_says_how_stale_they_are() -> None:
    expected = expectation(welcome={"a" * 64: 1, "9" * 64: 2})
    for base, staleness in (("b" * 64, 0), ("a" * 64, 1), ("9" * 64, 2)):
        verdict = judge(honest_reply(replace(expected, base_sha256=base), "a"), expected)
        assert isinstance(verdict, Accepted) and verdict.staleness == staleness
    refused = judge(honest_reply(replace(expected, base_sha256="8" * 64), "a"), expected)
    assert refused == Rejected("update is based on another model than this round's")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[RoundEngine]:
    made = first_k_engine(tmp_path)
    yield made
    made.registry.engine.dispose()


def first_k_engine(folder: Path, max_staleness: int = 2, rule: str = "weighted-mean") -> RoundEngine:
    made = toy_engine(folder, rule=rule)
    made.settings = replace(made.settings, first_k=2, max_staleness=max_staleness, keep_updates=True)
    enlist(made, *"abc")
    return made


def late(current: RoundInProgress, base: str, client: str = "c", made_in: int = 1) -> Reply:
    """What a client answers with from its outbox: made from an earlier base in an earlier round."""
    expected = replace(current.expectation, base_sha256=base, round_number=made_in)
    reply = honest_reply(expected, client)
    return replace(reply, meta={**reply.meta, "round_number": current.row.number})


def play(engine: RoundEngine, clients: str = "ab") -> str:
    current = engine.open(("a", "b", "c"))
    for client in clients:
        assert isinstance(engine.receive(current, honest_reply(current.expectation, client)), Accepted)
    for client in engine.waiting_for(current):
        engine.no_reply(current, client, NO_REPLY)
    return str(engine.finish(current))


def test_the_quorum_is_of_the_first_k(engine: RoundEngine) -> None:
    engine.settings = replace(engine.settings, quorum=1.0)
    play(engine)
    assert engine.finish(engine.open(("a", "b", "c"))) is None
    assert [row.state for row in engine.registry.rounds()] == [PUBLISHED, ABANDONED]
    assert engine.registry.rounds()[1].reason == "0 of 3 replies were accepted, 2 are needed"


def test_a_task_names_the_bases_of_its_lineage_that_are_welcome(engine: RoundEngine) -> None:
    first = str(engine.registry.newest_model())
    made = [play(engine) for _ in range(3)]
    current = engine.open(("a",))
    assert current.task.welcome == (made[1], made[0])
    assert current.expectation.welcome == {made[1]: 1, made[0]: 2}
    resumed = engine.resume()
    assert resumed is not None and resumed.expectation == current.expectation
    engine.registry.abandon_round(current.row.id, "test")
    engine.registry.release_again(2)  # version 2 is the first round's model
    assert engine.open(("a",)).task.welcome == (first,), "what was rolled back is no ancestor"


def test_without_first_k_no_other_base_is_welcome(tmp_path: Path) -> None:
    engine = toy_engine(tmp_path)
    enlist(engine, *"abc")
    play(engine, "abc")
    assert engine.open(("a",)).task.welcome == ()
    engine.registry.engine.dispose()


def test_a_late_update_is_taken_in_a_later_round_with_its_staleness(engine: RoundEngine) -> None:
    first = str(engine.registry.newest_model())
    play(engine)
    play(engine)
    current = engine.open(("a", "b", "c"))
    assert isinstance(engine.receive(current, late(current, first)), Accepted)
    assert isinstance(engine.receive(current, honest_reply(current.expectation, "a")), Accepted)
    made = str(engine.finish(current))
    assert [reply.staleness for reply in engine.registry.replies(current.row.id)] == [0, 2]
    fresh, stale = (flat(reply.update) for reply in (honest_reply(current.expectation, "a"), late(current, first)))
    base, _ = engine.artifacts.get(current.row.base_sha256)
    expected = flat(base) + 0.5 * fresh + 0.5 * stale / math.sqrt(3)
    np.testing.assert_allclose(flat(engine.artifacts.get(made)[0]), expected, rtol=1e-5, atol=1e-7)
    assert engine.replay(3) == (made, made)


def test_an_update_that_is_too_old_is_refused(engine: RoundEngine) -> None:
    first = str(engine.registry.newest_model())
    for _ in range(3):
        play(engine)
    current = engine.open(("a", "b", "c"))
    assert isinstance(engine.receive(current, late(current, first)), Rejected)


def test_an_update_counts_in_one_round_only(engine: RoundEngine) -> None:
    """A client that did not hear of its acceptance, or does not want to, sends it again."""
    first = str(engine.registry.newest_model())
    play(engine, "ac")
    current = engine.open(("a", "b", "c"))
    again = engine.receive(current, late(current, first))
    assert again == Rejected("this update went into an earlier round")


def test_an_update_of_an_abandoned_round_may_come_again(engine: RoundEngine) -> None:
    first = str(engine.registry.newest_model())
    current = engine.open(("a", "b", "c"))
    engine.receive(current, honest_reply(current.expectation, "c"))
    engine.registry.abandon_round(current.row.id, "test")
    play(engine)
    current = engine.open(("a", "b", "c"))
    assert isinstance(engine.receive(current, late(current, first)), Accepted)


def test_the_same_accepted_set_gives_the_same_bits_in_any_order(tmp_path: Path) -> None:
    found = set()
    for order in ("fresh first", "stale first"):
        engine = first_k_engine(tmp_path / order)
        first = str(engine.registry.newest_model())
        play(engine)
        current = engine.open(("a", "b", "c"))
        replies = [honest_reply(current.expectation, "a"), late(current, first)]
        for reply in replies if order == "fresh first" else replies[::-1]:
            assert isinstance(engine.receive(current, reply), Accepted)
        resumed = engine.resume()
        assert resumed is not None
        found.add(tensors_sha256(engine.artifacts.get(str(engine.finish(resumed)))[0]))
        engine.registry.engine.dispose()
    assert len(found) == 1


def test_a_client_that_came_too_late_is_not_told_to_drop_its_update(engine: RoundEngine) -> None:
    current = engine.open(("a", "b", "c"))
    kept = str(honest_reply(current.expectation, "c").meta["update_id"])
    engine.registry.abandon_round(current.row.id, "test")
    play(engine)
    assert news_for(engine.registry, CheckIn("c", 10, (kept,))) == News()
    current = engine.open(("a", "b", "c"))
    engine.receive(current, honest_reply(current.expectation, "c", scale=float("nan")))
    assert news_for(engine.registry, CheckIn("c", 10, (kept,))) == News(dropped=(kept,))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"first_k": -1}, "first_k"),
        ({"first_k": 2, "max_staleness": -1}, "max_staleness"),
        ({"first_k": 2, "max_staleness": MAX_OUTBOX + 1}, "max_staleness"),
        ({"first_k": 4, "rule": "krum"}, "krum needs at least 5"),
        ({"first_k": 2, "private": PrivateMode(0.1, 1.0, 4, 1e-5, 20.0)}, "first replies"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        RoundSettings(FineTuneSettings(), **changes)  # type: ignore[arg-type]
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"first_k": 2, "over_select": 1.5},
        {"first_k": 4, "cohort": "3"},
        {"first_k": 2, "private": True},
        {"first_k": 1, "rule": "median"},
        {"first_k": -2},
        {"staleness_exponent": -0.5},
    ],
)
def test_settings_of_a_server_that_cannot_be_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(SettingsError) as caught:
        ServerSettings(**changes)  # type: ignore[arg-type]
    assert len(caught.value.faults) == 1
    found = ServerSettings(first_k=3, max_staleness=5, staleness_exponent=1.0, max_examples=7, max_gate_mass=2.0)
    assert (found.round_settings.first_k, found.round_settings.max_staleness) == (3, 5)
    assert (found.rule_settings.staleness_exponent, found.rule_settings.max_examples) == (1.0, 7)
    assert found.rule_settings.max_gate_mass == 2.0


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({}, 0),
        ({"check_in_s": 60.0}, 2),
        ({"check_in_s": 60.0, "min_clients": 3}, 3),
        ({"check_in_s": 60.0, "cohort": "5"}, 5),
        ({"check_in_s": 60.0, "rule": "krum"}, 5),
        ({"check_in_s": 60.0, "first_k": 0}, 0),
        ({"check_in_s": 60.0, "first_k": 4}, 4),
        ({"check_in_s": 60.0, "over_select": 2.0}, 0),
        ({"check_in_s": 60.0, "private": True}, 0),
        ({"first_k": 3}, 3),
    ],
)
def test_where_wearables_sleep_the_first_replies_close_a_round_unless_it_is_said(
    changes: dict[str, object], first: int
) -> None:
    assert ServerSettings(**changes).round_settings.first_k == first  # type: ignore[arg-type]
