"""FLTrust in rounds: the server's own update is trained by a real process on real clips, once, and to the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_fleet import enlist, toy_engine

from mcoe_model.data.synthetic.settings import SyntheticSettings
from mcoe_model.data.synthetic.writer import write_see
from mcoe_model.errors import McoeError, SettingsError
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, Normalisation, Tensors, file_sha256
from mcoe_model.networks import build
from mcoe_model.protocol import TrainReport, TrainTask, UpdateMeta, update_id
from mcoe_model.router_statistics import RouterStatistics
from mcoe_model.update import TrainMode, expert_of
from server.acceptance import Accepted, Reply
from server.private_mode import PrivateMode
from server.registry import CLOSED, Registry
from server.registry.artifacts import Artifacts
from server.registry.database import open_database, sqlite_url
from server.rounds import RoundEngine, RoundInProgress, RoundSettings
from server.settings import ServerSettings
from server.spool import open_update
from server.trusted import REFERENCE, TrustedTrainer


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's clean clips: two subjects, 32 pixels."""
    folder = tmp_path_factory.mktemp("trusted") / "see"
    write_see(folder, SyntheticSettings(subjects=2, sequences=3, size=32, seed=7))
    return folder


def engine_on(folder: Path, clips: Path, train_mode: TrainMode = "head") -> RoundEngine:
    """An engine whose first model is a real network."""
    folder.mkdir(parents=True)
    tensors = tensors_of(build("mcoe-tiny", seed=1))
    generation = Generation("mcoe-tiny", backbone_sha256(tensors), 32, Normalisation(0.3, 0.2, 0.5, 0.1))
    settings = RoundSettings(
        FineTuneSettings(epochs=2, learning_rate=1e-3),
        train_mode,
        "fltrust",
        keep_updates=True,
        trusted_set=str(clips),
    )
    artifacts = Artifacts(folder / "models")
    registry = Registry(open_database(sqlite_url(folder / "registry.sqlite")), "trusted")
    trainer = TrustedTrainer(artifacts, folder.parent / "cache")
    made = RoundEngine(registry, artifacts, folder / "spool", settings, trainer=trainer)
    made.start_from(tensors, ModelCard(generation, "test"))
    enlist(made, *"ab")
    return made


@pytest.fixture
def engine(tmp_path: Path, clips: Path) -> Iterator[RoundEngine]:
    made = engine_on(tmp_path / "server", clips)
    yield made
    made.registry.engine.dispose()


def reply(current: RoundInProgress, client: str, update: Tensors) -> Reply:
    expected = current.expectation
    experts = tuple(sorted({e for e in map(expert_of, update) if e is not None}))
    meta = UpdateMeta(
        update_id(client, expected.base_sha256, ["clip"]),
        client,
        expected.round_number,
        expected.base_sha256,
        expected.generation,
        expected.train_mode,
        experts,
    )
    gate = np.full((6, expected.experts), 1 / expected.experts)
    router = RouterStatistics.count(gate, np.tile(np.arange(expected.top_k), (6, 1)))
    return Reply(client, update, meta.to_record(), TrainReport(6, 2.0, 1.0, 1.0, router).to_record())


def own_update(engine: RoundEngine, current: RoundInProgress, clips: Path, target: Path) -> Tensors:
    """What the server itself learns from its clips in this round."""
    assert engine.trainer is not None
    engine.trainer(current.task, clips, target / f"{REFERENCE}.safetensors")
    spooled = open_update(target, REFERENCE)
    update = {}
    for name in spooled.extents:
        spec = current.expectation.model[name]
        update[name] = np.empty(spec.size, np.float32)
        spooled.read([(name, 0, spec.size)], update[name])
        update[name] = update[name].reshape(spec.shape)
    return update


def test_clients_move_the_model_as_far_as_they_point_where_clean_clips_do(
    engine: RoundEngine, clips: Path, tmp_path: Path
) -> None:
    current = engine.open(("a", "b"))
    own = own_update(engine, current, clips, tmp_path / "own")
    assert any(np.abs(value).max() > 0 for value in own.values())
    honest = {name: 2 * value for name, value in own.items()}
    hostile = {name: -3 * value for name, value in own.items()}
    for client, update in (("a", honest), ("b", hostile)):
        assert isinstance(engine.receive(current, reply(current, client, update)), Accepted)
    made = str(engine.finish(current))
    base, _ = engine.artifacts.get(current.row.base_sha256)
    tensors, _ = engine.artifacts.get(made)
    for name, value in own.items():
        np.testing.assert_allclose(tensors[name], base[name] + value, rtol=1e-4, atol=1e-6, err_msg=name)
    spooled = engine.spool / current.row.spool_name / f"{REFERENCE}.safetensors"
    assert spooled.read_bytes() == (tmp_path / "own" / f"{REFERENCE}.safetensors").read_bytes()
    assert engine.replay(1) == (made, made)


def test_a_round_that_was_killed_around_its_reference_ends_with_the_same_bits(
    engine: RoundEngine, clips: Path, tmp_path: Path
) -> None:
    current = engine.open(("a", "b"))
    own = own_update(engine, current, clips, tmp_path / "own")
    for client in "ab":
        engine.receive(current, reply(current, client, {name: 2 * value for name, value in own.items()}))
    trainer, calls = TrustedTrainer(engine.artifacts, tmp_path / "cache"), []

    def killed(task: TrainTask, data: Path, target: Path) -> None:
        calls.append(target.exists())
        if len(calls) == 1:
            raise KeyboardInterrupt
        trainer(task, data, target)
        if len(calls) == 2:
            raise KeyboardInterrupt

    engine.trainer = killed
    for _ in range(2):
        resumed = engine.resume()
        assert resumed is not None
        with pytest.raises(KeyboardInterrupt):
            engine.finish(resumed)
        assert engine.registry.rounds()[0].state == CLOSED
    written = file_sha256(engine.spool / current.row.spool_name / f"{REFERENCE}.safetensors")
    resumed = engine.resume()
    assert resumed is not None and engine.finish(resumed) is not None
    assert calls == [False, False, True]
    assert written == file_sha256(tmp_path / "own" / f"{REFERENCE}.safetensors")


def test_clips_that_cannot_be_read_keep_the_round_until_they_are_mended(
    engine: RoundEngine, clips: Path, tmp_path: Path
) -> None:
    engine.settings = replace(engine.settings, trusted_set=str(tmp_path / "gone"))
    current = engine.open(("a", "b"))
    own = own_update(engine, current, clips, tmp_path / "own")
    for client in "ab":
        engine.receive(current, reply(current, client, own))
    with pytest.raises(McoeError, match="gone") as caught:
        engine.finish(current)
    assert "\n" not in str(caught.value)
    (tmp_path / "gone").symlink_to(clips)
    resumed = engine.resume()
    assert resumed is not None and resumed.row.state == CLOSED
    assert engine.finish(resumed) is not None


def test_whole_models_are_trained_too(tmp_path: Path, clips: Path) -> None:
    engine = engine_on(tmp_path / "server", clips, "full")
    own = own_update(engine, engine.open(("a", "b")), clips, tmp_path / "own")
    assert any(name.startswith("backbones.") and np.abs(value).max() > 0 for name, value in own.items())
    engine.registry.engine.dispose()


def test_without_clean_clips_the_rule_is_refused(tmp_path: Path) -> None:
    for refused in (lambda: RoundSettings(FineTuneSettings(), rule="fltrust"), lambda: ServerSettings(rule="fltrust")):
        with pytest.raises(SettingsError, match="trusted_set") as caught:
            refused()
        assert len(caught.value.faults) == 1
    assert ServerSettings(rule="fltrust", trusted_set=str(tmp_path)).trusted_set == str(tmp_path)
    with pytest.raises(SettingsError, match="no folder"):
        ServerSettings(rule="fltrust", trusted_set=str(tmp_path / "none"))


def test_private_rounds_do_not_compare_with_the_servers_own_update(tmp_path: Path) -> None:
    mode = PrivateMode(0.1, 1.0, 4, 1e-5, 20.0)
    with pytest.raises(SettingsError, match="cannot be private"):
        RoundSettings(FineTuneSettings(), rule="fltrust", trusted_set=str(tmp_path), private=mode)
    with pytest.raises(SettingsError, match="cannot be private"):
        ServerSettings(rule="fltrust", trusted_set=str(tmp_path), private=True)


def test_an_engine_that_cannot_train_says_so(tmp_path: Path) -> None:
    engine = toy_engine(tmp_path)
    enlist(engine, "a")
    engine.settings = replace(engine.settings, rule="fltrust", trusted_set=str(tmp_path))
    with pytest.raises(SettingsError, match="nothing here can train"):
        engine.open(("a",))
    assert engine.registry.rounds() == []
    engine.registry.engine.dispose()
