"""From the results of a comparison to its numbers: a row for each method, limit and seed, and what they come to.

Every share of a row is the mean over devices. Differences are paired: the same devices, seeds, base and lessons.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcoe_model.files import read_json, write_json
from mcoe_model.learning.forgetting import (
    INFORMATIVE_FORGETTING,
    forgetting_after,
    removed,
    stream_scores,
    worst_tenth,
)
from mcoe_model.learning.methods import MethodSettings, described
from mcoe_model.learning.metrics import Difference, holm, paired_difference
from simulations.continual_run import Run
from simulations.continual_settings import Arm, OwnMethod
from simulations.tables import write_csv, write_for_people

#: Tables of fewer seeds are exploratory (the protocol).
CONFIRMATORY_SEEDS = 10
#: What a chosen method is to reach: the share of naive forgetting removed, and how far below joint training it may end.
ENOUGH_REMOVED, NEAR_JOINT = 0.70, 0.03
MEASURES = ("acc", "bwt", "fwt", "forgetting", "forgetting_from_base", "unseen_acc", "worst_tenth")


def write_results(run: Run) -> dict[str, Any]:
    """Write table.csv (and .md, .tex) and summary.json; returns the summary."""
    tables = {arm.label: _table(run, arm) for arm in run.arms}
    rows = [row for arm in run.arms for row in tables[arm.label]]
    for arm in run.settings.arms:
        if arm.label in run.left_out:
            heads = [_head(run, arm, seed) for seed in range(run.settings.seeds)]
            rows += [head | dict.fromkeys(rows[0].keys() - head.keys()) for head in heads]
    rows = [{key: row[key] for key in rows[0]} for row in rows]
    write_csv(run.folder / "table.csv", rows)
    write_for_people(run.folder / "table", rows)
    summary = _summary(run, tables)
    write_json(run.folder / "summary.json", summary)
    return summary


def _head(run: Run, arm: Arm, seed: int) -> dict[str, Any]:
    limit = f"{arm.megabytes:g}" if arm.limit_bytes else ""
    learned = {"method": arm.method.label, "learned": run.settings.where}
    return learned | {"memory_mb": limit, "eviction": arm.method.eviction, "seed": str(seed)}


def _table(run: Run, arm: Arm) -> list[dict[str, Any]]:
    rows = []
    for seed in range(run.settings.seeds):
        learned = [run.learned(seed, arm, stream.device) for stream in run.streams]
        scores = [stream_scores(one.own) for one in learned]
        accs = np.array([one.acc for one in scores])
        rows.append(
            _head(run, arm, seed)
            | {"devices": len(scores)}
            | {
                name: float(np.mean([getattr(one, name) for one in scores]))
                for name in ("acc", "bwt", "fwt", "forgetting", "forgetting_from_base")
            }
            | {
                "unseen_acc": float(np.mean([one.unseen[-1].mean() for one in learned])),
                "worst_tenth": worst_tenth(accs),
                "bytes_kept": max(one.bytes_kept for one in learned),
                "rejected": sum(one.rejected for one in learned),
            }
        )
    return rows


def _summary(run: Run, tables: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    settings, record = run.settings, read_json(run.folder / "run.json")
    naive = _mean(tables["naive"], "forgetting")
    joint = _mean(tables["joint"], "acc") if "joint" in tables else None
    arms = {}
    for arm in run.arms:
        own, unseen = _matrices(run, arm)  # (K, D, T + 1, T) each
        rows = tables[arm.label]
        curves = np.array([[forgetting_after(device) for device in seed] for seed in own])  # (K, D, T - 1)
        forgotten = _mean(rows, "forgetting")
        arms[arm.label] = {
            **{name: _mean(rows, name) for name in MEASURES},
            "bytes_kept": max(row["bytes_kept"] for row in rows),
            "rejected": sum(row["rejected"] for row in rows),
            "limit_bytes": arm.limit_bytes,
            "removed": removed(naive, forgotten) if arm.label != "naive" else None,
            "acc_minus_joint": _mean(rows, "acc") - joint if joint is not None else None,
            "own": own.mean(axis=(0, 1)).tolist(),
            "unseen": unseen.mean(axis=(0, 1)).tolist(),
            "forgetting_over_time": curves.mean(axis=(0, 1)).tolist(),
        }
    _compare(run, arms)
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
        "exploratory": settings.seeds < CONFIRMATORY_SEEDS,
        "informative": informative,
        "naive_forgetting": naive,
        "base": {side: float(np.mean(base[side][0])) for side in ("own", "unseen")},
        "methods": described([arm.method for arm in run.arms if isinstance(arm.method, MethodSettings)]),
        "own_methods": [asdict(arm.method.own) for arm in run.arms if isinstance(arm.method, OwnMethod)],
        "left_out": run.left_out,
        "arms": arms,
        "reached": [label for label, found in arms.items() if informative and _reached(found)],
    }


def _reached(found: dict[str, Any]) -> bool:
    if found["limit_bytes"] is None or found["removed"] is None or found["acc_minus_joint"] is None:
        return False
    return bool(found["removed"] >= ENOUGH_REMOVED and found["acc_minus_joint"] >= -NEAR_JOINT)


def _compare(run: Run, arms: dict[str, dict[str, Any]]) -> None:
    """Into each arm, its paired differences to naive fine-tuning; none where there is one device only."""
    others = [arm for arm in run.arms if arm.label != "naive"]
    devices = [stream.device for stream in run.streams]
    if len(devices) < 2 or not others:
        return
    naive = next(arm for arm in run.arms if arm.label == "naive")
    for measure in ("acc", "forgetting"):
        reference = _by_device(run, naive, measure)
        found = [paired_difference(_by_device(run, arm, measure), reference, devices, seed=0) for arm in others]
        for arm, difference, p in zip(others, found, holm([one.p for one in found]), strict=True):
            arms[arm.label][f"{measure}_minus_naive"] = _plain(difference) | {"p_holm": p}


def _plain(difference: Difference) -> dict[str, Any]:
    return dict(difference._asdict())


def _by_device(run: Run, arm: Arm, measure: str) -> NDArray[np.float64]:
    """(K, D): a measure of every seed and device."""
    own, _ = _matrices(run, arm)
    return np.array([[getattr(stream_scores(device), measure) for device in seed] for seed in own])


def _matrices(run: Run, arm: Arm) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """R of every seed and device on own and on unseen people's clips: (K, D, T + 1, T) each."""
    learned = [
        [run.learned(seed, arm, stream.device) for stream in run.streams] for seed in range(run.settings.seeds)
    ]
    return (
        np.array([[one.own for one in row] for row in learned]),
        np.array([[one.unseen for one in row] for row in learned]),
    )


def _mean(rows: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))
