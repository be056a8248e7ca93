"""Personal parts: some of the head is each client's own, and the rest is learned together.

In the spirit of FedPer (Arivazhagan et al. 2019, https://arxiv.org/abs/1912.00818), whose personal layers are the last
ones. Here they are the router (as in FLEx, https://arxiv.org/abs/2506.00965, and pFedMoE) or the experts, each with its
classifier. A client begins a round with the shared tensors that it is sent and its own personal ones. Differs from
FedPer: the difference to the server's copy is sent for the personal tensors too, so that the server's copy is the
clients' average, which is what people have who are not in the fleet. It costs a client the personal tensors on its disk
and no byte more in a message; without that average it would save their bytes in both directions.
"""

from __future__ import annotations

from mcoe_model.model_file import Tensors
from mcoe_model.update import expert_of
from server.aggregation.router import is_router
from simulations.local_methods.state import ClientState, current_round
from simulations.scene import Scene
from simulations.settings import LocalMethod


def is_personal(method: LocalMethod, name: str) -> bool:
    """Whether a tensor is each client's own."""
    if method == "personal-router":
        return is_router(name)
    return method == "personal-experts" and expert_of(name) is not None


def personal_tensors(scene: Scene, client: str, number: int | None = None) -> Tensors:
    """A client's own tensors before a round, the newest one unless it is given; none before its first round."""
    if not scene.settings.local_method.startswith("personal-"):
        return {}
    return _state(scene).before(client, current_round(scene.paths.folder) if number is None else number)


def keep_personal(scene: Scene, client: str, sent: Tensors, update: Tensors) -> None:
    """Keep a client's own tensors after the newest round: what it was sent and the update to that.

    An expert that is not in the update was not used and stays as the client had it.
    """
    method, number = scene.settings.local_method, current_round(scene.paths.folder)
    own = {name: sent[name] + value for name, value in update.items() if is_personal(method, name)}
    _state(scene).write(client, number, _state(scene).before(client, number) | own)


def _state(scene: Scene) -> ClientState:
    return ClientState(scene.paths.folder / "personal")
