"""How private a client's updates are after its rounds, and what must hold for that number to be true.

The Gaussian mechanism with one client's clip as sensitivity, composed over the rounds that the client took part in, by
Renyi divergences (Mironov 2017, https://arxiv.org/abs/1702.07476), as the library dp-accounting computes it. Nothing is
gained from sampling: wearables take part when they are worn, which is no random sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mcoe_model.errors import MissingExtra, SettingsError
from server.aggregation.private_mean import PrivateMean
from server.aggregation.rule import RouterMode


def epsilon(noise_multiplier: float, rounds: int, delta: float) -> float:
    """Epsilon at ``delta`` of a client that took part in so many rounds; 0 before its first.

    Neighbours differ by adding or removing all updates of one client. Where its rounds had different noise, the
    smallest multiplier gives an upper bound. Raises SettingsError, and MissingExtra without dp-accounting.
    """
    _check(noise_multiplier, delta)
    if rounds < 0:
        raise SettingsError([f"rounds must not be negative, not {rounds}"])
    try:
        from dp_accounting import GaussianDpEvent, NeighboringRelation
        from dp_accounting.rdp import RdpAccountant
    except ModuleNotFoundError as fault:
        raise MissingExtra(f"{fault.name} is not installed; run: pip install 'mcoe[server]'") from fault
    if rounds == 0:
        return 0.0
    accountant = RdpAccountant(neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(GaussianDpEvent(noise_multiplier), rounds)
    return float(accountant.get_epsilon(delta))


def rounds_left(noise_multiplier: float, epsilon_cap: float, delta: float) -> int:
    """The most rounds that a client without any may take part in before its epsilon is above the cap.

    Subtract the rounds that it took part in. Raises SettingsError, and MissingExtra without dp-accounting.
    """
    if not 0 < epsilon_cap < math.inf:
        raise SettingsError([f"epsilon cap must be above 0 and finite, not {epsilon_cap}"])
    beyond = 1
    while epsilon(noise_multiplier, beyond, delta) <= epsilon_cap:
        beyond *= 2
    within = beyond // 2
    while beyond - within > 1:
        middle = (within + beyond) // 2
        if epsilon(noise_multiplier, middle, delta) <= epsilon_cap:
            within = middle
        else:
            beyond = middle
    return within


def _check(noise_multiplier: float, delta: float) -> None:
    found = []
    if not 0 < noise_multiplier < math.inf:
        found.append(f"noise multiplier must be above 0 and finite, not {noise_multiplier}")
    if not 0 < delta < 1:
        found.append(f"delta must be between 0 and 1, not {delta}")
    if found:
        raise SettingsError(found)


#: Why a rule bounds no client's part; of the others that they are not made for it.
_UNBOUNDED = {
    "expert-weighted-mean": "weighs a client's experts by its gate mass",
    "routing-consistency": "weighs a client's experts by how its clips were routed",
    "fltrust": "weighs clients by how they compare with the server's own update",
}


def assumption_faults(
    *,
    rule: str,
    router: RouterMode,
    all_experts_sent: bool,
    norm_bound_learned: bool,
    router_statistics_released: bool,
    losses_released: bool,
    first_k: bool,
    delta: float,
    clients: int,
) -> list[str]:
    """Everything in an experiment's settings that would make its epsilon untrue; empty when all assumptions hold.

    - ``norm_bound_learned``: whether replies are judged by norms of earlier rounds.
    - ``router_statistics_released``, ``losses_released``: whether any of `withheld` leaves the server without noise.
    - ``first_k``: whether a round closes with the first K replies.
    - ``clients``: how many are enrolled.
    """
    found = []
    if rule != PrivateMean.name:
        why = _UNBOUNDED.get(rule, "does not bound what one client changes")
        found.append(f"rule must be {PrivateMean.name}: {rule} {why}")
    if router == "damped":
        found.append("router must not be damped: the routing of the cohort would weigh every client")
    if not all_experts_sent:
        found.append("clients must send all experts: which ones are absent tells what a client used")
    if norm_bound_learned:
        found.append("the norm bound must not be learned from earlier rounds: it tells how large updates were")
    if router_statistics_released:
        found.append("router statistics and expert loads must not be released: they carry no noise")
    if losses_released:
        found.append("losses must not be released: they carry no noise")
    if first_k:
        found.append("rounds must not close with the first K replies: one client's speed would decide who else counts")
    if clients < 1:
        found.append(f"clients must be at least 1, not {clients}")
    elif not 0 < delta < 1 / clients:
        found.append(f"delta must be above 0 and below 1 / clients = {1 / clients:.3g}, not {delta}")
    return found


def withheld() -> Mapping[str, str]:
    """What a server in private mode neither sends nor shows nor keeps beyond its round, and why.

    The names are of registry tables, of their columns, and of fields of messages. None of it is noised.
    """
    return {
        "TrainTask.expert_load": "sums the cohort's router statistics and goes to every client; sent empty",
        "router_statistics": "how a client's clips were routed tells which emotions it showed",
        "replies.examples": "counts a client's clips",
        "replies.loss_before": "tells how well the model knew a client's clips",
        "replies.loss_after": "tells how well a client's clips were learned",
        "replies.norm": "is of the update before it is clipped",
        "replies.seconds": "grows with the number of a client's clips",
    }


def epsilon_table(noise_multipliers: Sequence[float], rounds: Sequence[int], delta: float) -> str:
    """Epsilon by rounds and noise multiplier, as a table of `docs/privacy.md`."""
    head = [f"| Rounds | {' | '.join(f'noise {multiplier:g}' for multiplier in noise_multipliers)} |"]
    head.append(f"|{'---:|' * (1 + len(noise_multipliers))}")
    rows = [[f"{epsilon(multiplier, count, delta):.2f}" for multiplier in noise_multipliers] for count in rounds]
    body = [f"| {count} | {' | '.join(row)} |" for count, row in zip(rounds, rows, strict=True)]
    return "\n".join([*head, *body, ""])
