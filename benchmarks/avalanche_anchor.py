"""Our replay and DER++ beside avalanche-lib's: the same streams, features, head, recipe and number of remembered clips.

    python simulations/continual.py --stream emotions --methods naive --seeds 1 --out runs/emotions
    python -m venv .anchor
    .anchor/bin/pip install --constraint constraints.txt --editable . avalanche-lib==0.6.0 torchvision==0.28.0
    .anchor/bin/python benchmarks/avalanche_anchor.py runs/emotions [--clips 14] [--json]

RUN is a finished comparison, which has the bases, the features and the wearers' streams. Everybody learns every stream
alone from the same base, lesson by lesson, on one thread, from the features of each clip's middle window; a lesson's
end is all that a method is told, which avalanche calls an experience. ACC and forgetting are over the wearer's own
held-out clips (`mcoe_model.learning.forgetting`), differences are ours less theirs, paired by wearer and seed. Seconds
are of learning a whole stream.

What stays different is the methods' own. Theirs: a replay's epoch is as long as the larger of lesson and memory, which
goes round as often as it takes; DER++ takes one remembered batch for both terms, and none before it holds a whole
batch; memories are balanced by experience (replay) or class (DER); the optimiser's state lives on between lessons;
experts that a step did not choose decay. Ours: as in `docs/continual.md`, without the balancing term, which theirs has
no place for. Their library is loaded before anything is timed.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from mcoe_model.learning.fine_tune import measure, middle_window
from mcoe_model.learning.forgetting import stream_scores
from mcoe_model.learning.methods import MethodSettings, feature_bytes
from mcoe_model.learning.metrics import paired_difference
from mcoe_model.learning.samples import FeatureSamples
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.networks import MCOENet
from mcoe_model.streams import Key, stream_seed
from mcoe_model.update import is_head
from mcoe_model.workers import one_thread
from simulations.continual_run import base_and_clips, open_run
from simulations.lessons import Known, learn_stream
from simulations.streams import DeviceStream, lessons

ALPHA, BETA = 0.3, 1.0


class Head(nn.Module):
    """A model's head as a module of one input, which avalanche can train: (B, 4, F) features to (B, c) logits."""

    def __init__(self, model: MCOENet) -> None:
        super().__init__()
        self.model = model

    def forward(self, ends: Tensor) -> Tensor:
        logits: Tensor = self.model.classify(tuple(ends.unbind(1)))[0]
        return logits


def load_theirs() -> None:
    """Import all of avalanche-lib that is used here, so that no clock runs meanwhile."""
    for operator in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # torchvision's wheels lack these beside a torch without CUDA
            torch.library.define(f"torchvision::{operator}", "(Tensor boxes, Tensor scores, float limit) -> Tensor")
    for module in ("benchmarks", "benchmarks.utils", "training.plugins", "training.supervised"):
        importlib.import_module(f"avalanche.{module}")


def ours(
    method: str,
    base: MCOENet,
    known: Known,
    stream: DeviceStream,
    *,
    clips: int,
    recipe: FineTuneSettings,
    lesson: int,
    keys: tuple[Key, ...],
) -> NDArray[np.float64]:
    """R (T + 1, T) on the wearer's held-out clips, by the product's own loop."""
    settings = MethodSettings.parse(method)
    return learn_stream(
        base, known, stream, settings,
        limit_bytes=clips * feature_bytes(base), recipe=recipe, lesson_clips=lesson, exact=False, keys=keys,
    ).own  # fmt: skip


def theirs(
    method: str,
    base: MCOENet,
    known: Known,
    stream: DeviceStream,
    *,
    clips: int,
    recipe: FineTuneSettings,
    lesson: int,
    keys: tuple[Key, ...],
) -> NDArray[np.float64]:
    """The same by avalanche-lib, which `load_theirs` has loaded: its strategies as they are, a lesson an experience."""
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.training.plugins import ReplayPlugin
    from avalanche.training.supervised import DER, Naive

    torch.manual_seed(stream_seed(*keys))
    model = copy.deepcopy(base)
    trained = [p for name, p in model.named_parameters() if is_head(name) and not name.startswith("dead.")]
    common = {
        "model": Head(model),
        "optimizer": torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True),
        "criterion": nn.CrossEntropyLoss(),
        "train_mb_size": recipe.batch_size,
        "train_epochs": recipe.epochs,
        "evaluator": None,
    }
    if method == "latent-replay":
        plugin = ReplayPlugin(mem_size=clips, batch_size=recipe.batch_size, batch_size_mem=recipe.batch_size)
        strategy = Naive(**common, plugins=[plugin])
    else:
        strategy = DER(**common, mem_size=clips, batch_size_mem=recipe.batch_size, alpha=ALPHA, beta=BETA)
    every = [(stage, clips) for stage in stream.stages for clips in lessons(stage, lesson)]
    experiences = benchmark_from_datasets(train=[dataset_of(base, known.learned(clips)) for _, clips in every])
    rows = [accuracy(model, known, stream)]
    for place, experience in enumerate(experiences.train_stream):
        strategy.train(experience)
        if place + 1 == len(every) or every[place + 1][0] is not every[place][0]:  # the stage ends with this lesson
            model.eval()
            rows.append(accuracy(model, known, stream))
    return np.array(rows)


def dataset_of(model: MCOENet, samples: FeatureSamples) -> Any:
    """A lesson as avalanche has it: the features that the head takes of each clip (N, 4, F), and its emotion."""
    from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute

    windows = np.stack([middle_window(model.config.sampling, length) for length in samples.lengths])
    ends = torch.stack(list(samples.head_inputs(model, range(len(samples.names)), windows, None)), dim=1)
    emotions = samples.labels.tolist()
    one_task = DataAttribute([0] * len(emotions), "targets_task_labels", use_in_getitem=True)
    data = TensorDataset(ends, torch.tensor(emotions))
    return AvalancheDataset([data], data_attributes=[DataAttribute(emotions, "targets"), one_task])


def accuracy(model: MCOENet, known: Known, stream: DeviceStream) -> list[float]:
    """Accuracy on every stage's held-out clips: (T,)."""
    return [float(np.mean(measure(model, known.asked(stage.held_out)).hits)) for stage in stream.stages]


def middle_only(model: MCOENet, known: Known) -> Known:
    """The clips cut to their middle window, so that there is no other to draw."""

    def cut(length: int) -> slice:
        window = middle_window(model.config.sampling, length)
        return slice(int(window[0]), int(window[-1]) + 1)

    samples = known.samples
    features = tuple({key: array[cut(len(array))] for key, array in streams.items()} for streams in samples.features)
    return replace(known, samples=replace(samples, features=features))


def compare(folder: Path, clips: int) -> Iterator[dict[str, object]]:
    """A row for each method: measures and seconds of both sides, means over wearers and seeds, and the difference."""
    load_theirs()
    run = open_run(folder)
    recipe = replace(run.settings.recipe, balance=0.0)
    sides: dict[str, Callable[..., NDArray[np.float64]]] = {"ours": ours, "theirs": theirs}
    for method in ("latent-replay", f"der++:{ALPHA}:{BETA}"):
        found: dict[str, list[list[tuple[float, float, float]]]] = {side: [] for side in sides}
        for seed in range(run.settings.seeds):
            base, everything = base_and_clips(folder, seed)
            known = middle_only(base, everything)
            for side, learn in sides.items():
                found[side].append([])
                for stream in run.streams:
                    own = DeviceStream(
                        stream.device, tuple(replace(one, unseen=one.unseen[:1]) for one in stream.stages)
                    )
                    began = time.perf_counter()
                    matrix = learn(
                        method, base, known, own,
                        clips=clips, recipe=recipe, lesson=run.settings.lesson, keys=(seed, "anchor", own.device),
                    )  # fmt: skip
                    scores = stream_scores(matrix)
                    found[side][-1].append((scores.acc, scores.forgetting, time.perf_counter() - began))
        table = {side: np.array(rows) for side, rows in found.items()}  # (seeds, wearers, 3) each
        devices = [stream.device for stream in run.streams]
        row: dict[str, object] = {
            "method": method,
            "wearers": len(devices),
            "seeds": run.settings.seeds,
            "clips": clips,
        }
        for place, measure_name in enumerate(("acc", "forgetting")):
            difference = paired_difference(table["ours"][..., place], table["theirs"][..., place], devices, seed=0)
            row |= {f"{measure_name}_{side}": float(values[..., place].mean()) for side, values in table.items()}
            row[f"{measure_name}_difference"] = [difference.estimate, difference.low, difference.high]
        row |= {f"seconds_{side}": float(values[..., 2].mean()) for side, values in table.items()}
        row["seconds_ratio"] = float((table["ours"][..., 2] / table["theirs"][..., 2]).mean())
        yield row


def main() -> None:
    """Print a row for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--clips", type=int, default=14, help="how many clips are remembered")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    one_thread()
    for row in compare(asked.run.absolute(), asked.clips):
        if asked.json:
            print(json.dumps(row), flush=True)
        else:
            print("\n".join(f"{name:24} {value}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
