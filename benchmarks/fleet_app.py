"""The simulation's ClientApp with as many clients as one likes: they share the subjects of the run in turn.

For `local_engine.py --memory`, where the number of clients grows and the data do not.
"""

from __future__ import annotations

from flwr.app import Context

from client.app import make_client_app
from simulations.flower_app import SubjectStore, run_folder
from simulations.scene import open_scene


def _open_store(context: Context) -> SubjectStore:
    scene = open_scene(run_folder(context))
    partition = int(context.node_config["partition-id"])
    store = SubjectStore(scene, partition % len(scene.subjects("clients")))
    store.client_id = f"client-{partition}"
    return store


client_app = make_client_app(_open_store)
