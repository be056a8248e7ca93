"""Rounds whose server has an optimiser: which moments a round goes on with, and where they are kept."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from toy_fleet import CARD, enlist, honest_reply, toy_engine, toy_model

from mcoe_model.errors import DataMissing, ModelInvalid
from mcoe_model.model_file import Tensors, tensors_sha256
from server.aggregation.optimiser import OptimiserName, OptimiserSettings, step
from server.backup import backup
from server.doctor import CHECKS, Finding, Premises, examine
from server.registry.models import HELD, RELEASED
from server.rounds import RoundEngine


@pytest.fixture(params=["fedavgm", "fedadam"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RoundEngine]:
    made = toy_engine(tmp_path)
    made.settings = replace(made.settings, optimiser=OptimiserSettings(request.param), keep_updates=True)
    enlist(made, *"abc")
    yield made
    made.registry.engine.dispose()


def play(engine: RoundEngine) -> str:
    current = engine.open(("a", "b", "c"))
    for client in "abc":
        engine.receive(current, honest_reply(current.expectation, client))
    made = engine.finish(current)
    assert made is not None
    return made


def expected(engine: RoundEngine, base: Tensors, moments: Tensors, made: str) -> Tensors:
    """What the newest round must have made from this base and these moments, and that it did; returns its moments."""
    number = engine.registry.last_published()
    plain = toy_engine(engine.spool.parent / f"plain {number}")
    plain.artifacts.folder = engine.artifacts.folder
    plain.registry.import_model(engine.artifacts.put(base, CARD), CARD.generation.id)
    enlist(plain, *"abc")
    for _ in range(number - 1):  # the toy's updates differ by round
        plain.registry.publish_round(plain.registry.open_round("b" * 64, (), {}, None).id, "b" * 64, "g", "held")
    aggregated, _ = plain.artifacts.get(play(plain))
    plain.registry.engine.dispose()
    tensors, after = step(base, aggregated, moments, engine.settings.optimiser)
    assert tensors_sha256(engine.artifacts.get(made)[0]) == tensors_sha256(tensors)
    assert moments_of(engine, made) == tensors_sha256(after)
    return after


def moments_of(engine: RoundEngine, sha256: str) -> str:
    """A hash of the moments that a model's row names."""
    named = engine.registry.model(sha256).moments_sha256
    assert named is not None
    moments, optimiser = engine.artifacts.get_moments(named)
    assert optimiser == engine.settings.optimiser.name
    return tensors_sha256(moments)


def test_each_round_goes_on_with_the_moments_of_its_base(engine: RoundEngine) -> None:
    base, moments = toy_model(), dict[str, object]()
    for _ in range(3):
        made = play(engine)
        moments = expected(engine, base, moments, made)  # type: ignore[arg-type, assignment]
        base, _ = engine.artifacts.get(made)


def test_a_rolled_back_lineage_goes_on_with_the_moments_of_its_version(engine: RoundEngine) -> None:
    first = play(engine)
    moments, _ = engine.artifacts.get_moments(str(engine.registry.model(first).moments_sha256))
    play(engine)
    engine.registry.release_again(2)
    expected(engine, engine.artifacts.get(first)[0], moments, play(engine))


def test_an_imported_model_has_no_moments(engine: RoundEngine) -> None:
    play(engine)
    engine.registry.import_model(engine.artifacts.put(toy_model(seed=3), CARD), CARD.generation.id)
    expected(engine, toy_model(seed=3), {}, play(engine))


def test_after_a_model_that_was_held_back_the_optimiser_begins_anew(engine: RoundEngine) -> None:
    first = play(engine)
    engine.new_state = HELD
    held = play(engine)
    engine.new_state = RELEASED
    made = play(engine)
    after = expected(engine, engine.artifacts.get(first)[0], {}, made)
    assert moments_of(engine, held) != tensors_sha256(after)
    base, _ = engine.artifacts.get(made)
    expected(engine, base, after, play(engine))


def test_a_held_model_that_is_promoted_brings_its_own_moments(engine: RoundEngine) -> None:
    play(engine)
    engine.new_state = HELD
    held = play(engine)
    engine.new_state = RELEASED
    moments, _ = engine.artifacts.get_moments(str(engine.registry.model(held).moments_sha256))
    engine.registry.set_model_state(held, "released")
    expected(engine, engine.artifacts.get(held)[0], moments, play(engine))


def test_another_optimisers_moments_are_not_taken(engine: RoundEngine) -> None:
    base, _ = engine.artifacts.get(play(engine))
    other: OptimiserName = "fedadam" if engine.settings.optimiser.name == "fedavgm" else "fedavgm"
    engine.settings = replace(engine.settings, optimiser=OptimiserSettings(other))
    expected(engine, base, {}, play(engine))


def test_a_round_is_replayed_with_the_moments_it_began_with(engine: RoundEngine) -> None:
    published = [play(engine), play(engine)]
    engine.registry.set_model_state(play(engine), "held")  # changes what a next round would begin with
    for number, sha256 in enumerate(published, 1):
        assert engine.replay(number) == (sha256, sha256)


def test_no_optimiser_leaves_no_moments(tmp_path: Path) -> None:
    engine = toy_engine(tmp_path)
    enlist(engine, *"abc")
    assert engine.registry.model(play(engine)).moments_sha256 is None
    assert len(list(engine.artifacts.folder.iterdir())) == 2
    engine.registry.engine.dispose()


def test_moments_that_are_gone_or_damaged_are_named(engine: RoundEngine) -> None:
    path = engine.artifacts.path(str(engine.registry.model(play(engine)).moments_sha256))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ModelInvalid, match=path.name):
        engine.open(("a",))
    path.unlink()
    with pytest.raises(DataMissing, match=path.name):
        engine.open(("a",))


def findings(engine: RoundEngine) -> list[Finding]:
    """What the doctor says of models, moments and spool."""
    now = datetime.datetime.now(datetime.UTC)
    premises = Premises(engine.registry.engine, engine.artifacts.folder, {"toy": engine.spool}, now, disk_floor=0)
    return [found for found in examine(premises, CHECKS[1:3]) if "round" not in found.what]


def test_the_doctor_knows_moments_and_finds_those_that_no_model_names(engine: RoundEngine) -> None:
    path = engine.artifacts.path(str(engine.registry.model(play(engine)).moments_sha256))
    assert findings(engine) == []
    orphan = engine.artifacts.put_moments(toy_model(seed=9), "fedadam")
    assert [orphan in found.what for found in findings(engine)] == [True]
    engine.artifacts.path(orphan).unlink()
    path.unlink()
    (found,) = findings(engine)
    assert found.severity == "error" and "moments of version 2" in found.what


def test_a_backup_holds_the_moments(engine: RoundEngine, tmp_path: Path) -> None:
    name = engine.artifacts.path(str(engine.registry.model(play(engine)).moments_sha256)).name
    backup(str(engine.registry.engine.url), engine.artifacts.folder, tmp_path / "copy")
    assert (tmp_path / "copy" / "models" / name).is_file()
