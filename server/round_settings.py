"""What every round of an experiment does: checked whole, stored with each round, and read back to go on with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mcoe_model.errors import SettingsError
from mcoe_model.learning.settings import FineTuneSettings, Schedule, rate_factor
from mcoe_model.protocol import MAX_OUTBOX
from mcoe_model.update import TRAIN_MODES, TrainMode
from server.aggregation import RULES
from server.aggregation.optimiser import OptimiserSettings
from server.aggregation.rule import RuleSettings
from server.private_mode import PrivateMode


@dataclass(frozen=True)
class RoundSettings:
    """What every round of an experiment does.

    - ``schedule``: how the clients' learning rate goes over ``rounds`` rounds; `cosine` needs to know how many.
    - ``quorum``: the share of the cohort whose replies must be accepted, or the round is abandoned.
    - ``first_k``: the round closes as soon as so many replies are accepted, and the quorum is of these; 0: it does not.
    - ``max_staleness``: with ``first_k``, an update that came too late is taken in a later round, at most so many
      versions later, weighed by its staleness.
    - ``seed``: the experiment's seed, sent to the clients.
    - ``private``: differential privacy; its rule takes the place of ``rule``.
    - ``trusted_set``: folder of clean clips, for a rule that compares with an update of the server's own.
    - ``optimiser``: the server's, which steps along what the rule aggregated.
    - ``cohort_filter``: patterns of ids and aliases, separated by commas; a round asks nobody else.
    - ``keep_updates``: accepted updates stay in the spool after their round, so that it can be replayed. They can say
      much about a wearer: for looking into faults, not for every day.
    """

    fine_tune: FineTuneSettings
    train_mode: TrainMode = "head"
    rule: str = "weighted-mean"
    rule_settings: RuleSettings = field(default_factory=RuleSettings)
    quorum: float = 0.5
    seed: int = 0
    schedule: Schedule = "constant"
    rounds: int = 0
    keep_updates: bool = False
    private: PrivateMode | None = None
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    trusted_set: str = ""
    first_k: int = 0
    max_staleness: int = 4
    cohort_filter: str = "*"

    def __post_init__(self) -> None:
        found = []
        if self.train_mode not in TRAIN_MODES:
            found.append(f"train mode must be one of {', '.join(TRAIN_MODES)}, not {self.train_mode!r}")
        if self.rule not in RULES:
            found.append(f"rule must be one of {', '.join(RULES)}, not {self.rule!r}")
        elif RULES[self.rule].needs_reference and not self.trusted_set:
            found.append(f"rule {self.rule} needs a trusted_set, a folder of clean clips in SEE's layout")
        elif RULES[self.rule].needs_reference and self.private:
            found.append(f"rule {self.rule} cannot be private: it weighs clients by the server's own update")
        if self.private and (self.keep_updates or self.rule_settings.router == "damped"):
            found.append("private rounds keep no updates and do not damp the router: both would tell of single clients")
        found += self._first_k_faults()
        if self.schedule == "cosine" and self.rounds < 1:
            found.append("a cosine schedule needs the number of rounds")
        if not 0 < self.quorum <= 1:
            found.append(f"quorum must be above 0 and at most 1, not {self.quorum}")
        if found:
            raise SettingsError(found)

    def _first_k_faults(self) -> list[str]:
        found = []
        if self.first_k < 0:
            found.append(f"first_k must not be negative, not {self.first_k}")
        if not 0 <= self.max_staleness <= MAX_OUTBOX:
            found.append(f"max_staleness must be between 0 and {MAX_OUTBOX}, not {self.max_staleness}")
        if self.first_k and self.rule in RULES and not self.private:
            least = RULES[self.rule].least(self.rule_settings)
            if 0 < self.first_k < least:
                found.append(f"first_k is {self.first_k}, and {self.rule} needs at least {least} updates")
        if self.first_k and self.private:
            found.append("private rounds must not close with the first replies: first_k must be 0")
        return found

    def needed(self, cohort: int) -> int:
        """How many replies of a cohort so large must be accepted, or the round is abandoned. The rule may need more."""
        asked = min(self.first_k or cohort, cohort)
        return math.ceil(round(self.quorum * asked, 9))  # 0.07 x 100 is above 7

    @staticmethod
    def from_stored(stored: Mapping[str, Any]) -> RoundSettings:
        """The settings that a round was opened with, as its row holds them; a setting that is newer has its default."""
        fine_tune, rule = FineTuneSettings(**stored["fine_tune"]), RuleSettings(**stored["rule_settings"])
        private = PrivateMode(**stored["private"]) if stored.get("private") else None
        optimiser = OptimiserSettings(**stored.get("optimiser", {}))
        parts = {"fine_tune": fine_tune, "rule_settings": rule, "private": private, "optimiser": optimiser}
        return RoundSettings(**{**stored, **parts})

    def fine_tune_in(self, number: int) -> FineTuneSettings:
        """The clients' training in a round, at the learning rate that the schedule has in the middle of the round."""
        share = min(1.0, (number - 0.5) / self.rounds) if self.rounds else 0.0
        factor = rate_factor(self.schedule, share=share, step=number - 1)
        return replace(self.fine_tune, learning_rate=self.fine_tune.learning_rate * factor)
