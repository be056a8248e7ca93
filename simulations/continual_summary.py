"""From the results of a comparison to its numbers: a row for each method, limit and seed, and what they come to.

Every share of a row is the mean over devices, but for the worst tenth, which is of people. Differences are paired: the
same people, seeds, base and lessons.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from mcoe_model.files import read_json, write_json
from mcoe_model.learning.forgetting import (
    INFORMATIVE_FORGETTING,
    forgetting_after,
    removed,
    stream_scores,
    worst_tenth,
)
from mcoe_model.learning.methods import MethodSettings, described
from simulations.continual_people import Outcome, by_person, differences, removed_interval
from simulations.continual_run import Run
from simulations.continual_settings import Arm, OwnMethod
from simulations.goals import Bounds, Verdict, all_of, at_least
from simulations.tables import write_csv, write_for_people

#: Tables of fewer seeds are exploratory (the protocol).
CONFIRMATORY_SEEDS = 10
#: What a chosen method is to reach: the share of naive forgetting removed, and how far below joint training it may end.
ENOUGH_REMOVED, NEAR_JOINT = 0.70, 0.03
MEASURES = ("acc", "bwt", "fwt", "forgetting", "forgetting_from_base", "unseen_acc", "worst_tenth")
SAME_COMPUTATION = (
    "latent-replay and experience-replay are the same computation, identical by construction: they differ in bytes "
    "only, and so in how many clips a limit has room for."
)
NO_UPPER_LINE = (
    "In rounds joint training begins its optimiser anew in every epoch: it is no sure upper line here, and a method "
    "may end above it."
)


def write_results(run: Run) -> dict[str, Any]:
    """Write table.csv and methods.csv (each also as .md, .tex) and summary.json; returns the summary."""
    outcomes = {arm.label: _outcome(run, arm) for arm in run.arms}
    tables = {arm.label: _table(run, arm, outcomes[arm.label]) for arm in run.arms}
    rows = [row for arm in run.arms for row in tables[arm.label]]
    for arm in run.settings.arms:
        if arm.label in run.left_out:
            heads = [_head(run, arm, seed) for seed in range(run.settings.seeds)]
            rows += [head | dict.fromkeys(rows[0].keys() - head.keys()) for head in heads]
    rows = [{key: row[key] for key in rows[0]} for row in rows]
    summary = _summary(run, outcomes, tables)
    methods = [_of_method(run, arm, summary) for arm in run.arms]
    caption = " ".join(summary["notes"])
    for name, written in {"table": rows, "methods": methods}.items():
        write_csv(run.folder / f"{name}.csv", written)
        write_for_people(run.folder / name, written, caption)
    write_json(run.folder / "summary.json", summary)
    return summary


def verdict(removed_between: Bounds, joint_between: Bounds) -> Verdict:
    """Whether enough is removed, and near enough to joint training, by the 95 % intervals of both; None for none."""
    return all_of([at_least(removed_between, ENOUGH_REMOVED), at_least(joint_between, -NEAR_JOINT)])


def _outcome(run: Run, arm: Arm) -> Outcome:
    seeds = range(run.settings.seeds)
    found = [[run.learned(seed, arm, stream.device) for stream in run.streams] for seed in seeds]
    return Outcome.of(found, run.clips.records)


def _head(run: Run, arm: Arm, seed: int | str) -> dict[str, Any]:
    limit = f"{arm.megabytes:g}" if arm.limit_bytes else ""
    learned = {"method": arm.method.label, "learned": run.settings.where}
    return learned | {"memory_mb": limit, "eviction": arm.method.eviction, "seed": str(seed)}


def _table(run: Run, arm: Arm, outcome: Outcome) -> list[dict[str, Any]]:
    """The row of every seed."""
    rows = []
    people = by_person(outcome.acc)  # (K, people)
    for seed, own in enumerate(outcome.own):
        scores = [stream_scores(device) for device in own]
        rows.append(
            _head(run, arm, seed)
            | {"devices": len(scores), "people": people.shape[1]}
            | {
                name: float(np.mean([getattr(one, name) for one in scores]))
                for name in ("acc", "bwt", "fwt", "forgetting", "forgetting_from_base")
            }
            | {
                "unseen_acc": float(outcome.unseen[seed, :, -1].mean()),
                "worst_tenth": worst_tenth(people[seed]),
                "bytes_kept": int(outcome.bytes_kept[seed].max()),
                "rejected": int(outcome.rejected[seed].sum()),
            }
        )
    return rows


def _of_method(run: Run, arm: Arm, summary: dict[str, Any]) -> dict[str, Any]:
    """The row of a method and limit over all seeds, with 95 % intervals over people and seeds."""
    found = summary["arms"][arm.label]
    row = _head(run, arm, "all") | {"devices": summary["devices"], "people": summary["people"]}
    row |= {name: found[name] for name in MEASURES}
    for name in ("acc_minus_naive", "forgetting_minus_naive", "acc_minus_joint"):
        for end in ("estimate", "low", "high"):
            row[name if end == "estimate" else f"{name}_{end}"] = found[name] and found[name][end]
    low, high = found["removed_interval"] or (None, None)
    row |= {"removed": found["removed"], "removed_low": low, "removed_high": high}
    return row | {"reached": summary["reached"].get(arm.label), "bytes_kept": found["bytes_kept"]}


def _summary(run: Run, outcomes: dict[str, Outcome], tables: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    settings, record = run.settings, read_json(run.folder / "run.json")
    naive = _mean(tables["naive"], "forgetting")
    arms = {}
    for arm in run.arms:
        outcome, rows = outcomes[arm.label], tables[arm.label]
        curves = np.array([[forgetting_after(device) for device in seed] for seed in outcome.own])  # (K, D, T - 1)
        forgotten = _mean(rows, "forgetting")
        arms[arm.label] = {
            **{name: _mean(rows, name) for name in MEASURES},
            "bytes_kept": max(row["bytes_kept"] for row in rows),
            "rejected": sum(row["rejected"] for row in rows),
            "limit_bytes": arm.limit_bytes,
            "removed": removed(naive, forgotten) if arm.label != "naive" else None,
            "own": outcome.own.mean(axis=(0, 1)).tolist(),
            "unseen": outcome.unseen.mean(axis=(0, 1)).tolist(),
            "forgetting_over_time": curves.mean(axis=(0, 1)).tolist(),
        }
    _compare(arms, outcomes)
    base = arms["naive"]
    informative = naive >= INFORMATIVE_FORGETTING
    return {
        "stream": settings.stream,
        "learned": settings.where,
        "rule": settings.rule if settings.federated else None,
        "stages": len(run.streams[0].stages),
        "data": record["data"],
        "model": settings.model,
        "seeds": settings.seeds,
        "devices": len(run.streams),
        "people": tables["naive"][0]["people"],
        "exploratory": settings.seeds < CONFIRMATORY_SEEDS,
        "informative": informative,
        "naive_forgetting": naive,
        "base": {side: float(np.mean(base[side][0])) for side in ("own", "unseen")},
        "methods": described([arm.method for arm in run.arms if isinstance(arm.method, MethodSettings)]),
        "own_methods": [asdict(arm.method.own) for arm in run.arms if isinstance(arm.method, OwnMethod)],
        "left_out": run.left_out,
        "arms": arms,
        "reached": _reached(arms) if informative and "joint" in arms else {},
        "notes": _notes(run),
    }


def _compare(arms: dict[str, dict[str, Any]], outcomes: dict[str, Outcome]) -> None:
    """Into each arm, its paired differences to naive fine-tuning and to joint training; None where there are none."""
    for found in arms.values():
        found |= dict.fromkeys(("acc_minus_naive", "forgetting_minus_naive", "acc_minus_joint", "removed_interval"))
    acc = {label: outcome.acc for label, outcome in outcomes.items()}
    forgetting = {label: outcome.forgetting for label, outcome in outcomes.items()}
    for reference, measure, clips in (
        ("naive", "acc", acc),
        ("naive", "forgetting", forgetting),
        ("joint", "acc", acc),
    ):
        others = [label for label in arms if label != reference]
        if reference in arms and (compared := differences([clips[label] for label in others], clips[reference])):
            for label, difference in zip(others, compared, strict=True):
                arms[label][f"{measure}_minus_{reference}"] = difference
    for label, found in arms.items():
        if found["removed"] is not None:
            found["removed_interval"] = removed_interval(forgetting["naive"], forgetting[label])


def _reached(arms: dict[str, dict[str, Any]]) -> dict[str, Verdict]:
    """The verdict on every method with a limit of memory."""
    found = {}
    for label, one in arms.items():
        if one["limit_bytes"] is not None:
            joint = one["acc_minus_joint"]
            found[label] = verdict(one["removed_interval"], (joint["low"], joint["high"]) if joint else None)
    return found


def _notes(run: Run) -> list[str]:
    """What must be known to read the numbers."""
    names = {arm.method.name for arm in run.arms if isinstance(arm.method, MethodSettings)}
    notes = [SAME_COMPUTATION] if {"latent-replay", "experience-replay"} <= names else []
    return notes + ([NO_UPPER_LINE] if run.settings.federated and "joint" in names else [])


def _mean(rows: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))
