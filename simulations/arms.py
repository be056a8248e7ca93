"""The arms a federated run is compared with, and the evaluation of all of them. Each function can run in a worker.

An arm is finished when its file is there, so a run that was killed goes on with the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from mcoe_model.files import atomic_write, write_bytes
from mcoe_model.learning.checkpoint import Checkpoint
from mcoe_model.learning.evaluate import Predictions, evaluate
from mcoe_model.learning.fine_tune import Epoch, fine_tune
from mcoe_model.learning.samples import PictureSamples
from mcoe_model.learning.settings import FineTuneSettings, Recipe
from mcoe_model.learning.weights import backbone_sha256, load_model, tensors_of
from mcoe_model.model_file import Generation, ModelCard, file_sha256, read_model, write_model
from mcoe_model.networks import McoeConfig, Network, build, config_of, picture_encoder
from mcoe_model.networks.resnet import ResNet, load_imagenet
from mcoe_model.progress import Progress, silent
from server.cohort import cohort_size
from simulations.scene import Scene, open_scene
from simulations.settings import SimulationSettings

#: The two forms of centralised fine-tuning at equal presentations: the clients' batch size, and batch x cohort.
CENTRALISED = ("centralised", "centralised-large-batch")
#: The parts that everything that learns from all data in one place learns from.
ALL_DATA = ("base", "clients")
#: The origin of a model of random weights, on its card.
UNTRAINED = "untrained"


def presentations(settings: SimulationSettings, clients: int) -> int:
    """Epochs over the clients' clips that show as many samples as all rounds of a federated run do."""
    return max(1, round(_epochs_of_rounds(settings, clients)))


def presentations_of_all(settings: SimulationSettings, clients: int, base_clips: int, client_clips: int) -> int:
    """Epochs over base and clients' clips together that show as many samples as base training and all rounds do.

    A base from a checkpoint counts as trained here: what it was shown is not known.
    """
    base = 0 if settings.base == "scratch" else settings.base_recipe.training.epochs * base_clips
    shown = base + _epochs_of_rounds(settings, clients) * client_clips
    return max(1, round(shown / (base_clips + client_clips)))


def _epochs_of_rounds(settings: SimulationSettings, clients: int) -> float:
    return settings.rounds * settings.local_epochs * cohort_size(settings.cohort, clients) / clients


def train_base(folder: Path, progress: Progress = silent) -> None:
    """The base model: trained on the base subjects, random weights, or a checkpoint that was given."""
    scene = open_scene(folder)
    if scene.settings.base == "scratch":
        _write(scene, "base", fresh_model(scene.settings, quiet=True), UNTRAINED, {})
    elif scene.settings.base == "train":
        _from_scratch(scene, "base", ("base",), scene.settings.base_recipe, progress)
    else:
        write_model(scene.paths.base, *read_model(Path(scene.settings.base)))


def train_all_data(folder: Path, progress: Progress = silent) -> None:
    """All data in one place: from scratch on base and clients together, as long as base and rounds take together."""
    scene = open_scene(folder)
    clips = (len(scene.indices(part)) for part in ALL_DATA)
    epochs = presentations_of_all(scene.settings, len(scene.subjects("clients")), *clips)
    recipe = scene.settings.base_recipe
    recipe = replace(recipe, training=replace(recipe.training, epochs=epochs))
    _from_scratch(scene, "all_data", ALL_DATA, recipe, progress)


def train_by_recipe(folder: Path, progress: Progress = silent) -> None:
    """A model of its own, from scratch on base and clients together, with the recipe of its preset."""
    scene = open_scene(folder)
    _from_scratch(scene, "all_data", ALL_DATA, scene.settings.base_recipe, progress)


def train_centralised(folder: Path, arm: str, progress: Progress = silent) -> None:
    """From the base on all clients' clips together, at the federated run's presentations (one of CENTRALISED)."""
    scene = open_scene(folder)
    clients = len(scene.subjects("clients"))
    recipe = replace(
        scene.client_recipe("centralised"),
        epochs=presentations(scene.settings, clients),
        schedule=scene.settings.schedule,
    )
    if arm == "centralised-large-batch":
        cohort = cohort_size(scene.settings.cohort, clients)
        recipe = replace(recipe, batch_size=min(4096, recipe.batch_size * cohort))
    model, card = load_model(scene.paths.base)
    _fine_tune(scene, arm, model, card, scene.indices("clients"), recipe, progress)
    _write(scene, arm, model, "centralised fine-tuning", {"part": "clients"}, card)


def evaluate_local(folder: Path, subject: str, part: str, progress: Progress = silent) -> None:
    """One client alone: from the base on its own clips, at its presentations in the run; evaluated, not kept."""
    scene = open_scene(folder)
    name = f"local-{subject}"
    epochs = presentations(scene.settings, len(scene.subjects("clients")))
    model, card = load_model(scene.paths.base)
    recipe = replace(scene.client_recipe("local"), epochs=epochs, schedule=scene.settings.schedule)
    _fine_tune(scene, name, model, card, scene.indices("clients", subject), recipe, progress)
    _predict(scene, name, part, model, card)


def evaluate_model(folder: Path, name: str, part: str, path: Path, progress: Progress = silent) -> None:
    """What the model in a file says of a part of the run's clips."""
    scene = open_scene(folder)
    model, card = load_model(path)
    _predict(scene, name, part, model, card)


def read_predictions(path: Path) -> Predictions:
    """The predictions that were written for an arm and a part."""
    with np.load(path, allow_pickle=False) as stored:
        return Predictions(
            tuple(str(name) for name in stored["names"]),
            *(stored[key] for key in ("labels", "clip", "window", "probability", "logits", "chosen")),
        )


def fresh_model(settings: SimulationSettings, *, quiet: bool = False) -> Network:
    """Random weights of the run's seed, with ImageNet's in the backbones where the settings name a file.

    Raises as `load_imagenet`, which says what the file lacks unless ``quiet``.
    """
    model = build(settings.preset, seed=settings.seed, size=settings.picture_size)
    if settings.imagenet:
        backbones = picture_encoder(model).backbones.values()
        load_imagenet((cast(ResNet, backbone) for backbone in backbones), Path(settings.imagenet), quiet=quiet)
    return model


def unlike_published(settings: SimulationSettings) -> str | None:
    """One line for a run that begins MCO-E Net from random weights, where the publication begins from ImageNet's.

    Where these fit (`mcoe`, `mcoe-edge`) it is said under every protocol; the smaller presets cannot have them, and of
    those it is said where the published training is asked for. None for any other run.
    """
    config = config_of(settings.preset)
    if not isinstance(config, McoeConfig) or settings.imagenet or settings.base not in ("train", "scratch"):
        return None
    resnet_18 = config.norm == "batch" and (config.width, config.blocks) == (64, (2, 2, 2, 2))
    if not resnet_18 and settings.protocol != "published":
        return None
    why = "there is no --imagenet FILE" if resnet_18 else "these do not fit it"
    return (
        f"MCO-E Net as published starts from ImageNet's weights, {settings.preset} here from random ones, since {why}: "
        "do not expect the published figures."
    )


def _from_scratch(scene: Scene, arm: str, parts: tuple[str, ...], recipe: Recipe, progress: Progress) -> None:
    model = fresh_model(scene.settings, quiet=True)
    indices = tuple(sorted(index for part in parts for index in scene.indices(part)))
    samples = PictureSamples(scene.clips, indices, scene.normalisation())
    fine_tune(
        model,
        samples,
        recipe.training,
        train_mode="full",
        optimiser=recipe.optimiser,
        decay=recipe.decay,
        keys=(scene.settings.seed, arm),
        checkpoint=Checkpoint(scene.paths.checkpoint(arm)),
        progress=progress,
        on_epoch=_curve(scene, arm),
    )
    _write(scene, arm, model, "trained from scratch", {"part": " + ".join(parts)})


def _fine_tune(
    scene: Scene,
    arm: str,
    model: Network,
    card: ModelCard,
    indices: tuple[int, ...],
    recipe: FineTuneSettings,
    progress: Progress,
) -> None:
    fine_tune(
        model,
        scene.training_samples(model, card, indices),
        recipe,
        train_mode=scene.settings.train,
        keys=(scene.settings.seed, arm),
        checkpoint=Checkpoint(scene.paths.checkpoint(arm)),
        progress=progress,
        on_epoch=_curve(scene, arm),
    )


def _curve(scene: Scene, arm: str) -> Callable[[Epoch], None]:
    """Keeps an arm's training curve as CSV; epochs that a resumed run repeats replace what was there."""
    path = scene.paths.curve(arm)

    def keep(epoch: Epoch) -> None:
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        lines = [line for line in lines if int(line.split(",")[0]) < epoch.number]
        rows = ["epoch,loss,accuracy", *lines, f"{epoch.number},{epoch.loss},{epoch.accuracy}"]
        write_bytes(path, ("\n".join(rows) + "\n").encode())

    return keep


def _write(
    scene: Scene, arm: str, model: Network, origin: str, trained_on: dict[str, str], parent: ModelCard | None = None
) -> None:
    """Write an arm's model with its card; a child keeps its parent's generation.

    The card of one from scratch says how its beginning is unlike the publication's.
    """
    tensors = tensors_of(model)
    trained_on = {"data": scene.settings.data or "synthetic", "test_sha256": scene.parts.test_sha256, **trained_on}
    if parent is not None:
        card = parent.child_of(file_sha256(scene.paths.base), origin, trained_on)
    else:
        generation = Generation(
            scene.settings.preset,
            backbone_sha256(tensors),
            scene.settings.picture_size,
            scene.normalisation(),
            top_k=model.config.top_k,
            representation=scene.clips.representation,
        )
        caution = unlike_published(scene.settings)
        card = ModelCard(generation, origin, trained_on=trained_on | ({"unlike_published": caution} if caution else {}))
    write_model(scene.paths.arm(arm), tensors, card)


def _predict(scene: Scene, name: str, part: str, model: Network, card: ModelCard) -> None:
    said = evaluate(model, scene.evaluation_samples(model, card, scene.indices(part)))
    with atomic_write(scene.paths.predictions(name, part)) as file:
        np.savez(
            file,
            names=np.array(said.names),
            subjects=np.array([scene.clips.records[index].subject for index in scene.indices(part)]),
            labels=said.labels,
            clip=said.clip,
            window=said.window,
            probability=said.probability,
            logits=said.logits,
            chosen=said.chosen,
        )
