"""The simulation as a Flower app: the product's own ClientApp and ServerApp over the subjects of a data set.

`flwr run .` finds both here, and the local grid runs the same objects. A node is told its subject by Flower's
``partition-id``; the run's folder, which holds everything else, comes with the run's configuration.
"""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from client.app import make_client_app
from mcoe_model.learning.samples import Samples
from mcoe_model.learning.weights import load_model
from mcoe_model.model_file import ModelCard
from mcoe_model.networks import Network
from mcoe_model.update import TRAIN_MODES, TrainMode
from mcoe_model.workers import one_thread
from simulations.coordination import coordinate, say_events
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

    def clip_names(self) -> tuple[str, ...]:
        if self._subject is None:
            return ()
        return tuple(self._scene.clips.records[index].name for index in self._scene.indices("clients", self._subject))

    def model(self) -> tuple[Network, ModelCard]:
        return _resident(self._scene.paths.base)

    def samples(self, model: Network, train_mode: TrainMode) -> Samples:
        return self._scene.training_samples(model, self.model()[1], self._scene.indices("clients", self._subject))

    def method(self) -> None:
        """Nothing: a subject's clips are all learned in every round."""

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


client_app = make_client_app(_open_store)
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
