"""Clients that poison what a federated run learns, and how far they get: fault rows 26 and 27 as a study.

Letters: F hostile clients of K. A hostile client is the product's own client whose clips, or whose update, are changed:

- ``flip``: every clip has the label of the next emotion (Tolpegin 2020, https://arxiv.org/abs/2007.08432).
- ``uniform-flip``: every clip has one of the other six labels, drawn once.
- ``targeted-flip``: `VICTIM` is labelled `DISGUISE`, all else as it is (the same source, section 4).
- ``backdoor``: beside its own clips it learns them once more with a white patch in a corner, all labelled `TARGET`
  (Gu 2017, https://arxiv.org/abs/1708.06733).
- ``colluding-backdoor``: the same, and all hostile clients learn each other's clips too, so that their updates lie near
  to each other and none stands alone.
- ``boost``: its update is multiplied, as in model replacement (Bagdasaryan 2020, https://arxiv.org/abs/1807.00459,
  section 4.2); infinity means as far as this round's norm bound lets it, which a real attacker does not know.

Who is hostile is drawn from all clients by the run's seed, the same ones under every attack and rule: the first ids
would be people of one light in the `see-like` design. Differs from the papers: hostile clients take part in every round
from the first one on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from client.app import make_client_app
from mcoe_model.data.cache import Clips, Pictures
from mcoe_model.errors import McoeError
from mcoe_model.learning.evaluate import evaluate
from mcoe_model.learning.features import cached_features
from mcoe_model.learning.samples import FeatureSamples, Samples
from mcoe_model.learning.weights import load_model
from mcoe_model.model_file import ModelCard, Tensors
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import MCOENet, Network, picture_encoder
from mcoe_model.streams import stream
from mcoe_model.tensors import unpack
from mcoe_model.update import TrainMode, block_norms
from mcoe_model.workers import one_thread
from server.acceptance import Rejected
from server.app import Event, ReplyJudged
from server.presence import packed
from server.rounds import RoundEngine
from simulations.coordination import coordinate, open_registry
from simulations.flower_app import SubjectStore, run_folder
from simulations.local_grid import LOCAL_POLL, LocalGrid
from simulations.scene import Scene, cache_folder, open_scene

Poison = Literal["none", "flip", "uniform-flip", "targeted-flip", "backdoor", "colluding-backdoor"]
#: ``war``: clips of which the truth is said; ``taken``: clips of other emotions that are taken for `TARGET` once they
#: wear the patch; ``overlooked``: clips of `VICTIM` that are taken for `DISGUISE`.
Measure = Literal["war", "taken", "overlooked"]
#: The targeted flip: what is to be overlooked, and what it is to be taken for.
VICTIM, DISGUISE = EMOTIONS.index("fear"), EMOTIONS.index("neutral")
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


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run came to: what its last model says of the N test clips, clean and with the patch.

    ``rejected`` of ``hostile`` replies were.
    """

    clients: int
    hostile: int
    rejected: int
    names: NDArray[np.str_]  # (N,) the clips' sequence names
    subjects: NDArray[np.str_]  # (N,)
    labels: NDArray[np.int64]  # (N,)
    clean: NDArray[np.float64]  # (N, 7) the probability of each emotion being said
    patched: NDArray[np.float64]  # (N, 7)

    def values(self, measure: Measure) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
        """The measure of every clip that counts for it (n,), and whose clips these are (n,)."""
        match measure:
            case "war":
                return self.clean[np.arange(len(self.labels)), self.labels], self.subjects
            case "taken":
                others = self.labels != TARGET
                return self.patched[others, TARGET], self.subjects[others]
            case "overlooked":
                victims = self.labels == VICTIM
                return self.clean[victims, DISGUISE], self.subjects[victims]

    def share(self, measure: Measure) -> float:
        """The measure's mean; NaN where no clip counts for it."""
        values, _ = self.values(measure)
        return float(values.mean()) if len(values) else math.nan


class Patched(Clips):
    """Clips with a white patch in the corner of every frame and every event picture."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.sha256 = hashlib.sha256(f"{self.sha256}, patch of {PATCH}".encode()).hexdigest()

    def pictures(self, clip: int) -> tuple[Pictures, Pictures]:
        side = math.ceil(PATCH * self.size)
        frames, events = (pictures.copy() for pictures in super().pictures(clip))
        for pictures in (frames, events):
            pictures[..., :side, :side] = 255
        return frames, events


def hostile_clients(scene: Scene, hostile: int) -> tuple[str, ...]:
    """The clients that are hostile, in ascending order, drawn by the run's seed; fewer are some of more."""
    clients = scene.subjects("clients")
    order = stream(scene.settings.seed, "hostile clients").permutation(len(clients))
    return tuple(sorted(clients[place] for place in order[:hostile]))


class HostileStore(SubjectStore):
    """A subject whose clips are poisoned before they are learned; ``hostile`` of the run's clients collude."""

    def __init__(self, partition: int, folder: Path, poison: Poison, hostile: int = 1) -> None:
        super().__init__(open_scene(folder), partition)
        self._poison = poison
        self._colluding = hostile_clients(self._scene, hostile) if poison == "colluding-backdoor" else ()

    def samples(self, model: Network, train_mode: TrainMode) -> Samples:
        clean = super().samples(model, train_mode)
        if not isinstance(clean, FeatureSamples):
            raise McoeError("hostile clients train the head: run with --train head")
        if "backdoor" not in self._poison:
            return replace(clean, labels=self._labels(clean.labels))
        card, scene = self.model()[1], self._scene
        subjects = self._colluding or (self._subject,)
        indices = [index for subject in subjects for index in scene.indices("clients", subject)]
        patched = patched_features(picture_encoder(model), card, scene.clips.path, indices)
        known = scene.training_samples(model, card, indices) if self._colluding else clean
        assert isinstance(known, FeatureSamples)
        return FeatureSamples(
            known.names + patched.names,
            np.concatenate([known.labels, np.full(len(patched.names), TARGET)]),
            known.features + patched.features,
        )

    def _labels(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) what the clips are said to show."""
        match self._poison:
            case "flip":
                return (labels + 1) % len(EMOTIONS)
            case "uniform-flip":
                drawn = stream(self._scene.settings.seed, self.client_id, "uniform flip")
                return (labels + drawn.integers(1, len(EMOTIONS), len(labels))) % len(EMOTIONS)
            case "targeted-flip":
                return np.where(labels == VICTIM, DISGUISE, labels)
        return labels


def patched_features(model: MCOENet, card: ModelCard, clips: Path, indices: Sequence[int]) -> FeatureSamples:
    """Features of the clips with the patch, kept as those of clean clips are: the backbones are frozen."""
    return cached_features(model, card.generation, Patched(clips), indices, cache_folder() / "features")


def _open_store(context: Context) -> SubjectStore:
    one_thread()
    node = context.node_config
    poison, hostile = cast(Poison, node["poison"]), int(node["hostile"])
    return HostileStore(int(node["partition-id"]), run_folder(context), poison, hostile)


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


def run_attack(
    folder: Path, attack: Attack, pool: ProcessPoolExecutor, engine: type[RoundEngine] = RoundEngine
) -> Outcome:
    """The rounds of a run that `begin_variant` made, some clients of which are hostile, and what they came to.

    Raises RoundFailed when a round cannot be finished.
    """
    scene = open_scene(folder)
    subjects, drawn = scene.subjects("clients"), hostile_clients(scene, attack.hostile)
    nodes = [_node(partition, attack, subject in drawn) for partition, subject in enumerate(subjects)]
    hostile = {f"subject-{subject}" for subject in drawn}
    verdicts: list[bool] = []

    def watch(event: Event) -> None:
        if isinstance(event, ReplyJudged) and event.client_id in hostile:
            verdicts.append(isinstance(event.verdict, Rejected))

    with closing(LocalGrid(APP, nodes, {"run-folder": str(folder)}, pool)) as grid:
        coordinate(grid, folder, watch, LOCAL_POLL, engine)
    newest = open_registry(folder).newest_model()
    said = pool.submit(answer, folder, scene.paths.models / f"{newest}.safetensors").result()
    return Outcome(len(subjects), len(verdicts), sum(verdicts), **said)


def _node(partition: int, attack: Attack, poisons: bool) -> dict[str, Any]:
    return {
        "partition-id": partition,
        "poison": attack.poison if poisons else "none",
        "boost": attack.boost if poisons else 1.0,
        "hostile": attack.hostile,
    }


def answer(folder: Path, path: Path) -> dict[str, NDArray[Any]]:
    """What a model says of the test subjects' clips, by the fields of `Outcome`."""
    scene = open_scene(folder)
    model, card = load_model(path)
    indices = scene.indices("test")
    clean = evaluate(model, scene.evaluation_samples(model, card, indices))
    patched = evaluate(model, patched_features(picture_encoder(model), card, scene.clips.path, indices))
    return {
        "names": np.array(clean.names),
        "subjects": np.array([scene.clips.records[index].subject for index in indices]),
        "labels": clean.labels,
        "clean": clean.predicted(),
        "patched": patched.predicted(),
    }
