"""How evenly the experts are used, and which clients' routing strays from the fleet's.

Drift is the Jensen-Shannon divergence with logarithms to the base 2 (Lin 1991, Divergence Measures Based on the Shannon
Entropy, https://doi.org/10.1109/18.61115), between a client's share of routed choices and the mean of all clients'
shares: 0 when they are equal, 1 when they have no expert in common.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.dashboard.queries import Routing

Shares = NDArray[np.float64]

#: Rounds that "recent" means: the heat map's sums, and how long an expert must have been idle to be called dead.
WINDOW_ROUNDS = 10
#: Drift above this is an alarm, in bits.
DRIFT_ALARM = 0.2
#: Routed choices below which a client's drift is chance: with n of them over E experts that all clients use alike it
#: is (E - 1) / (8 n ln 2) on average, which for 8 experts and 20 choices is 0.06.
DRIFT_CHOICES = 20
#: Sums over fewer clients than this say something about each of them; only the operator's page shows them.
FEWEST_CLIENTS = 3


@dataclass(frozen=True)
class ClientRouting:
    """One client's shares of routed choices (E,) in the last round and over the window, and its drift in bits.

    ``drift`` is None with fewer than `DRIFT_CHOICES` choices.
    """

    client_id: str
    last: tuple[float, ...]
    recent: tuple[float, ...]
    drift: float | None

    @property
    def alarm(self) -> bool:
        return self.drift is not None and self.drift > DRIFT_ALARM


@dataclass(frozen=True)
class ExpertUse:
    """The use of E experts over the last R published rounds, whose numbers are ``rounds``, newest first.

    ``last`` and ``recent`` (E,): shares of the routed choices. ``entropy`` (R,): of each round's shares, in bits; E
    equal shares have log2 E. ``clients`` (R,): how many each round's shares come from. ``dead``: experts that no clip
    of these rounds was routed to. ``by_client``: strongest drift first.
    """

    rounds: tuple[int, ...]
    last: tuple[float, ...]
    recent: tuple[float, ...]
    entropy: tuple[float, ...]
    clients: tuple[int, ...]
    dead: tuple[int, ...]
    by_client: tuple[ClientRouting, ...]

    @property
    def alarms(self) -> tuple[str, ...]:
        """The clients whose drift is above the threshold."""
        return tuple(client.client_id for client in self.by_client if client.alarm)


def expert_use(routing: Routing) -> ExpertUse:
    """What the counts of the last rounds say."""
    by_round, recent, last = shares(routing.by_round), shares(routing.recent), shares(routing.last)
    choices = routing.recent.sum(axis=1)
    mean = recent[choices > 0].mean(axis=0) if choices.any() else recent.sum(axis=0)
    drift = jensen_shannon(recent, mean)
    rows = [
        ClientRouting(
            client,
            tuple(last[index].tolist()),
            tuple(recent[index].tolist()),
            float(drift[index]) if choices[index] >= DRIFT_CHOICES else None,
        )
        for index, client in enumerate(routing.clients)
    ]
    total = routing.by_round.sum(axis=0)
    return ExpertUse(
        routing.rounds,
        tuple(by_round[0].tolist()),
        tuple(shares(total[None])[0].tolist()),
        tuple(entropy(by_round).tolist()),
        tuple(routing.clients_by_round.tolist()),
        tuple(np.flatnonzero(total == 0).tolist()),
        tuple(sorted(rows, key=lambda row: (-1.0 if row.drift is None else row.drift), reverse=True)),
    )


def shares(counts: NDArray[np.int64]) -> Shares:
    """Each row (N, E) divided by its sum; a row of zeros stays one."""
    totals = counts.sum(axis=1, keepdims=True)
    table: Shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    return table


def entropy(table: Shares) -> Shares:
    """Shannon entropy of each row (N, E) in bits (N,)."""
    logs = np.log2(table, out=np.zeros(table.shape), where=table > 0)
    bits: Shares = -(table * logs).sum(axis=1) + 0.0  # no minus zero
    return bits


def jensen_shannon(table: Shares, mean: Shares) -> Shares:
    """Jensen-Shannon divergence of each row (N, E) from ``mean`` (E,), in bits (N,)."""
    bits: Shares = np.clip(entropy((table + mean) / 2) - (entropy(table) + entropy(mean[None])) / 2, 0.0, 1.0)
    return bits
