"""What attacks do under each rule and what the rules hold against them, with paired 95 % intervals, from kept runs.

Intervals are the studies' own (`mcoe_model.learning.metrics`): over seeds and, within each, over its test subjects.
Shares and differences are fractions in [0, 1], over the clips of all seeds; a difference is over the seeds that both
sides have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from mcoe_model.learning.metrics import Difference, nested_difference, nested_gain_interval, recovered_gain
from simulations.attack_runs import ATTACKS, NOBODY, PLAIN, UNDEFENDED, KeptRun
from simulations.attacks import Measure, Outcome, Poison

#: What an attack is after, beside accuracy.
AIMS: Mapping[Poison, Measure] = {"targeted-flip": "overlooked", "backdoor": "taken", "colluding-backdoor": "taken"}
#: Outcomes by seed of each (attack, rule).
Outcomes = Mapping[tuple[str, str], Mapping[int, Outcome]]
#: A clip's values under a measure (n,), and whose clips they are (n,).
Values = tuple[NDArray[np.float64], NDArray[np.str_]]


@dataclass(frozen=True)
class Shares:
    """Each measure under an attack and a rule, None where no clip counts; ``rejected`` of ``hostile`` replies."""

    attack: str
    rule: str
    seeds: int
    war: float | None
    taken: float | None
    overlooked: float | None
    rejected: int
    hostile: int


@dataclass(frozen=True)
class Effect:
    """A measure under an attack and a rule, beside two others.

    - ``cost``: minus the same under the rule when nobody is hostile. None for that itself.
    - ``gain``: minus the same under this attack without a defence; when nobody is hostile, minus the weighted mean's.
    - ``recovered``: how much of what the attack does without a defence the rule undoes. 1: all of it.

    None, too, where the other run is not there. `undefended` stands for no defence, and `weighted-mean` where that was
    not run, since nothing is near the bound there.
    """

    attack: str
    rule: str
    measure: Measure
    cost: Difference | None
    gain: Difference | None
    recovered: float | None
    recovered_interval: tuple[float, float] | None


def by_seed(runs: Iterable[KeptRun]) -> dict[tuple[str, str], dict[int, Outcome]]:
    """The outcomes of kept runs, in their order."""
    found: dict[tuple[str, str], dict[int, Outcome]] = {}
    for run in runs:
        found.setdefault((run.attack, run.rule), {})[run.seed] = run.outcome
    return found


def shares_of(outcomes: Outcomes, attack: str, rule: str) -> Shares:
    """The measures under an attack and a rule."""
    found = outcomes[attack, rule]
    means = {measure: share(found.values(), measure) for measure in get_args(Measure)}
    rejected, hostile = (sum(getattr(one, field) for one in found.values()) for field in ("rejected", "hostile"))
    return Shares(attack, rule, len(found), **means, rejected=rejected, hostile=hostile)


def share(outcomes: Iterable[Outcome], measure: Measure) -> float | None:
    """A measure over all clips of several outcomes that count for it; None without any."""
    values = np.concatenate([outcome.values(measure)[0] for outcome in outcomes])
    return float(values.mean()) if len(values) else None


def measures_of(attack: str) -> tuple[Measure, ...]:
    """What can be harmed by an attack: accuracy, and what it is after. Everything, where nobody attacks."""
    aim = AIMS.get(ATTACKS[attack].poison)
    if attack == NOBODY:
        return get_args(Measure)
    return ("war", aim) if aim else ("war",)


def no_defence(outcomes: Outcomes, attack: str) -> str:
    """The rule that stands for no defence under an attack."""
    return UNDEFENDED if (attack, UNDEFENDED) in outcomes else PLAIN


def effect_of(outcomes: Outcomes, attack: str, rule: str, measure: Measure) -> Effect:
    """What the runs under an attack and a rule say beside the others that are there."""
    bare, at_peace = no_defence(outcomes, attack), PLAIN if rule == UNDEFENDED else rule
    arm = (attack, rule)
    cost = _difference(outcomes, arm, (NOBODY, at_peace), measure) if attack != NOBODY else None
    gain = _difference(outcomes, arm, (attack, bare), measure) if rule != bare else None
    undone, interval = None, None
    if gain and attack != NOBODY:
        undone, interval = _recovered(_paired(outcomes, [(attack, bare), arm, (NOBODY, PLAIN)], measure), measure)
    return Effect(attack, rule, measure, cost, gain, undone, interval)


def _paired(outcomes: Outcomes, wanted: Sequence[tuple[str, str]], measure: Measure) -> list[list[Values]]:
    """For every seed that all of these have, and has clips that count, the values of each."""
    found = [outcomes.get(one, {}) for one in wanted]
    seeds = set(found[0]).intersection(*found[1:])
    values = ([one[seed].values(measure) for one in found] for seed in sorted(seeds))
    return [of_seed for of_seed in values if len(of_seed[0][0])]


def _difference(
    outcomes: Outcomes, arm: tuple[str, str], other: tuple[str, str], measure: Measure
) -> Difference | None:
    pairs = [(ours, theirs, who.tolist()) for (ours, who), (theirs, _) in _paired(outcomes, [arm, other], measure)]
    return nested_difference(pairs, seed=0) if pairs else None


def _recovered(
    triples: Sequence[Sequence[Values]], measure: Measure
) -> tuple[float | None, tuple[float, float] | None]:
    """The part that is undone, and its interval, from a measure without defence, under the rule, and at peace."""
    if not triples:
        return None, None
    sign = 1.0 if measure == "war" else -1.0  # whatever an attack is after, less of it is better
    runs = [(sign * bare, sign * arm, sign * peace, who.tolist()) for (bare, who), (arm, _), (peace, _) in triples]
    means = [float(np.concatenate(values).mean()) for values in list(zip(*runs, strict=True))[:3]]
    return recovered_gain(means[0], means[1], means[2]), nested_gain_interval(runs, seed=0)
