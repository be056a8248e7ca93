"""What replay keeps of earlier sessions: a wearer's sessions are learned one after another, with each method.

    python benchmarks/replay.py FOLDER [--wearers 8] [--seed 22] [--clips 20] [--epochs 10]
        [--methods none,der++:0.3:1] [--json]

A base model (mcoe-tiny) is trained on 48 synthetic people; then every other synthetic wearer's six sessions are learned
in order by the head alone, half of the clips of each (one of every emotion), with room for ``--clips`` in the memory.
Domains are what comes one after another: ``light`` the sessions as they are, each under one lighting; ``emotion`` the
same clips by emotion, two emotions a stage. R[i, j] is the accuracy on the other half of domain j after stage i:
final accuracy is the mean of the last row, forgetting the mean over j of max_i<T R[i, j] - R[T, j] (Chaudhry et al.).
Accuracy on synthetic data says nothing about SEE. FOLDER keeps data and base model for the next time.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mcoe_model.data.cache import Clips, open_clips
from mcoe_model.data.see import parse_name
from mcoe_model.data.synthetic.settings import SyntheticSettings
from mcoe_model.data.synthetic.writer import write_see
from mcoe_model.learning.continual import continual_method
from mcoe_model.learning.features import cached_features
from mcoe_model.learning.fine_tune import fine_tune, measure
from mcoe_model.learning.replay import ENTRY_BYTES, ReplayMemory
from mcoe_model.learning.replay_samples import exemplars_of
from mcoe_model.learning.samples import FeatureSamples, PictureSamples, measure_normalisation
from mcoe_model.learning.settings import FineTuneSettings, ReplaySettings
from mcoe_model.learning.weights import backbone_sha256, load_model, tensors_of
from mcoe_model.model_file import Generation, ModelCard, write_model
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import MCOENet, build
from mcoe_model.networks.presets import MCOE_PRESETS
from mcoe_model.workers import one_thread

SIZE = MCOE_PRESETS["mcoe-tiny"].input_size
#: Bytes of an entry of mcoe-tiny.
ENTRY = 4 * MCOE_PRESETS["mcoe-tiny"].features * 2 + len(EMOTIONS) * 4 + ENTRY_BYTES


def main() -> None:
    """Print final accuracy and forgetting of every method: means over the wearers so far, and their standard errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wearers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=22)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--scenarios", default="light,emotion")
    parser.add_argument("--methods", default="none,replay,der++:0.3:1,der++:1:0.5")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    one_thread()
    model, card = _base(asked.folder)
    clips = _data(asked.folder, f"wearers-{asked.seed}", subjects=asked.wearers, design="wearable", seed=asked.seed)
    features = cached_features(model, card.generation, clips, range(len(clips.records)), asked.folder / "features")
    recipe = FineTuneSettings(epochs=asked.epochs, learning_rate=asked.rate)
    methods = asked.methods.split(",")
    for scenario in asked.scenarios.split(","):
        found: dict[str, list[tuple[float, float]]] = {method: [] for method in methods}
        for stages in _wearers(clips, scenario):
            for method in methods:
                found[method].append(_one(model, features, stages, recipe, _settings(method, asked.clips)))
            for method in methods:
                table = np.array(found[method])  # (wearers so far, 2)
                means, errors = table.mean(axis=0), table.std(axis=0) / np.sqrt(max(1, len(table) - 1))
                row = {"scenario": scenario, "method": method, "wearers": len(table)}
                row |= {"accuracy": round(float(means[0]), 4), "accuracy_se": round(float(errors[0]), 4)}
                row |= {"forgetting": round(float(means[1]), 4), "forgetting_se": round(float(errors[1]), 4)}
                line = json.dumps(row) if asked.json else "  ".join(f"{cell!s:>13}" for cell in row.values())
                print(line, flush=True)


def _settings(method: str, clips: int) -> ReplaySettings:
    name, *weights = method.split(":")
    alpha, beta = (float(weight) for weight in weights or (0, 0))
    return ReplaySettings(name, alpha, beta, bytes=clips * ENTRY)  # type: ignore[arg-type]


def _one(
    base: MCOENet,
    features: FeatureSamples,
    stages: list[tuple[list[int], list[int]]],
    recipe: FineTuneSettings,
    replay: ReplaySettings,
) -> tuple[float, float]:
    """Final accuracy and forgetting of one wearer."""
    model = copy.deepcopy(base)
    memory = ReplayMemory("benchmark", replay.bytes)
    tests = _some(features, [position for _, test in stages for position in test])
    bounds = np.cumsum([len(test) for _, test in stages])[:-1]
    accuracy = np.zeros((len(stages), len(stages)))  # R
    for stage, (train, _) in enumerate(stages):
        samples = _some(features, train)
        method = continual_method(replay, memory)
        fine_tune(model, samples, recipe, train_mode="head", keys=("replay", stage), method=method)
        memory = memory.add(exemplars_of(model, samples, lightings=_lightings(samples), day=0))
        accuracy[stage] = [np.mean(hits) for hits in np.split(np.array(measure(model, tests).hits), bounds)]
    return float(accuracy[-1].mean()), float((accuracy[:-1, :-1].max(axis=0) - accuracy[-1, :-1]).mean())


def _some(features: FeatureSamples, positions: list[int]) -> FeatureSamples:
    labels: NDArray[np.int64] = features.labels[positions]
    return FeatureSamples(
        tuple(features.names[p] for p in positions), labels, tuple(features.features[p] for p in positions)
    )


def _lightings(samples: FeatureSamples) -> list[str]:
    return [parse_name(name).lighting for name in samples.names]


def _wearers(clips: Clips, scenario: str) -> Iterator[list[tuple[list[int], list[int]]]]:
    """Of each wearer, the clips of each stage that are learned and those that are tested on."""
    for indices in clips.by_subject().values():
        stages: dict[int, tuple[list[int], list[int]]] = {}
        for index in indices:
            record = clips.records[index]
            session, take = divmod(parse_name(record.name).take, 100)
            stage = session if scenario == "light" else record.class_index // 2
            stages.setdefault(stage, ([], []))[take % 2].append(index)
        yield [stages[stage] for stage in sorted(stages)]


def _data(folder: Path, name: str, *, subjects: int, seed: int, design: str, sequences: int | None = None) -> Clips:
    settings = SyntheticSettings(subjects, sequences, SIZE, design, seed=seed)
    write_see(folder / name, settings)
    return open_clips(folder / name, size=SIZE, cache=folder / f"{name}-clips")


def _base(folder: Path) -> tuple[MCOENet, ModelCard]:
    path = folder / "base.safetensors"
    if not path.exists():
        clips = _data(folder, "base", subjects=48, sequences=12, design="see-like", seed=20)
        indices = tuple(range(len(clips.records)))
        normalisation = measure_normalisation(clips, indices)
        model = build("mcoe-tiny", seed=0)
        recipe = FineTuneSettings(20, 16, 2e-3, 1e-2, schedule="cosine", batch_norm="running", augment=True)
        fine_tune(model, PictureSamples(clips, indices, normalisation), recipe, train_mode="full", keys=(0, "base"))
        generation = Generation("mcoe-tiny", backbone_sha256(tensors_of(model)), SIZE, normalisation)
        write_model(path, tensors_of(model), ModelCard(generation, "trained for the replay benchmark"))
    model, card = load_model(path)
    return model.eval(), card


if __name__ == "__main__":
    main()
