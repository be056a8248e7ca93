"""What a study's runs say together: every value of a factor beside the reference, paired, over all seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mcoe_model.learning.metrics import Difference, holm, nested_difference, nested_gain_interval, recovered_gain
from simulations.answers import INFORMATIVE_GAIN, Answers, arm_answers
from simulations.study_grid import Factor, Grid, Run, in_words

#: The smallest difference of WAR that is worth a word, and within which two settings are equivalent.
RELEVANT = 0.01


@dataclass(frozen=True)
class Row:
    """One value of a factor over all seeds; measures in [0, 1]. ``difference`` is None for the reference itself.

    ``base`` and ``upper`` are the WAR of the base and of centralised training from it, which ``gain`` is measured by;
    None where that did not run. ``missing``: seeds whose run failed or was not made. ``informative``: whether training
    in one place gains enough over the base for federation to be judged at all.
    """

    value: str
    war: float
    uar: float
    worst_tenth: float | None
    base: float | None
    upper: float | None
    gain: float | None
    gain_interval: tuple[float, float] | None
    informative: bool | None
    megabytes_up: float
    seconds: float
    difference: Difference | None
    missing: int = 0
    holm_p: float | None = None

    @property
    def verdict(self) -> str:
        """The protocol's word for a paired difference of WAR."""
        found = self.difference
        if found is None:
            return "the reference"
        if found.low > 0 and found.estimate >= RELEVANT:
            return "better"
        if found.high < 0 and found.estimate <= -RELEVANT:
            return "worse"
        return "equivalent" if found.low >= -RELEVANT and found.high <= RELEVANT else "not resolved"


def tables(
    grid: Grid, runs: Sequence[Run], summaries: Mapping[str, Mapping[str, Any]], folder: Path
) -> list[list[Row]]:
    """A table per factor, the reference first. ``summaries`` holds those of the runs that are done, below ``folder``.

    p is adjusted over all comparisons of the study (Holm). A factor of which nothing is done has the reference alone.
    """
    said = {run.name: _answers(folder / run.name) for run in runs if run.name in summaries}
    of = {(in_words(run.changed), run.seed): run for run in runs}

    def row(changed: Mapping[str, Any], upper: Callable[[Run], Run]) -> Row | None:
        every = [of[in_words(changed), seed] for seed in grid.seeds]
        done = [run for run in every if run.name in said and upper(run).name in said]
        return _row(done, len(every) - len(done), said, summaries, of, upper) if done else None

    reference = row({}, lambda run: run)
    found = []
    for factor in grid.factors:
        upper = _upper_of(factor, of)
        rows = [row(value, upper) for value in factor.values]
        found.append([one for one in (reference, *rows) if one])
    return _adjusted(found)


def _upper_of(factor: Factor, of: Mapping[tuple[str, int], Run]) -> Callable[[Run], Run]:
    """The run whose base and centralised arm a run of the factor is judged by: its own, or the reference's."""
    return lambda run: of["reference", run.seed] if factor.changes == "rounds" else run


def _row(
    runs: Sequence[Run],
    missing: int,
    said: Mapping[str, Mapping[str, Answers]],
    summaries: Mapping[str, Mapping[str, Any]],
    of: Mapping[tuple[str, int], Run],
    upper: Callable[[Run], Run],
) -> Row:
    scores = [said[run.name]["federated"].score() for run in runs]
    lines = [said[upper(run).name] for run in runs]
    pairs = [
        (said[run.name]["federated"], said[other.name]["federated"])
        for run in runs
        if not run.reference and (other := of["reference", run.seed]).name in said
    ]
    judged = [
        (line["base"], said[run.name]["federated"], line["centralised"])
        for run, line in zip(runs, lines, strict=True)
        if "centralised" in line and line["base"].subjects == said[run.name]["federated"].subjects
    ]
    base, federated, most = (_war([arms[place] for arms in judged]) for place in range(3)) if judged else (None,) * 3
    room = _difference([(upper, base) for base, _, upper in judged])
    tenths = [score.worst_tenth for score in scores if score.worst_tenth is not None]
    return Row(
        value=in_words(runs[0].changed),
        war=_war([said[run.name]["federated"] for run in runs]),
        uar=statistics.mean(score.uar for score in scores),
        worst_tenth=statistics.mean(tenths) if tenths else None,
        base=base,
        upper=most,
        gain=None if base is None or federated is None or most is None else recovered_gain(base, federated, most),
        gain_interval=_gain_interval(judged) if judged else None,
        informative=room.estimate >= INFORMATIVE_GAIN and room.low > 0 if room else None,
        megabytes_up=statistics.mean(summaries[run.name]["bytes_up"] for run in runs) / 1e6,
        seconds=statistics.mean(summaries[run.name]["seconds"] for run in runs),
        difference=_difference(pairs),
        missing=missing,
    )


def _difference(pairs: Sequence[tuple[Answers, Answers]]) -> Difference | None:
    """Paired over the clips that both were tested on; None where a seed's two runs tested others."""
    if not pairs or any(arm.subjects != other.subjects for arm, other in pairs):
        return None
    return nested_difference([(arm.correct(), other.correct(), arm.subjects) for arm, other in pairs], seed=0)


def _war(arm: Sequence[Answers]) -> float:
    """Over the clips of all seeds."""
    return float(np.concatenate([answers.correct() for answers in arm]).mean())


def _gain_interval(judged: Sequence[tuple[Answers, Answers, Answers]]) -> tuple[float, float] | None:
    """Of the recovered gain, from base, federated and centralised arm of every seed."""
    runs = [(base.correct(), arm.correct(), upper.correct(), base.subjects) for base, arm, upper in judged]
    return nested_gain_interval(runs, seed=0)


def _answers(folder: Path) -> dict[str, Answers]:
    return arm_answers([folder])


def _adjusted(found: list[list[Row]]) -> list[list[Row]]:
    """The rows with p adjusted over every comparison that was declared."""
    compared = [(t, r) for t, rows in enumerate(found) for r, row in enumerate(rows) if row.difference]
    p = holm([found[t][r].difference.p for t, r in compared])  # type: ignore[union-attr]
    for (t, r), adjusted in zip(compared, p, strict=True):
        found[t][r] = replace(found[t][r], holm_p=adjusted)
    return found
