"""The parts of a report that come from rounds: the curve, what was sent, who was rejected, which experts work.

Over all folds the curve is the mean of the folds' curves and what was sent is their sum; experts are each fold's own.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mcoe_model.router_statistics import RouterStatistics
from server.registry import ABANDONED, PUBLISHED
from simulations import plots
from simulations.answers import choose_centralised, validation_score
from simulations.coordination import open_registry
from simulations.summary import round_table
from simulations.words import megabytes

_ROUNDS_SHOWN = 24


def rounds(folders: Sequence[Path], summary: Mapping[str, Any]) -> dict[str, Any]:
    """Rounds as they went, with the base as round 0 and the arms without rounds as lines."""
    rows = [{"fold": fold} | row for fold, folder in enumerate(folders) for row in round_table(folder)]
    numbers = sorted({row["round"] for row in rows})
    lines = _lines(folders)
    done = []
    for number in numbers:
        scored = [row for row in rows if row["round"] == number and row["validation_war"] is not None]
        if len(scored) == len(folders):
            means = {key: statistics.mean(row[key] for row in scored) for key in ("validation_war", "validation_uar")}
            done.append({"round": number} | means)
    measured = {
        measure: [(0, lines["base"][measure])] * ("base" in lines) + [(row["round"], 100 * row[key]) for row in done]
        for measure, key in (("WAR", "validation_war"), ("UAR", "validation_uar"))
    }
    first, last = measured["WAR"][0], measured["WAR"][-1]
    traffic = {
        way: [sum(row[key] for row in rows if row["round"] == number) / 1e6 for number in numbers]
        for way, key in (("up", "bytes_up"), ("down", "bytes_down"))
    }
    return {
        "rows": rows,
        "abandoned": [row for row in rows if row["state"] == ABANDONED],
        "best": max(done, key=lambda row: row["validation_war"]),
        "last": done[-1],
        "base_war": lines["base"]["WAR"] / 100 if "base" in lines else None,
        "plot": plots.rounds_plot(
            f"Line plots over rounds on the validation subjects: WAR goes from {first[1]:.1f} % before round 1 "
            f"to {last[1]:.1f} % after round {last[0]}.", measured, lines, 100 * summary["chance"]),
        "traffic_plot": plots.traffic_plot(
            f"Bars per round: megabytes up and down. In total {megabytes(summary['bytes_up'])} up and "
            f"{megabytes(summary['bytes_down'])} down.", numbers, traffic["up"], traffic["down"]),
    }


def _lines(folders: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Arm without rounds -> measure -> percent on the validation part, the mean over the folds that have it."""
    found: dict[str, list[tuple[float, float]]] = {}
    for folder in folders:
        for arm, name in (("base", "base"), ("centralised", choose_centralised(folder))):
            scored = validation_score(folder, name) if name else None
            if scored:
                found.setdefault(arm, []).append((scored.war, scored.uar))
    means = {arm: [statistics.mean(values) for values in zip(*scores, strict=True)] for arm, scores in found.items()}
    return {arm: {"WAR": 100 * war, "UAR": 100 * uar} for arm, (war, uar) in means.items()}


def rejected(folders: Sequence[Path]) -> list[tuple[int, int, str, str]]:
    """(fold, round, client, reason) of every reply that was not aggregated because of what it was."""
    return [
        (fold, row.number, reply.client_id, reply.reason or "")
        for fold, folder in enumerate(folders)
        for registry in [open_registry(folder)]
        for row in registry.rounds()
        for reply in registry.replies(row.id)
        if not reply.accepted
    ]


def experts(folder: Path, clients: int) -> dict[str, Any] | None:
    """Shares of clips that go through each expert: by client in the last round, by round over the cohort.

    From the registry and not from the table, where a round's abandoned attempts stand beside the one that counts.
    None when no reply carried statistics.
    """
    registry = open_registry(folder)
    by_round = {
        row.number: found
        for row in registry.rounds()
        if row.state == PUBLISHED and (found := registry.router_statistics(row.id))
    }
    if not by_round:
        return None
    last = max(by_round)
    cohorts = {number: _sum(list(clients.values())) for number, clients in by_round.items()}
    numbers = sorted(cohorts)
    step = math.ceil(len(numbers) / _ROUNDS_SHOWN)
    routed = cohorts[last].routed
    experts, top_k = len(routed), cohorts[last].top_k
    busiest = int(np.argmax(routed))
    return {
        "numbers": list(range(experts)),
        "top_k": top_k,
        "even": top_k / experts,
        "last": last,
        "clients": [(client, found.examples, _shares(found)) for client, found in sorted(by_round[last].items())],
        "unheard": clients - len(by_round[last]),
        "cohort": _shares(cohorts[last]),
        "over_rounds": [(number, _shares(cohorts[number])) for number in numbers if (last - number) % step == 0],
        "step": step,
        "dead": [expert for expert in range(experts) if not routed[expert]],
        "never": [expert for expert in range(experts) if not any(found.routed[expert] for found in cohorts.values())],
        "busiest": (busiest, _shares(cohorts[last])[busiest]),
    }


def _sum(statistics: Sequence[RouterStatistics]) -> RouterStatistics:
    return sum(statistics[1:], start=statistics[0])


def _shares(statistics: RouterStatistics) -> list[float]:
    """The share of clips that chose each expert among their top k; they sum to k."""
    return [count / max(1, statistics.examples) for count in statistics.routed]
