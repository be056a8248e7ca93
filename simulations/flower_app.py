"""The simulation as a Flower app: the product's own ClientApp and ServerApp over the subjects of a data set.

`flwr run .` finds both here, and the local grid runs the same objects. A node is told its subject by Flower's
``partition-id``; the run's folder, which holds everything else, comes with the run's configuration.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from flwr.app import Context, Message, MessageType
from flwr.serverapp import Grid, ServerApp

from client.app import make_client_app
from mcoe_model.learning.method import ContinualMethod
from mcoe_model.learning.samples import Samples
from mcoe_model.learning.weights import copy_weights, load_model
from mcoe_model.model_file import ModelCard, Tensors
from mcoe_model.networks import Network
from mcoe_model.tensors import unpack
from mcoe_model.update import TRAIN_MODES, TrainMode
from mcoe_model.workers import one_thread
from server.presence import packed
from simulations.coordination import coordinate, say_events
from simulations.local_methods import local_method
from simulations.local_methods.personal import has_personal, keep_personal, personal_tensors
from simulations.scene import Scene, cache_folder, open_scene

#: Seconds in which the number of nodes must not have changed.
NODES_SETTLE = 0.5


class SubjectStore:
    """One subject of the data set as a client's clip store. A partition without a subject has no clips."""

    def __init__(self, scene: Scene, partition: int) -> None:
        subjects = scene.subjects("clients")
        self._scene = scene
        self._subject = subjects[partition] if partition < len(subjects) else None
        self.client_id = f"subject-{self._subject}" if self._subject else f"nobody-{partition}"

    @property
    def learns(self) -> tuple[TrainMode, ...]:
        return TRAIN_MODES

    @property
    def has_own(self) -> bool:
        """Whether parts of the model are the client's own."""
        return self._subject is not None and has_personal(self._scene.settings)

    def clip_names(self) -> tuple[str, ...]:
        if self._subject is None:
            return ()
        return tuple(self._scene.clips.records[index].name for index in self._scene.indices("clients", self._subject))

    def model(self) -> tuple[Network, ModelCard]:
        return _resident(self._scene.paths.base)

    def samples(self, model: Network, train_mode: TrainMode) -> Samples:
        """The subject's clips. Where the model sent lacks parts that are the client's own, they go into it first."""
        if self._subject is not None:
            copy_weights(model, personal_tensors(self._scene, self._subject))
        return self._scene.training_samples(model, self.model()[1], self._scene.indices("clients", self._subject))

    def method(self) -> ContinualMethod | None:
        """What the run's local method adds; without one nothing, for all clips are learned in every round."""
        if self._subject is None or self._scene.settings.local_method == "none":
            return None
        model = self.model()[0]
        return local_method(self._scene, self._subject, model, self.samples(model, "head"))

    def keep(self, sent: Tensors, update: Tensors) -> Tensors:
        """Keep what is the client's own of the model that it trained; returns the update as it is to be sent."""
        assert self._subject is not None, "a client without clips sends no update"
        return keep_personal(self._scene, self._subject, sent, update)

    def tried(self, model: Network, train_mode: TrainMode) -> Samples:
        return self.samples(model, train_mode)


@lru_cache(maxsize=1)
def _resident(path: Path) -> tuple[Network, ModelCard]:
    """One model per process, whatever the number of clients: each task overwrites its weights in place."""
    return load_model(path)


def _open_store(context: Context) -> SubjectStore:
    one_thread()
    return SubjectStore(open_scene(run_folder(context)), int(context.node_config["partition-id"]))


def run_folder(context: Context) -> Path:
    """The prepared run that a Flower context names; without one, a new one in the cache folder, by Flower's number."""
    named = str(context.run_config["run-folder"])
    return Path(named) if named else cache_folder() / "flower-runs" / str(context.run_id)


def _keep_own(message: Message, context: Context, answer: Callable[[Message, Context], Message]) -> Message:
    """Keep a client's own parts of what it has trained, in a run that has any, and send what it shares of them."""
    reply = answer(message, context)
    if message.metadata.message_type == MessageType.TRAIN and reply.has_content():
        store = _open_store(context)
        if store.has_own:
            sent, update = message.content.array_records["model"], reply.content.array_records["update"]
            reply.content["update"] = packed(store.keep(*(unpack(one["tensors"].data) for one in (sent, update))))
    return reply


client_app = make_client_app(_open_store, mods=[_keep_own])
server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds of the prepared run; without one, prepare and finish one, so that `flwr run .` is enough."""
    from simulations import flower_default  # here, because a client needs nothing of it

    folder = run_folder(context)
    whole = not context.run_config["run-folder"]
    if whole:
        flower_default.prepare(folder, str(context.run_config["settings"]))
    _say_who_takes_part(_count_nodes(grid), len(open_scene(folder).subjects("clients")))
    coordinate(grid, folder, say_events)
    if whole:
        flower_default.finish(folder)


def _count_nodes(grid: Grid) -> int:
    """The nodes of the grid, once their number stands still: Flower registers them while the ServerApp starts."""
    before, now = 0, len(list(grid.get_node_ids()))
    while now == 0 or now != before:
        time.sleep(NODES_SETTLE)
        before, now = now, len(list(grid.get_node_ids()))
    return now


def _say_who_takes_part(nodes: int, subjects: int) -> None:
    if nodes < subjects:
        print(f"only {nodes} of {subjects} subjects take part: Flower was told of {nodes} SuperNodes; for all of them, "
              f"flwr run . --federation-config 'num-supernodes={subjects} client-resources-num-cpus=1'", flush=True)
    if nodes > subjects:
        print(f"{nodes - subjects} of {nodes} SuperNodes have no subject and take no part", flush=True)
