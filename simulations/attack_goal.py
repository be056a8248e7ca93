"""Whether a robust rule does what it is there for: it undoes attacks that do harm, and costs nothing without any.

An attack does harm to a measure where, without a defence, accuracy falls by at least `LOSS`, or what the attack is
after succeeds for at least `SUCCESS` of the clips. The rule shall undo at least `UNDONE` of each such harm, and lose at
most `COST` of accuracy when nobody attacks. What a 95 % interval reaches over is not resolved.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulations.attack_effects import Outcomes, effect_of, measures_of, no_defence, share
from simulations.attack_runs import NOBODY
from simulations.attacks import Measure
from simulations.goals import Verdict, all_of, at_least

LOSS, SUCCESS = 0.05, 0.5
UNDONE, COST = 0.75, 0.01
#: What `docs/aggregation.md` names where members may be hostile.
RECOMMENDED = ("median", "multi-krum")


@dataclass(frozen=True)
class Goal:
    """The word for a rule, and for what it costs and for each harm (attack, measure) that it shall undo."""

    rule: str
    word: Verdict
    cost: Verdict
    undone: dict[tuple[str, Measure], Verdict]


def goal_of(outcomes: Outcomes, rule: str) -> Goal:
    """The verdict on a rule; not resolved where what it needs was not run, or no attack does harm."""
    cost = effect_of(outcomes, NOBODY, rule, "war").gain
    paid = at_least((cost.low, cost.high) if cost else None, -COST)
    undone = {
        harm: at_least(effect_of(outcomes, harm[0], rule, harm[1]).recovered_interval, UNDONE)
        for harm in harms(outcomes)
    }
    return Goal(rule, all_of([paid, *(undone.values() or ["not resolved"])]), paid, undone)


def harms(outcomes: Outcomes) -> list[tuple[str, Measure]]:
    """Which attacks do harm to what where there is no defence."""
    attacks = dict.fromkeys(attack for attack, _ in outcomes if attack != NOBODY)
    possible = [(attack, measure) for attack in attacks for measure in measures_of(attack)]
    return [(attack, measure) for attack, measure in possible if _harmed(outcomes, attack, measure)]


def _harmed(outcomes: Outcomes, attack: str, measure: Measure) -> bool:
    bare = no_defence(outcomes, attack)
    if (attack, bare) not in outcomes:
        return False
    if measure == "war":
        lost = effect_of(outcomes, attack, bare, measure).cost
        return lost is not None and lost.estimate <= -LOSS
    return (share(outcomes[attack, bare].values(), measure) or 0.0) >= SUCCESS
