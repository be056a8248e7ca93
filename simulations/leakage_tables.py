"""The leakage study's tables: rows for files and programs, and the same for people.

Shares are fractions in rows and percent on the terminal. Intervals are of 95 %, over subjects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from mcoe_model.learning.metrics import paired_difference
from simulations import load_separation
from simulations.answers import Answers, pool
from simulations.load_separation import Separation

MEASURES = ("mix_off", "most_frequent", "lighting")

Floats = NDArray[np.float64]
Row = dict[str, Any]
#: (model, what is routed, what separates) -> how far.
Separations = dict[tuple[str, str, str], Separation]


@dataclass(frozen=True)
class Found:
    """What the run of one seed says.

    - ``victims``: whose each client is, with the seed before it, since each seed has people of its own.
    - ``attackers``: attacker -> measure -> of every victim (P,).
    - ``answers``: level -> what the test subjects' clips are taken for.
    """

    separations: Separations
    victims: tuple[str, ...]
    attackers: dict[str, dict[str, Floats]]
    answers: dict[str, Answers]


def rows(found: Sequence[Found]) -> dict[str, list[Row]]:
    """Each table's rows, by its name, over all seeds."""
    return {"separation": _separation_rows(found), "attackers": _attacker_rows(found), "cost": _cost_rows(found)}


def tables(of: Mapping[str, list[Row]]) -> list[Table]:
    """The same for people."""
    return [_separation_table(of["separation"]), _attacker_table(of["attackers"]), _cost_table(of["cost"])]


def _separation_rows(found: Sequence[Found]) -> list[Row]:
    """One row for each model, what is routed and what separates: the mean over the seeds."""
    made = []
    for model, routed, what in found[0].separations:
        one = load_separation.pool([of_seed.separations[model, routed, what] for of_seed in found])
        made.append({"model": model, "routed": routed, "separates": what, "share": one.share,
                     "chance": float(one.chance.mean()), "chance_95": float(np.quantile(one.chance, 0.95)),
                     "p": one.p})  # fmt: skip
    return made


def _attacker_rows(found: Sequence[Found]) -> list[Row]:
    """One row for each attacker over the victims of all seeds, with its differences to who has seen nothing."""
    subjects = [subject for one in found for subject in one.victims]
    made = []
    for attacker in found[0].attackers:
        row: Row = {"attacker": attacker}
        blind = f"nothing, {attacker.rpartition(', ')[2]}"
        for measure in MEASURES:
            own, other = (
                np.concatenate([one.attackers[name][measure] for one in found])[None] for name in (attacker, blind)
            )
            apart = paired_difference(own, other, subjects, seed=0)
            row |= {measure: float(own.mean()), f"{measure}_low": apart.low, f"{measure}_high": apart.high}
        made.append(row)
    return made


def _cost_rows(found: Sequence[Found]) -> list[Row]:
    """One row for each level: WAR on the test subjects of all seeds, and its difference to exact statistics."""
    said = {level: pool([one.answers[level] for one in found]) for level in found[0].answers}
    subjects = [f"{number}/{subject}" for number, one in enumerate(found) for subject in one.answers["exact"].subjects]
    exact = said["exact"].correct()[None]
    made = []
    for level, answers in said.items():
        apart = paired_difference(answers.correct()[None], exact, subjects, seed=0)
        made.append({"level": level, "war": answers.score().war, "difference": apart.estimate, "low": apart.low,
                     "high": apart.high})  # fmt: skip
    return made


def _separation_table(rows: list[Row]) -> Table:
    table = Table(title="What separates how clients' clips are routed (share of the variance between groups)")
    for column in ("model", "of a clip", "between", "share %", "by chance % (95 % below)", "p"):
        table.add_column(column, justify="left" if column in ("model", "of a clip", "between") else "right")
    for row in rows:
        chance = f"{100 * row['chance']:.1f} ({100 * row['chance_95']:.1f})"
        name = (row["model"], row["routed"], f"{row['separates']}s")
        table.add_row(*name, f"{100 * row['share']:.1f}", chance, f"{row['p']:.3f}")
    return table


def _attacker_table(rows: list[Row]) -> Table:
    table = Table(title="What an attacker tells of a client (95 % interval of the difference to seeing nothing)")
    for column in ("he sees", "mix off by", "most frequent emotion %", "lighting %"):
        table.add_column(column, justify="left" if column == "he sees" else "right")
    for row in rows:
        apart = {m: f"({100 * row[f'{m}_low']:+.1f} to {100 * row[f'{m}_high']:+.1f})"
                 for m in MEASURES}  # fmt: skip
        table.add_row(row["attacker"], *(f"{100 * row[m]:.1f} {apart[m]}" for m in apart))
    return table


def _cost_table(rows: list[Row]) -> Table:
    table = Table(title="What a level costs where the rule uses statistics (95 % interval of the difference)")
    for column in ("the rule knows", "WAR %", "to exact, points"):
        table.add_column(column, justify="left" if column == "the rule knows" else "right")
    for row in rows:
        apart = f"{100 * row['difference']:+.1f} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"
        table.add_row(row["level"], f"{100 * row['war']:.1f}", apart)
    return table
