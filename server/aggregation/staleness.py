"""How much an update counts that was made from an older model than the one it is added to.

s(tau) = (1 + tau)^-a, polynomial, Xie et al. 2019, "Asynchronous Federated Optimization", section 5
(https://arxiv.org/abs/1903.03934), for tau versions between the update's base and the round's. The update itself is
scaled and its place in the rule stays, as in FedBuff (Nguyen et al. 2022, "Federated Learning with Buffered
Asynchronous Aggregation", algorithm 1, https://arxiv.org/abs/2106.06639): what a stale update loses goes to nobody,
so a round of stale updates moves the model less.
"""

from __future__ import annotations

from collections.abc import Sequence

from server.aggregation.rule import Contribution


def staleness_weight(staleness: int, exponent: float) -> float:
    """s(tau): 1 for an update of the round's own base, and less the staler it is."""
    return float((1 + staleness) ** -exponent)


def staleness_scales(contributions: Sequence[Contribution], exponent: float) -> list[float] | None:
    """What each update is multiplied by when it is read, None when all are fresh."""
    if not any(contribution.staleness for contribution in contributions):
        return None
    return [staleness_weight(contribution.staleness, exponent) for contribution in contributions]
