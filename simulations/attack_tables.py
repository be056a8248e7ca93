"""The tables of an attacks' comparison, for people and programs: shares, differences and the goal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mcoe_model.learning.metrics import Difference
from simulations.attack_effects import Effect, Shares, by_seed, effect_of, measures_of, shares_of
from simulations.attack_goal import COST, RECOMMENDED, UNDONE, Goal, goal_of
from simulations.attack_runs import KeptRun

_SHARES = "| attack | rule | seeds | WAR % | taken % | overlooked % | rejected |\n|---|---|---:|---:|---:|---:|---:|"
_EFFECTS = "| attack | rule | measure | to nobody hostile | to no defence | undone |\n|---|---|---|---:|---:|---:|"


@dataclass(frozen=True)
class Tables:
    """Everything that the runs say together."""

    shares: tuple[Shares, ...]
    effects: tuple[Effect, ...]
    goals: tuple[Goal, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries of numbers, lists and None."""
        return {
            "shares": [asdict(one) for one in self.shares],
            "effects": [
                vars(one) | {"cost": _numbers(one.cost), "gain": _numbers(one.gain)} for one in self.effects
            ],
            "goals": [
                vars(one) | {"undone": [[attack, measure, word] for (attack, measure), word in one.undone.items()]}
                for one in self.goals
            ],
        }

    def to_text(self) -> str:
        """Markdown: differences in points with their 95 % intervals, and a line for each recommended rule."""
        shares = [_shares_line(one) for one in self.shares]
        effects = [_effect_line(one) for one in self.effects if one.cost or one.gain]
        return "\n".join([_SHARES, *shares, "", _EFFECTS, *effects, "", *(self._goal_line(one) for one in self.goals)])

    def _goal_line(self, goal: Goal) -> str:
        undone = [f"{attack}, {measure}: {word}" for (attack, measure), word in goal.undone.items()]
        return (
            f"`{goal.rule}`: **{goal.word}**. At most {100 * COST:.0f} point lost when nobody attacks: {goal.cost}. "
            f"At least {UNDONE:.0%} undone of what does harm: {'; '.join(undone) or 'nothing does'}."
        )


def tables(runs: Sequence[KeptRun]) -> Tables:
    """What kept runs say, in their order."""
    outcomes = by_seed(runs)
    return Tables(
        tuple(shares_of(outcomes, *key) for key in outcomes),
        tuple(effect_of(outcomes, *key, measure) for key in outcomes for measure in measures_of(key[0])),
        tuple(goal_of(outcomes, rule) for rule in RECOMMENDED),
    )


def _shares_line(one: Shares) -> str:
    measured = (f"{100 * share:.1f}" if share is not None else "" for share in (one.war, one.taken, one.overlooked))
    return f"| {one.attack} | `{one.rule}` | {one.seeds} | {' | '.join(measured)} | {one.rejected}/{one.hostile} |"


def _effect_line(one: Effect) -> str:
    undone = "" if one.recovered is None else f"{one.recovered:.2f}"
    if undone and one.recovered_interval:
        undone += f" ({one.recovered_interval[0]:.2f} to {one.recovered_interval[1]:.2f})"
    return f"| {one.attack} | `{one.rule}` | {one.measure} | {_points(one.cost)} | {_points(one.gain)} | {undone} |"


def _numbers(found: Difference | None) -> dict[str, float] | None:
    return found._asdict() if found else None


def _points(found: Difference | None) -> str:
    if found is None:
        return ""
    return f"{100 * found.estimate:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
