"""What a simulated client's training adds to the product's own: one file for each method, chosen by a setting.

These exist in simulations alone: a wearable has no setting for them, and no message of theirs. What a client keeps from
round to round lies in the run's folder (`state.py`); each file says what it would cost to send.
"""

from __future__ import annotations

from mcoe_model.learning.method import ContinualMethod
from mcoe_model.learning.samples import Samples
from mcoe_model.networks import Network
from simulations.local_methods.fedprox import FedProx
from simulations.local_methods.scaffold import Scaffold
from simulations.scene import Scene


def local_method(scene: Scene, client: str, model: Network, samples: Samples) -> ContinualMethod | None:
    """What is added to the loss of a client's steps, for the model that it was sent and its clips."""
    match scene.settings.local_method:
        case "fedprox":
            return FedProx(model, scene.settings.proximal)
        case "scaffold":
            return Scaffold(model, samples, scene, client)
        case _:
            return None
