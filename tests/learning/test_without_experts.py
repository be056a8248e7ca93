"""A model of whole windows, without experts and without features of single pictures, learns as every other does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client.learner import check_in, learn
from mcoe_model.data.cache import Clips
from mcoe_model.errors import ModelInvalid
from mcoe_model.learning.checkpoint import Checkpoint
from mcoe_model.learning.evaluate import evaluate
from mcoe_model.learning.features import every_clip, fixed_samples, frozen_samples
from mcoe_model.learning.fine_tune import fine_tune, measure
from mcoe_model.learning.samples import PictureSamples, Samples, measure_normalisation
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.learning.weights import backbone_sha256, can_build, can_recognise, model_of, tensors_of
from mcoe_model.model_file import Generation, ModelCard, Normalisation
from mcoe_model.networks import PRESETS, Network, build, picture_encoder
from mcoe_model.networks.seen import SeenConfig
from mcoe_model.protocol import CheckIn
from mcoe_model.tensors import Payload
from mcoe_model.update import TRAIN_MODES, TrainMode, is_head
from server.acceptance import Accepted, Reply
from server.registry import Registry
from server.registry.artifacts import Artifacts
from server.registry.database import open_database, sqlite_url
from server.rounds import RoundEngine, RoundSettings

SMALL = SeenConfig("seen-small", steps=3, skip=1, input_size=32)
SETTINGS = FineTuneSettings(epochs=2, batch_size=8, learning_rate=1e-3, batch_norm="running", balance=0.01)


@pytest.fixture(autouse=True)
def preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "seen-small", SMALL)


@pytest.fixture(scope="module")
def normalisation(clips: Clips) -> Normalisation:
    return measure_normalisation(clips, range(len(clips.records)))


def card_of(model: Network, normalisation: Normalisation) -> ModelCard:
    generation = Generation("seen-small", backbone_sha256(tensors_of(model)), 32, normalisation, top_k=0)
    return ModelCard(generation, "test")


def all_of(clips: Clips, normalisation: Normalisation) -> PictureSamples:
    return PictureSamples(clips, tuple(range(len(clips.records))), normalisation)


def test_it_is_shown_its_own_pictures_of_a_window(clips: Clips, normalisation: Normalisation) -> None:
    """The first and the last frame, and every event picture, in their order."""
    seen = []

    class Watched(type(build("seen-small"))):  # type: ignore[misc]
        def features(self, frame: object, event: object) -> object:
            seen.append((frame, event))
            return ()

    window = SMALL.sampling.law(clips.n_frames(3)).windows[1]
    all_of(clips, normalisation).head_inputs(Watched(SMALL), [3], window[None], None)
    frames, events = (np.asarray(pictures, np.float32) / 255 for pictures in clips.pictures(3))
    [(frame, event)] = seen
    n = normalisation
    np.testing.assert_allclose(frame[0], (frames[window[[0, 2]]] - n.frame_mean) / n.frame_sd, rtol=0, atol=1e-4)
    np.testing.assert_allclose(event[0], (events[window] - n.event_mean) / n.event_sd, rtol=0, atol=1e-4)


def test_it_learns_with_either_optimiser(clips: Clips, normalisation: Normalisation) -> None:
    samples = PictureSamples(clips, tuple(range(8)), normalisation)
    for optimiser, rate in (("sgd", 0.05), ("adamw", 2e-3)):
        model, curve = build("seen-small", seed=1), []
        settings = replace(SETTINGS, epochs=8, batch_size=4, learning_rate=rate)
        used = fine_tune(
            model, samples, settings, train_mode="full", keys=(0,), optimiser=optimiser, on_epoch=curve.append  # type: ignore[arg-type]
        )  # fmt: skip
        assert used == ()
        assert curve[-1].loss < 0.9 * curve[0].loss, optimiser


def test_the_published_descent_is_the_releases(
    clips: Clips, normalisation: Normalisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class Watched(torch.optim.SGD):
        def __init__(self, *parameters: Any, **settings: Any) -> None:
            super().__init__(*parameters, **settings)
            made.append(self.defaults)

    monkeypatch.setattr(torch.optim, "SGD", Watched)
    recipe, samples = SMALL.published_recipe, PictureSamples(clips, (0, 1), normalisation)
    training = replace(recipe.training, epochs=1)
    fine_tune(
        build("seen-small", seed=1), samples, training, train_mode="full", keys=(0,), optimiser=recipe.optimiser
    )
    [found] = made
    names = ("lr", "momentum", "dampening", "weight_decay", "nesterov")
    assert [found[name] for name in names] == [0.015, 0.9, 0, 1e-3, False]


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_training_goes_on_from_a_checkpoint_with_the_same_bits(
    optimiser: str, clips: Clips, normalisation: Normalisation, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    def stop(_: object) -> None:
        raise Stop

    def train(**more: object) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
        model = build("seen-small", seed=1)
        fine_tune(model, samples, SETTINGS, train_mode="full", keys=(0,), optimiser=optimiser, **more)  # type: ignore[arg-type]
        return tensors_of(model)

    samples = PictureSamples(clips, tuple(range(9)), normalisation)  # the last batch has one clip
    whole = train()
    path, seen = tmp_path / "checkpoint", list[object]()

    def stop_in_the_second(epoch: object) -> None:
        seen.append(epoch)
        if len(seen) == 2:
            raise Stop

    with pytest.raises(Stop):
        train(checkpoint=Checkpoint(path, interval=0), on_epoch=stop_in_the_second)
    resumed = train(checkpoint=Checkpoint(path, interval=0), on_epoch=seen.append)
    assert len(seen) == 3
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)


def test_the_head_is_what_comes_after_its_convolutions(clips: Clips, normalisation: Normalisation) -> None:
    model = build("seen-small", seed=1)
    before = tensors_of(model)
    samples = frozen_samples(model, card_of(model, normalisation).generation, clips, range(8), Path("nowhere"))
    fine_tune(model, samples, replace(SETTINGS, batch_norm="frozen"), train_mode="head", keys=(0,))
    changed = {name for name, value in tensors_of(model).items() if not np.array_equal(value, before[name])}
    assert changed == {f"{layer}.{kind}" for layer in ("hidden", "classifier") for kind in ("weight", "bias")}
    assert all(map(is_head, changed)) and not Path("nowhere").exists()


def test_it_is_evaluated_over_its_own_windows(clips: Clips, normalisation: Normalisation, tmp_path: Path) -> None:
    model = build("seen-small", seed=1).eval()
    card = card_of(model, normalisation)
    assert every_clip(model, card, clips, tmp_path) == all_of(clips, normalisation)
    said = evaluate(model, fixed_samples(model, card.generation, clips, [0, 2]))
    laws = [SMALL.sampling.law(clips.n_frames(clip)) for clip in (0, 2)]
    assert [tuple(window) for window in said.window] == [(w[0], w[-1]) for law in laws for w in law.windows]
    assert said.chosen.shape == (len(said.logits), 0)
    np.testing.assert_allclose(said.predicted().sum(axis=1), 1)
    alone = evaluate(model, fixed_samples(model, card.generation, clips, [2]))
    np.testing.assert_array_equal(alone.logits, said.logits[said.clip == 1])
    once = said.random_pass(SMALL.sampling, 0, 1, (clips.n_frames(0), clips.n_frames(2)))
    assert once.sum(axis=1).tolist() == [1, 1]


def test_what_needs_single_pictures_refuses_it() -> None:
    with pytest.raises(ModelInvalid, match="seen-small has no features of single pictures"):
        picture_encoder(build("seen-small"))


def test_a_camera_needs_a_model_of_single_pictures(normalisation: Normalisation) -> None:
    small = card_of(build("seen-small", seed=1), normalisation).generation
    assert can_build(small) and not can_recognise(small)
    assert can_recognise(replace(small, preset="mcoe-edge", top_k=2))


@dataclass
class Wearer:
    """A client whose clips are pictures."""

    client_id: str
    resident: Network
    card: ModelCard
    clips: PictureSamples
    learns: tuple[TrainMode, ...] = TRAIN_MODES

    def clip_names(self) -> tuple[str, ...]:
        return self.clips.names

    def model(self) -> tuple[Network, ModelCard]:
        return self.resident, self.card

    def samples(self, model: Network, train_mode: TrainMode) -> Samples:
        return self.clips

    def method(self) -> None:
        """Nothing is remembered."""

    def tried(self, model: Network, train_mode: TrainMode) -> Samples:
        return self.clips


@pytest.mark.parametrize("train_mode", TRAIN_MODES)
def test_a_federated_round_without_experts(
    train_mode: TrainMode, clips: Clips, normalisation: Normalisation, tmp_path: Path
) -> None:
    model = build("seen-small", seed=1)
    tensors, card = tensors_of(model), card_of(model, normalisation)
    assert can_build(card.generation)
    wearers = [
        Wearer(name, build("seen-small", seed=2 + i), card, PictureSamples(clips, (3 * i, 3 * i + 1), normalisation))
        for i, name in enumerate("ab")
    ]
    registry = Registry(open_database(sqlite_url(tmp_path / "registry.sqlite")), "test")
    settings = RoundSettings(FineTuneSettings(learning_rate=1e-3), train_mode)
    engine = RoundEngine(registry, Artifacts(tmp_path / "models"), tmp_path / "spool", settings)
    base = engine.start_from(tensors, card)
    for number in (1, 2):
        for wearer in wearers:
            if train_mode == "head":  # the convolutions are those of the generation
                wearer.resident = model_of(tensors, card, tmp_path)
            registry.saw(CheckIn.from_record(check_in(wearer).to_record()))
        current = engine.open(("a", "b"))
        assert current.task.expert_load == () and current.expectation.experts == current.expectation.top_k == 0
        for wearer in wearers:
            learned = learn(wearer, current.task, Payload.of(current.payload))
            reply = Reply(wearer.client_id, learned.update, learned.meta.to_record(), learned.report.to_record())
            assert isinstance(engine.receive(current, reply), Accepted)
        sha256 = engine.finish(current)
        assert sha256 is not None and sha256 != base
        assert registry.router_statistics(registry.rounds()[number - 1].id) == {}
    trained, trained_card = engine.artifacts.get(str(registry.newest_model()))
    moved = {name for name in tensors if not np.array_equal(trained[name], tensors[name])}
    assert "hidden.weight" in moved and ("backbones.mix.weight" in moved) == (train_mode == "full")
    assert measure(model_of(trained, trained_card, tmp_path), wearers[0].clips).router.routed == ()
    registry.engine.dispose()
