"""Rounds with differential privacy: what they demand, hide, spend and leave behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy import select
from sqlalchemy.orm import Session
from toy_fleet import EXPERTS, enlist, honest_reply, toy_engine, toy_model

from mcoe_model.errors import SettingsError
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.update import block_norms
from server.acceptance import Accepted, Rejected
from server.aggregation.optimiser import OptimiserSettings
from server.privacy_accounting import epsilon, rounds_left
from server.private_mode import PrivateMode
from server.registry.tables import Reply, RouterRow
from server.rounds import RoundEngine, RoundSettings

if find_spec("dp_accounting") is None:
    pytest.skip("dp-accounting is not installed: pip install 'mcoe[server]'", allow_module_level=True)

MODE = PrivateMode(clip=0.1, noise_multiplier=1.0, denominator=4, delta=1e-5, epsilon_cap=20.0)
ALL = tuple(range(EXPERTS))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[RoundEngine]:
    made = private_engine(tmp_path)
    yield made
    made.registry.engine.dispose()


def private_engine(folder: Path, secret: bytes = b"0123456789abcdef", **change: Any) -> RoundEngine:
    made = toy_engine(folder)
    made.settings = replace(made.settings, private=replace(MODE, **change))
    made.secret = secret
    made.registry.private = True
    enlist(made, *"abc")
    return made


def play(engine: RoundEngine, scale: float = 0.01) -> str:
    current = engine.open(("a", "b", "c"))
    for client in "abc":
        reply = honest_reply(current.expectation, client, experts=ALL, scale=scale)
        assert isinstance(engine.receive(current, reply), Accepted)
    return str(engine.finish(current))


def moved(engine: RoundEngine, sha256: str) -> dict[str, Any]:
    tensors, _ = engine.artifacts.get(sha256)
    base = toy_model()
    changed = [name for name in base if not np.array_equal(tensors[name], base[name])]
    return {name: tensors[name].astype(float) - base[name] for name in changed}


def test_a_task_asks_for_all_experts_and_tells_nothing_of_the_cohort(engine: RoundEngine) -> None:
    play(engine)
    second = engine.open(("a", "b", "c"))
    assert second.task.all_experts and second.task.expert_load == () and second.row.norm_bound is None
    absent = engine.receive(second, honest_reply(second.expectation, "a", experts=(0, 2)))
    assert isinstance(absent, Rejected) and "asks for all" in absent.reason


def test_a_long_update_is_clipped_and_what_is_published_is_noise_and_clips(engine: RoundEngine) -> None:
    delta = moved(engine, play(engine, scale=50.0))
    values = np.concatenate([np.ravel(value) for value in delta.values()])
    assert block_norms({name: np.asarray(value) for name, value in delta.items()})  # every expert moved
    bound = 3 * MODE.clip / MODE.denominator + 6 * MODE.rule_settings.noise * np.sqrt(values.size)
    assert np.linalg.norm(values) < bound


def test_another_secret_gives_other_noise_and_the_same_the_same(tmp_path: Path) -> None:
    found = [play(private_engine(tmp_path / str(index), secret)) for index, secret in enumerate([b"a" * 16, b"b" * 16])]
    again = play(private_engine(tmp_path / "again", b"a" * 16))
    assert found[0] != found[1] and found[0] == again


def test_nothing_of_a_client_is_kept_beyond_its_round_but_its_budget(engine: RoundEngine) -> None:
    play(engine)
    with Session(engine.registry.engine) as session:
        assert list(session.scalars(select(RouterRow))) == []
        replies = list(session.scalars(select(Reply)))
    for reply in replies:
        assert reply.accepted
        assert {reply.examples, reply.loss_before, reply.loss_after, reply.norm, reply.seconds} == {None}
    assert not list(engine.spool.glob("round-*"))


def test_epsilon_is_spent_once_per_round_and_ends_at_the_cap(tmp_path: Path) -> None:
    engine = private_engine(tmp_path, epsilon_cap=9.0)
    allowed = rounds_left(MODE.noise_multiplier, 9.0, MODE.delta)
    assert allowed >= 2
    for number in range(1, allowed + 1):
        assert engine.eligible(["a"]) == ["a"]
        play(engine)
        spent = engine.registry.spent("a")
        assert (spent.rounds, spent.epsilon) == (number, epsilon(MODE.noise_multiplier, number, MODE.delta))
    assert engine.eligible(["a"]) == []
    enlist(engine, "new")
    assert engine.eligible(["new"]) == ["new"]


def test_a_look_at_a_hundred_budgets_is_one_query(tmp_path: Path) -> None:
    engine = private_engine(tmp_path, epsilon_cap=epsilon(MODE.noise_multiplier, 1, MODE.delta))
    clients = [f"client {number}" for number in range(100)]
    enlist(engine, "a", "b", "c", *clients)
    play(engine)
    asked = list[str]()
    listen = (engine.registry.engine, "before_cursor_execute", lambda *event: asked.append(event[2]))
    sa.event.listen(*listen)
    assert engine.eligible(["a", "b", "c", *clients]) == sorted(clients)
    sa.event.remove(*listen)
    assert len([statement for statement in asked if "privacy_budget" in statement]) == 1


def test_a_round_that_is_finished_again_after_a_crash_costs_once(engine: RoundEngine) -> None:
    current = engine.open(("a", "b", "c"))
    for client in "abc":
        engine.receive(current, honest_reply(current.expectation, client, experts=ALL))
    engine.registry.close_round(current.row.id)
    assert engine.settings.private is not None
    engine.settings.private.spend(engine.registry, current.row, "abc")
    resumed = engine.resume()
    assert resumed is not None and engine.finish(resumed) is not None
    assert engine.registry.spent("a").rounds == 1


def test_an_optimiser_steps_along_what_was_noised(engine: RoundEngine, tmp_path: Path) -> None:
    """It sees nothing but the noised model: no further budget is spent."""
    noised, _ = engine.artifacts.get(play(engine))
    other = private_engine(tmp_path / "other", engine.secret)
    other.settings = replace(other.settings, optimiser=OptimiserSettings("fedavgm", learning_rate=0.5))
    stepped, _ = other.artifacts.get(play(other))
    base = toy_model()
    for name in ("projection.weight", "moe.experts.1.weight"):
        np.testing.assert_allclose(stepped[name] - base[name], 0.5 * (noised[name] - base[name]), rtol=1e-4, atol=1e-6)
    assert other.registry.spent("a") == engine.registry.spent("a")


def test_settings_that_would_make_epsilon_untrue_are_refused() -> None:
    with pytest.raises(SettingsError) as caught:
        PrivateMode(clip=0.0, noise_multiplier=-1.0, denominator=0, delta=2.0, epsilon_cap=float("inf"))
    assert len(caught.value.faults) == 5
    with pytest.raises(SettingsError, match="keep no updates"):
        RoundSettings(FineTuneSettings(), private=MODE, keep_updates=True)
