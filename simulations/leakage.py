"""What router statistics tell of a wearer: an attacker guesses a client's mix of emotions and its lighting from them.

The attacker runs the server, or has broken into it. He knows the models of all rounds, and people of his own: the
shadows, whose clips he can route with these models and train on as any client does (shadow training, Shokri et al.
2017, https://arxiv.org/abs/1610.05820, here for properties of a client's clips and not for membership). From each
person he makes many clients, who show emotions in different mixes; from what the server would see of those he learns a
linear guess, ridge regression on standardised features, and tries it on people he has never met, the victims.

Of several rounds he takes the statistics side by side, and of the updates the mean: what a client's mix does to them
stays from round to round, what chance does to them is less in a mean.

Letters: P people's clients (made up from their clips), E experts, R rounds seen, F features, c classes. A stronger
attacker may learn more: what these numbers show is what leaks at least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mcoe_model.learning.fine_tune import fine_tune, middle_window
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.learning.weights import copy_weights, load_model, model_specs, tensors_of
from mcoe_model.names import EMOTIONS, LIGHTINGS
from mcoe_model.router_statistics import RouterStatistics
from mcoe_model.streams import stream
from mcoe_model.update import expert_of, make_update, manifest
from mcoe_model.workers import one_thread
from server.registry import PUBLISHED
from server.registry.coarse import coarsen
from server.rounds import RoundSettings
from simulations.coordination import open_registry
from simulations.scene import Paths, Scene, open_scene

Floats = NDArray[np.float64]

#: Clients that are made of each person where nothing else is said, and clips that each of them learns in a round.
CLIENTS_OF_EACH = 20
CLIPS = 10
#: Dirichlet's alpha of a client's mix of emotions: below 1, few emotions prevail.
MIX = 0.5
#: Strengths of the ridge that the attacker tries on his own people.
RIDGES = (0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0)
#: Parts that the attacker's own people come from, and his victims.
SHADOWS, VICTIMS = ("base", "validation"), "clients"


@dataclass(frozen=True)
class Client:
    """A made-up client: whose clips it learns (positions in the data set) in each round, (R, CLIPS)."""

    subject: str
    clips: NDArray[np.int64]

    def mix(self, labels: Mapping[int, int], rounds: int) -> Floats:
        """(c,) the share of each emotion in the clips of the first rounds."""
        shown = [labels[int(clip)] for clip in self.clips[:rounds].reshape(-1)]
        return np.bincount(shown, minlength=len(EMOTIONS)) / len(shown)


def make_clients(folder: Path, parts: Iterable[str], rounds: int, each: int = CLIENTS_OF_EACH) -> list[Client]:
    """So many clients of every subject of these parts, each with a mix of emotions that stays for all rounds.

    A clip may be drawn again: a subject has few of an emotion.
    """
    scene = open_scene(folder)
    made = []
    for part in parts:
        for subject in scene.subjects(part):
            clips = np.array(scene.indices(part, subject))
            labels = np.array([scene.clips.records[clip].class_index for clip in clips])
            for number in range(each):
                generator = stream(scene.settings.seed, "leakage", subject, number)
                shares = generator.dirichlet(np.full(len(EMOTIONS), MIX))[labels]
                shares = shares / np.bincount(labels, minlength=len(EMOTIONS))[labels]  # an emotion's, not a clip's
                if not shares.sum():  # a mix of nothing that the subject shows
                    shares = np.ones(len(clips))
                drawn = generator.choice(len(clips), size=(rounds, CLIPS), p=shares / shares.sum())
                made.append(Client(subject, clips[drawn]))
    return made


def route(folder: Path, path: Path, clips: Sequence[int]) -> tuple[Floats, NDArray[np.int64]]:
    """How a model routes each clip's middle window: gate (N, E) and chosen experts (N, k)."""
    one_thread()
    scene = open_scene(folder)
    model, card = load_model(path)
    samples = scene.evaluation_samples(model, card, clips)
    positions = list(range(len(clips)))
    windows = np.stack([middle_window(model.config.sampling, length) for length in samples.lengths])
    with torch.inference_mode():
        _, routing = model.classify(samples.head_inputs(model, positions, windows, None))
    return routing.gate.numpy().astype(np.float64), routing.chosen.numpy()


@dataclass(frozen=True)
class Asked:
    """What a round asked of its clients: to train which model, how, and with which cohort's expert load."""

    model: Path
    recipe: FineTuneSettings
    expert_load: tuple[float, ...]


def rounds_asked(folder: Path) -> list[Asked]:
    """What every published round of a run of a model with experts asked, in their order: the server knows all of it."""
    registry, models = open_registry(folder), Paths(folder).models
    asked: list[Asked] = []
    load: tuple[float, ...] = ()
    for row in registry.rounds():
        if row.state == PUBLISHED:
            recipe = RoundSettings.from_stored(row.settings).fine_tune_in(row.number)
            asked.append(Asked(models / f"{row.base_sha256}.safetensors", recipe, load))
            first, *rest = registry.router_statistics(row.id).values()
            load = sum(rest, start=first).load
    return asked


def update_features(folder: Path, asked: Sequence[Asked], clients: Sequence[Client]) -> Floats:
    """What an attacker reads in the updates that clients send in these rounds: (P, R, F).

    The change of every bias that a label acts on most directly, those of the experts' classifiers and of the router's
    last layer; zero for an expert that is absent.
    """
    one_thread()
    scene = open_scene(folder)
    rounds = [_updates_in(scene, number, one, clients) for number, one in enumerate(asked)]
    return np.stack(rounds, axis=1)


def _updates_in(scene: Scene, number: int, asked: Asked, clients: Sequence[Client]) -> Floats:
    """(P, F) of one round."""
    model, card = load_model(asked.model)
    before = tensors_of(model)
    telling = [name for name in sorted(before) if _tells_most(name)]
    rows = []
    for place, client in enumerate(clients):
        copy_weights(model, before)
        samples = scene.training_samples(model, card, [int(clip) for clip in client.clips[number]])
        keys = (scene.settings.seed, "leakage", client.subject, place, number)
        experts = fine_tune(model, samples, asked.recipe, train_mode="head", keys=keys, expert_load=asked.expert_load)
        update = make_update(before, tensors_of(model), manifest(model_specs(model), "head", experts))
        rows.append(np.concatenate([update.get(name, np.zeros_like(before[name])) for name in telling]))
    return np.stack(rows).astype(np.float64)


def _tells_most(name: str) -> bool:
    return (expert_of(name) is not None and name.endswith("classifier.bias")) or name == "moe.router.down.bias"


def statistics_features(
    clients: Sequence[Client],
    routed: Sequence[tuple[Floats, NDArray[np.int64]]],
    places: Mapping[int, int],
    level: Callable[[RouterStatistics], Floats],
) -> Floats:
    """What an attacker sees of clients in as many rounds as there are entries in ``routed``: (P, R, F).

    ``places``: where a clip of the data set is in ``routed``.
    """
    rows = []
    for client in clients:
        seen = []
        for (gate, chosen), clips in zip(routed, client.clips, strict=False):
            at = [places[int(clip)] for clip in clips]
            seen.append(level(RouterStatistics.count(gate[at], chosen[at])))
        rows.append(seen)
    return np.array(rows)


def _shares(statistics: RouterStatistics) -> Floats:
    """(2E,) shares of choices and of gate mass."""
    mass = np.asarray(statistics.gate_mass) / statistics.examples
    return np.concatenate([np.asarray(statistics.routed) / (statistics.examples * statistics.top_k), mass])


#: What is left of a round's statistics at each level, as features.
LEVELS: dict[str, Callable[[RouterStatistics], Floats]] = {
    "exact": _shares,
    "four bins": lambda statistics: _shares(coarsen(statistics)),
    "experts sent": lambda statistics: (np.asarray(statistics.routed) > 0).astype(np.float64),
}


@dataclass(frozen=True)
class Guesses:
    """What the attacker says of each victim: the mix (P, c) and the lighting (P,)."""

    mix: Floats
    lighting: NDArray[np.int64]


def guess(features: Floats, mix: Floats, lighting: NDArray[np.int64], people: Sequence[str], seen: Floats) -> Guesses:
    """Learn from the shadows' features (P, F), mixes (P, c) and lightings (P,); guess the victims' from theirs.

    The ridge is chosen on the shadows, leaving one person out at a time, for each of both guesses.
    """
    one_hot = np.eye(len(LIGHTINGS))[lighting]
    return Guesses(_as_mix(_ridge(features, mix, people, seen)), _ridge(features, one_hot, people, seen).argmax(axis=1))


def guess_without(mix: Floats, lighting: NDArray[np.int64], victims: int) -> Guesses:
    """What is said of everybody by who has seen nothing: the shadows' mean mix and most frequent lighting."""
    most = np.bincount(lighting, minlength=len(LIGHTINGS)).argmax()
    return Guesses(np.tile(mix.mean(axis=0), (victims, 1)), np.full(victims, most))


def _ridge(features: Floats, wanted: Floats, people: Sequence[str], seen: Floats) -> Floats:
    who = np.asarray(people)

    def error(strength: float) -> float:
        total = 0.0
        for person in np.unique(who):
            out = who == person
            total += float(np.square(_fit(features[~out], wanted[~out], strength, features[out]) - wanted[out]).sum())
        return total

    return _fit(features, wanted, min(RIDGES, key=error), seen)


def _fit(features: Floats, wanted: Floats, strength: float, seen: Floats) -> Floats:
    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    x, y = (features - centre) / spread, wanted - wanted.mean(axis=0)
    weights = np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ y)
    result: Floats = (seen - centre) / spread @ weights + wanted.mean(axis=0)
    return result


def _as_mix(guessed: Floats) -> Floats:
    positive = np.maximum(guessed, 1e-6)
    mix: Floats = positive / positive.sum(axis=1, keepdims=True)
    return mix
