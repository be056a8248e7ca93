"""Personal parts: some of the head is each client's own, and the rest is learned together.

In the spirit of FedPer (Arivazhagan et al. 2019, https://arxiv.org/abs/1912.00818), whose personal layers are the last
ones. Here they are the router (as in FLEx, https://arxiv.org/abs/2506.00965, and pFedMoE) or the experts, each with its
classifier. A client begins a round with the shared tensors that it is sent and its own personal ones. Differs from
FedPer: the difference to the server's copy is sent for the personal tensors too, so that the server's copy is the
clients' average, which is what people have who are not in the fleet. It costs a client the personal tensors on its disk
and no byte more in a message; without that average it would save their bytes in both directions. Batch normalisations
of one's own, which are not averaged, are kept as these are (`fedbn.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

from mcoe_model.model_file import Tensors
from mcoe_model.update import expert_of
from server.aggregation.router import is_router
from simulations.local_methods.fedbn import batch_norm_names, withheld
from simulations.local_methods.state import ClientState, current_round
from simulations.scene import Scene
from simulations.settings import SimulationSettings


def has_personal(settings: SimulationSettings) -> bool:
    """Whether parts of the model are each client's own."""
    return settings.batch_norm == "local" or settings.local_method.startswith("personal-")


def personal_names(settings: SimulationSettings, names: Iterable[str]) -> frozenset[str]:
    """Those of a model's tensors that are each client's own."""
    if settings.batch_norm == "local":
        return batch_norm_names(names)
    match settings.local_method:
        case "personal-router":
            return frozenset(name for name in names if is_router(name))
        case "personal-experts":
            return frozenset(name for name in names if expert_of(name) is not None)
        case _:
            return frozenset()


def personal_tensors(scene: Scene, client: str, number: int | None = None) -> Tensors:
    """A client's own tensors before a round, the newest one unless it is given; none before its first round."""
    if not has_personal(scene.settings):
        return {}
    return _state(scene).before(client, current_round(scene.paths.folder) if number is None else number)


def keep_personal(scene: Scene, client: str, sent: Tensors, update: Tensors) -> Tensors:
    """Keep a client's own tensors after the newest round, what it was sent and the update to that; returns the update
    as it is to be sent.

    An expert that is not in the update was not used and stays as the client had it.
    """
    number = current_round(scene.paths.folder)
    own = {name: sent[name] + update[name] for name in personal_names(scene.settings, update)}
    _state(scene).write(client, number, _state(scene).before(client, number) | own)
    return withheld(update) if scene.settings.batch_norm == "local" else update


def _state(scene: Scene) -> ClientState:
    return ClientState(scene.paths.folder / "personal")
