"""Clients that poison what a federated run learns, and how far they get: fault rows 26 and 27 as a study.

Letters: F hostile clients of K. A hostile client is the product's own client whose clips, or whose update, are changed:

- ``flip``: every clip has the label of the next emotion (Tolpegin 2020, https://arxiv.org/abs/2007.08432).
- ``backdoor``: beside its own clips it learns them once more with a white patch in a corner, all labelled `TARGET`
  (Gu 2017, https://arxiv.org/abs/1708.06733).
- ``boost``: its update is multiplied, as in model replacement (Bagdasaryan 2020, https://arxiv.org/abs/1807.00459,
  section 4.2); infinity means as far as this round's norm bound lets it, which a real attacker does not know.

Differs from the papers: hostile clients take part in every round from the first one on.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

from client.app import make_client_app
from mcoe_model.data.cache import Clips, Pictures
from mcoe_model.errors import McoeError
from mcoe_model.files import read_json, write_json
from mcoe_model.learning.evaluate import evaluate
from mcoe_model.learning.samples import FeatureSamples, Samples, encode_clips
from mcoe_model.learning.weights import load_model
from mcoe_model.model_file import Tensors
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import MCOENet, Network, picture_encoder
from mcoe_model.tensors import unpack
from mcoe_model.update import TrainMode, block_norms
from mcoe_model.workers import one_thread
from server.acceptance import Rejected
from server.app import Event, ReplyJudged
from server.presence import packed
from simulations.coordination import coordinate, open_registry
from simulations.flower_app import SubjectStore, run_folder
from simulations.local_grid import LOCAL_POLL, LocalGrid
from simulations.scene import Paths, open_scene

Poison = Literal["none", "flip", "backdoor"]
#: What the backdoor's patch shall be taken for.
TARGET = EMOTIONS.index("happiness")
#: Side of the patch, as a share of the picture's.
PATCH = 0.2
#: How near to the norm bound an update goes that is boosted as far as possible.
NEARLY = 0.999
APP = "simulations.attacks:client_app"


@dataclass(frozen=True)
class Attack:
    """What ``hostile`` clients do. ``boost`` multiplies their updates; infinity: up to the round's norm bound."""

    poison: Poison = "none"
    hostile: int = 0
    boost: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """What a run came to. ``war``: on the test subjects' clips. ``success``: the share of their clips of other
    emotions that are taken for `TARGET` once they wear the patch. ``rejected`` of ``hostile`` replies were.
    """

    clients: int
    war: float
    success: float
    hostile: int
    rejected: int


class Patched(Clips):
    """Clips with a white patch in the corner of every frame and every event picture."""

    def pictures(self, clip: int) -> tuple[Pictures, Pictures]:
        side = math.ceil(PATCH * self.size)
        frames, events = (pictures.copy() for pictures in super().pictures(clip))
        for pictures in (frames, events):
            pictures[..., :side, :side] = 255
        return frames, events


class HostileStore(SubjectStore):
    """A subject whose clips are poisoned before they are learned."""

    def __init__(self, partition: int, folder: Path, poison: Poison) -> None:
        super().__init__(open_scene(folder), partition)
        self._poison = poison

    def samples(self, model: Network, train_mode: TrainMode) -> Samples:
        clean = super().samples(model, train_mode)
        if not isinstance(clean, FeatureSamples):
            raise McoeError("hostile clients train the head: run with --train head")
        if self._poison == "flip":
            return replace(clean, labels=(clean.labels + 1) % len(EMOTIONS))
        if self._poison == "none":
            return clean
        indices = self._scene.indices("clients", self._subject)
        normalisation = self.model()[1].generation.normalisation
        patched = _patched(picture_encoder(model), self._scene.clips.path, indices, normalisation)
        return FeatureSamples(
            clean.names + patched.names,
            np.concatenate([clean.labels, np.full(len(patched.names), TARGET)]),
            clean.features + patched.features,
        )


def _patched(model: MCOENet, clips: Path, indices: Sequence[int], normalisation: Any) -> FeatureSamples:
    return encode_clips(model, Patched(clips), indices, normalisation)


def _open_store(context: Context) -> SubjectStore:
    one_thread()
    node = context.node_config
    return HostileStore(int(node["partition-id"]), run_folder(context), str(node["poison"]))  # type: ignore[arg-type]


_poisoned = make_client_app(_open_store)
client_app = ClientApp()


@client_app.query()
def query(message: Message, context: Context) -> Message:
    """Check in as everybody."""
    return _poisoned(message, context)


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Train on what is poisoned, and multiply what came out."""
    reply, boost = _poisoned(message, context), float(context.node_config["boost"])
    if boost != 1.0 and reply.has_content():
        update = unpack(reply.content.array_records["update"]["tensors"].data)
        if math.isinf(boost):
            bound = open_registry(run_folder(context)).rounds()[-1].norm_bound
            boost = NEARLY * bound / max(block_norms(update).values()) if bound else 1.0
        reply.content["update"] = _boosted(update, boost)
    return reply


def _boosted(update: Tensors, boost: float) -> ArrayRecord:
    return packed({name: np.asarray(boost * value, value.dtype) for name, value in update.items()})


def begin_attack(prepared: Path, folder: Path, **changed: Any) -> None:
    """A run in ``folder`` from the data and the base of a prepared one, with these settings changed."""
    before = Paths(prepared)
    shutil.copytree(before.base.parent, Paths(folder).base.parent)
    shutil.copy(before.parts, Paths(folder).parts)
    run = read_json(before.run)
    write_json(Paths(folder).run, run | {"settings": run["settings"] | changed})


def run_attack(folder: Path, attack: Attack, pool: ProcessPoolExecutor) -> Outcome:
    """The rounds of a run that `begin_attack` made, the first clients of which are hostile, and what they came to."""
    scene = open_scene(folder)
    subjects = scene.subjects("clients")
    nodes = [_node(partition, attack) for partition in range(len(subjects))]
    hostile = {f"subject-{subject}" for subject in subjects[: attack.hostile]}
    verdicts: list[bool] = []

    def watch(event: Event) -> None:
        if isinstance(event, ReplyJudged) and event.client_id in hostile:
            verdicts.append(isinstance(event.verdict, Rejected))

    with closing(LocalGrid(APP, nodes, {"run-folder": str(folder)}, pool)) as grid:
        coordinate(grid, folder, watch, poll=LOCAL_POLL)
    newest = open_registry(folder).newest_model()
    war, success = pool.submit(measure, folder, scene.paths.models / f"{newest}.safetensors").result()
    return Outcome(len(subjects), war, success, len(verdicts), sum(verdicts))


def _node(partition: int, attack: Attack) -> dict[str, Any]:
    poisons = partition < attack.hostile
    return {
        "partition-id": partition,
        "poison": attack.poison if poisons else "none",
        "boost": attack.boost if poisons else 1.0,
    }


def measure(folder: Path, path: Path) -> tuple[float, float]:
    """A model's WAR on the test subjects' clips, and the success of the patch on those that are not of its emotion."""
    scene = open_scene(folder)
    model, card = load_model(path)
    clean = evaluate(model, scene.evaluation_samples(model, card, scene.indices("test")))
    war = float(clean.predicted()[np.arange(len(clean.labels)), clean.labels].mean())
    others = [index for index in scene.indices("test") if scene.clips.records[index].class_index != TARGET]
    patched = evaluate(model, _patched(picture_encoder(model), scene.clips.path, others, card.generation.normalisation))
    return war, float(patched.predicted()[:, TARGET].mean())
