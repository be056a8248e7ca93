"""The simulation as a Flower app: the product's own ClientApp and ServerApp over the subjects of a data set.

`flwr run .` finds both here, and the local grid runs the same objects. A node is told its subject by Flower's
``partition-id``; the run's folder, which holds everything else, comes with the run's configuration.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from client.app import make_client_app
from mcoe_model.learning.samples import Samples
from mcoe_model.learning.weights import load_model
from mcoe_model.model_file import ModelCard
from mcoe_model.networks import MCOENet
from mcoe_model.update import TrainMode
from mcoe_model.workers import one_thread
from simulations.coordination import coordinate, say_events
from simulations.scene import Scene, cache_folder, open_scene


class SubjectStore:
    """One subject of the data set as a client's clip store. A partition without a subject has no clips."""

    def __init__(self, scene: Scene, partition: int) -> None:
        subjects = scene.subjects("clients")
        self._scene = scene
        self._subject = subjects[partition] if partition < len(subjects) else None
        self.client_id = f"subject-{self._subject}" if self._subject else f"nobody-{partition}"

    def examples(self) -> int:
        return len(self._scene.indices("clients", self._subject)) if self._subject else 0

    def model(self) -> tuple[MCOENet, ModelCard]:
        return _resident(self._scene.paths.base)

    def samples(self, model: MCOENet, train_mode: TrainMode) -> Samples:
        return self._scene.training_samples(model, self.model()[1], self._scene.indices("clients", self._subject))


@lru_cache(maxsize=1)
def _resident(path: Path) -> tuple[MCOENet, ModelCard]:
    """One model per process, whatever the number of clients: each task overwrites its weights in place."""
    return load_model(path)


def _open_store(context: Context) -> SubjectStore:
    one_thread()
    return SubjectStore(open_scene(run_folder(context)), int(context.node_config["partition-id"]))


def run_folder(context: Context) -> Path:
    """The prepared run that a Flower context names; by default one in the cache folder."""
    named = str(context.run_config.get("run-folder", ""))
    return Path(named) if named else cache_folder() / "flower-run"


client_app = make_client_app(_open_store)
server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds of the prepared run; without one, prepare and finish a quick one, so that `flwr run .` is enough."""
    from simulations.experiment import finish, prepare_default

    folder = run_folder(context)
    whole = not context.run_config.get("run-folder", "")
    if whole:
        prepare_default(folder)
    coordinate(grid, folder, say_events)
    if whole:
        finish(folder)
