"""Client-level differential privacy as a mode of an experiment: what changes in its rounds, and what it must not do.

In this mode the rule is the private mean, every client sends every expert, no bound is learned, nothing that is not
noised goes out or is kept beyond the round, and a client takes part while its epsilon is below the cap.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from mcoe_model.errors import SettingsError
from server.aggregation.private_mean import PrivateMean, PrivateMeanSettings, noise_key
from server.privacy_accounting import epsilon
from server.registry import Registry, RoundRow

cached_epsilon = lru_cache(maxsize=4096)(epsilon)


@dataclass(frozen=True)
class PrivateMode:
    """How much a client is bounded and hidden, and how much it may spend.

    - ``clip``, ``noise_multiplier``, ``denominator``: of the rule (`server/aggregation/private_mean.py`).
    - ``delta``: of every epsilon; below one over the number of clients.
    - ``epsilon_cap``: a client whose next round would take it above this takes part no longer.
    """

    clip: float
    noise_multiplier: float
    denominator: int
    delta: float
    epsilon_cap: float

    def __post_init__(self) -> None:
        found = []
        try:
            _ = self.rule_settings  # checks itself
        except SettingsError as fault:
            found += fault.faults
        if not 0 < self.delta < 1:
            found.append(f"delta must be between 0 and 1, not {self.delta}")
        if not 0 < self.epsilon_cap < float("inf"):
            found.append(f"epsilon cap must be above 0 and finite, not {self.epsilon_cap}")
        if found:
            raise SettingsError(found)

    @property
    def rule_settings(self) -> PrivateMeanSettings:
        """What bounds a client, and the noise."""
        return PrivateMeanSettings(self.clip, self.noise_multiplier, self.denominator)

    def rule(self, secret: bytes, experiment: str, row: RoundRow) -> PrivateMean:
        """The rule of one round, whose noise nobody can take away who does not know the server's secret."""
        return PrivateMean(self.rule_settings, noise_key(secret, experiment, row.number, row.attempt))

    def after_next_round(self, registry: Registry, clients: Collection[str]) -> dict[str, float]:
        """Each client's epsilon once it has taken part in one more round."""
        rounds = registry.rounds_paid(clients)
        return {client: cached_epsilon(self.noise_multiplier, rounds[client] + 1, self.delta) for client in clients}

    def may_take_part(self, registry: Registry, clients: Collection[str]) -> frozenset[str]:
        """Which of these clients have something left to spend."""
        after = self.after_next_round(registry, clients)
        return frozenset(client for client in clients if after[client] <= self.epsilon_cap)

    def spend(self, registry: Registry, row: RoundRow, clients: Collection[str]) -> None:
        """Record what a closed round costs its clients, before its model exists. A repeat changes nothing."""
        if registry.budget_recorded(row.id):
            return
        registry.record_budget(row.id, self.after_next_round(registry, clients), self.delta)
