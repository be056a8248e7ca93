"""What a study's runs say together: every value of a factor beside the reference, paired, over all seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mcoe_model.files import read_json
from mcoe_model.learning.metrics import (
    Difference,
    LightingScore,
    Scores,
    holm,
    nested_difference,
    nested_gain_interval,
    recovered_gain,
)
from mcoe_model.names import EMOTIONS, LIGHTINGS
from simulations.answers import ARMS, INFORMATIVE_GAIN, Answers, arm_answers
from simulations.scene import Paths
from simulations.study_grid import Factor, Grid, Run, in_words

#: The smallest difference of WAR that is worth a word, and within which two settings are equivalent.
RELEVANT = 0.01


@dataclass(frozen=True)
class Measures:
    """What else the federated model scored, in [0, 1]: means over seeds, but for ``lightings``.

    ``classes``: how many emotions the test clips of a seed show, at least and at most; ``recalls``: by emotion, over
    the seeds that show it; ``lightings``: over the clips of all seeds, each seed's subjects counted.
    """

    f1p: float
    macro_f1: float
    clip_war: float | None
    classes: tuple[int, int]
    recalls: Mapping[str, float]
    lightings: Mapping[str, LightingScore]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One value of a factor over all seeds; measures in [0, 1]. ``difference`` is None for the reference itself.

    ``base``, ``upper`` and ``all_data`` are the WAR of the base, of centralised training from it and of all data in one
    place, from scratch; ``room`` is upper - base, and ``gain`` is measured by both. They are over the seeds that have
    them, as is ``judged``, the federated WAR; None where no seed has. ``missing``: seeds of ``seeds`` declared whose
    run failed or was not made.
    """

    value: str
    seeds: int
    missing: int
    war: float
    uar: float
    worst_tenth: float | None
    base: float | None
    judged: float | None
    upper: float | None
    all_data: float | None
    room: Difference | None
    gain: float | None
    gain_interval: tuple[float, float] | None
    megabytes_up: float
    seconds: float
    difference: Difference | None
    measures: Measures
    holm_p: float | None = None

    @property
    def done(self) -> int:
        """Seeds that the row rests on."""
        return self.seeds - self.missing

    @property
    def informative(self) -> bool | None:
        """Whether training in one place gains enough over the base for federation to be judged at all."""
        return self.room.estimate >= INFORMATIVE_GAIN and self.room.low > 0 if self.room else None

    @property
    def verdict(self) -> str:
        """The protocol's word for a paired difference of WAR."""
        found = self.difference
        if found is None:
            return "the reference" if self.value == in_words({}) else "not compared"
        if found.low > 0 and found.estimate >= RELEVANT:
            return "better"
        if found.high < 0 and found.estimate <= -RELEVANT:
            return "worse"
        return "equivalent" if found.low >= -RELEVANT and found.high <= RELEVANT else "not resolved"

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of numbers, words, lists and None."""
        pairs = {"difference": self.difference, "room": self.room}
        named = {key: pair._asdict() if pair else None for key, pair in pairs.items()}
        lightings = {name: under._asdict() for name, under in self.measures.lightings.items()}
        measures = {**asdict(self.measures), "lightings": lightings}
        return {**asdict(self), **named, "measures": measures, "informative": self.informative, "verdict": self.verdict}


@dataclass(frozen=True)
class Tuned:
    """Which learning rate an arm of a run took on validation subjects, and what it was chosen from.

    ``scores``: WAR on validation at each rate of the grid, None where the trial was lost or had nothing to choose;
    ``chosen``: one rate, or one for each fold; ``add``: what would extend the grid where a best value is at its edge.
    """

    value: str
    seed: int
    arm: str
    scores: Mapping[float, float | None]
    chosen: tuple[float, ...]
    add: tuple[float, ...]


def tables(
    grid: Grid, runs: Sequence[Run], summaries: Mapping[str, Mapping[str, Any]], folder: Path
) -> list[list[Row]]:
    """A table per factor, the reference first. ``summaries`` holds those of the runs that are done, below ``folder``.

    p is adjusted over all comparisons of the study (Holm); a setting of which nothing is done has no row, and counts
    there as one that shows nothing. A factor of which nothing is done has the reference alone.
    """
    said = {run.name: answers_of_run(folder / run.name) for run in runs if run.name in summaries}
    of = {(in_words(run.changed), run.seed): run for run in runs}

    def row(changed: Mapping[str, Any], upper: Callable[[Run], Run]) -> Row | None:
        every = [of[in_words(changed), seed] for seed in grid.seeds]
        done = [run for run in every if run.name in said and upper(run).name in said]
        return _row(done, len(every), said, summaries, of, upper) if done else None

    reference = row({}, lambda run: run)
    found = []
    for factor in grid.factors:
        upper = _upper_of(factor, of)
        rows = [row(value, upper) for value in factor.values]
        found.append([one for one in (reference, *rows) if one])
    return _adjusted(found, sum(len(factor.values) for factor in grid.factors))


def once(tables: Sequence[Sequence[Row]]) -> list[Row]:
    """Every setting's row once, in the order of the tables."""
    found: dict[str, Row] = {}
    for row in (row for table in tables for row in table):
        found.setdefault(row.value, row)
    return list(found.values())


def tuned(runs: Sequence[Run], summaries: Mapping[str, Mapping[str, Any]]) -> list[Tuned]:
    """What every arm of every run that is done took, in the order of the runs; a run over folds has mean scores."""
    return [
        _tuned(run, arm, found)
        for run in runs
        if run.name in summaries
        for arm, found in summaries[run.name]["tuning"]["arms"].items()
    ]


def _tuned(run: Run, arm: str, found: Mapping[str, Any]) -> Tuned:
    chosen, add = (one if isinstance(one, list) else [one] for one in (found["chosen"], found["add"]))
    scores = {trial["lr"]: trial["validation_war"] for trial in found["trials"]}
    return Tuned(in_words(run.changed), run.seed, arm, scores, tuple(chosen), tuple(one for one in add if one))


def tidy_scores(runs: Sequence[Run], summaries: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per run, arm and measure, for programs; a measure that a run does not have is absent."""
    return [
        {"setting": in_words(run.changed), "seed": run.seed, "arm": arm, "measure": measure, "value": value}
        for run in runs
        if run.name in summaries
        for arm in ARMS
        if summaries[run.name][arm]
        for measure, value in _measures_of(summaries[run.name][arm]).items()
        if value is not None
    ]


def tidy_settings(grid: Grid, found: Sequence[Sequence[Row]]) -> list[dict[str, Any]]:
    """One row per factor and setting, for programs: what the page says of it, with intervals and p."""
    return [
        {"factor": factor.says, **_flat(row)} for factor, rows in zip(grid.factors, found, strict=True) for row in rows
    ]


def _flat(row: Row) -> dict[str, Any]:
    """A row without its measures, which `tidy_scores` has; intervals as two columns."""
    said = row.to_json()
    room, difference, gain = (said.pop(key) for key in ("room", "difference", "gain_interval"))
    flat = {"setting": said.pop("value")} | {key: value for key, value in said.items() if key != "measures"}
    flat["gain_low"], flat["gain_high"] = gain or (None, None)
    for name, pair in (("room", room), ("difference", difference)):
        flat |= {f"{name}_{key}": (pair or {}).get(key) for key in Difference._fields}
    return flat


def tidy_tuning(found: Sequence[Tuned]) -> list[dict[str, Any]]:
    """One row per run, arm and trial of a learning rate, for programs; ``chosen``: in how many of the run's folds."""
    return [
        {
            "setting": one.value,
            "seed": one.seed,
            "arm": one.arm,
            "lr": rate,
            "validation_war": war,
            "chosen": one.chosen.count(rate),
        }
        for one in found
        for rate, war in one.scores.items()
    ]


def _measures_of(scored: Mapping[str, Any]) -> dict[str, float | None]:
    """The measures of an arm in a summary, flat."""
    plain = ("war", "uar", "f1p", "macro_f1", "worst_tenth", "clip_war", "classes", "n")
    return (
        {name: scored[name] for name in plain}
        | {f"recall_{emotion}": recall for emotion, recall in scored["per_emotion"].items()}
        | {f"war_{light}": under["war"] for light, under in scored["per_lighting"].items()}
        | {f"subjects_{light}": under["subjects"] for light, under in scored["per_lighting"].items()}
    )


def _upper_of(factor: Factor, of: Mapping[tuple[str, int], Run]) -> Callable[[Run], Run]:
    """The run whose base and centralised arm a run of the factor is judged by: its own, or the reference's."""
    return lambda run: of["reference", run.seed] if factor.changes == "rounds" else run


def _row(
    runs: Sequence[Run],
    seeds: int,
    said: Mapping[str, Mapping[str, Answers]],
    summaries: Mapping[str, Mapping[str, Any]],
    of: Mapping[tuple[str, int], Run],
    upper: Callable[[Run], Run],
) -> Row:
    scores = [said[run.name]["federated"].score() for run in runs]
    pairs = [
        (said[run.name]["federated"], said[other.name]["federated"])
        for run in runs
        if not run.reference and (other := of["reference", run.seed]).name in said
    ]
    return Row(
        value=in_words(runs[0].changed),
        seeds=seeds,
        missing=seeds - len(runs),
        war=_war([said[run.name]["federated"] for run in runs]),
        uar=statistics.mean(score.uar for score in scores),
        worst_tenth=_mean(score.worst_tenth for score in scores),
        **_to_gain([{**said[upper(run).name], "federated": said[run.name]["federated"]} for run in runs]),
        megabytes_up=statistics.mean(summaries[run.name]["bytes_up"] for run in runs) / 1e6,
        seconds=statistics.mean(summaries[run.name]["seconds"] for run in runs),
        difference=_difference(pairs),
        measures=_measures(scores),
    )


def _to_gain(runs: Sequence[Mapping[str, Answers]]) -> dict[str, Any]:
    """What there was to gain, as a row says it, from the arms of every seed that has both lines on the same clips."""
    judged = [arms for arms in runs if "centralised" in arms and arms["base"].subjects == arms["federated"].subjects]
    everywhere = [arm for arm in ARMS if judged and all(arm in arms for arms in judged)]
    war = {arm: _war([arms[arm] for arms in judged]) for arm in everywhere}
    return {
        "base": war.get("base"),
        "judged": war.get("federated"),
        "upper": war.get("centralised"),
        "all_data": war.get("all_data"),
        "room": _difference([(arms["centralised"], arms["base"]) for arms in judged]),
        "gain": recovered_gain(war["base"], war["federated"], war["centralised"]) if judged else None,
        "gain_interval": _gain_interval(judged) if judged else None,
    }


def _measures(scores: Sequence[Scores]) -> Measures:
    """Of the federated models of all seeds."""
    return Measures(
        statistics.mean(score.f1p for score in scores),
        statistics.mean(score.macro_f1 for score in scores),
        _mean(score.clip_war for score in scores),
        (min(score.classes for score in scores), max(score.classes for score in scores)),
        {
            emotion: recall
            for emotion in EMOTIONS
            if (recall := _mean(score.per_emotion.get(emotion) for score in scores)) is not None
        },
        {light: _pooled(under) for light in LIGHTINGS if (under := _under(light, scores))},
    )


def _under(light: str, scores: Sequence[Scores]) -> list[LightingScore]:
    return [score.per_lighting[light] for score in scores if light in score.per_lighting]


def _pooled(found: Sequence[LightingScore]) -> LightingScore:
    """Over the clips of all seeds."""
    clips = sum(one.clips for one in found)
    war = sum(one.war * one.clips for one in found) / clips
    return LightingScore(war, sum(one.subjects for one in found), clips)


def _mean(values: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def _difference(pairs: Sequence[tuple[Answers, Answers]]) -> Difference | None:
    """Paired over the clips that both were tested on; None where a seed's two runs tested others."""
    if not pairs or any(arm.subjects != other.subjects for arm, other in pairs):
        return None
    return nested_difference([(arm.correct(), other.correct(), arm.subjects) for arm, other in pairs], seed=0)


def _war(arm: Sequence[Answers]) -> float:
    """Over the clips of all seeds."""
    return float(np.concatenate([answers.correct() for answers in arm]).mean())


def _gain_interval(judged: Sequence[Mapping[str, Answers]]) -> tuple[float, float] | None:
    """Of the recovered gain, from base, federated and centralised arm of every seed."""
    runs = [
        (arms["base"].correct(), arms["federated"].correct(), arms["centralised"].correct(), arms["base"].subjects)
        for arms in judged
    ]
    return nested_gain_interval(runs, seed=0)


def answers_of_run(folder: Path) -> dict[str, Answers]:
    """What every arm of a run says of its test clips; of a run over folds, those of all folds."""
    return arm_answers([folder / fold for fold in read_json(Paths(folder).run).get("folds", ["."])])


def _adjusted(found: list[list[Row]], declared: int) -> list[list[Row]]:
    """The rows with p adjusted over every comparison that was declared."""
    compared = [(t, r) for t, rows in enumerate(found) for r, row in enumerate(rows) if row.difference]
    without = declared - sum(row.value != in_words({}) for rows in found for row in rows)
    p = holm([found[t][r].difference.p for t, r in compared] + [1.0] * without)  # type: ignore[union-attr]
    for (t, r), adjusted in zip(compared, p, strict=False):
        found[t][r] = replace(found[t][r], holm_p=adjusted)
    return found
