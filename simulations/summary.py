"""From predictions and registry to results: scores of every arm, tables, the model with its card, `summary.json`.

The report is drawn from what is written here and from nothing else.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mcoe_model.files import read_json, write_json
from mcoe_model.learning.metrics import Scores
from mcoe_model.model_file import read_model, write_model
from mcoe_model.names import EMOTIONS
from server.registry import PUBLISHED, Registry
from simulations.answers import (
    ARMS,
    arm_answers,
    choose_centralised,
    gain,
    learned_answers,
    random_passes,
    validation_score,
)
from simulations.arms import CENTRALISED, unlike_published
from simulations.coordination import open_registry
from simulations.parts import PARTS
from simulations.scene import Scene, open_scene
from simulations.settings import SimulationSettings
from simulations.tables import write_csv, write_for_people
from simulations.training_logs import write_tensorboard


def write_results(folder: Path, seconds: float) -> dict[str, Any]:
    """Write summary.json, the tables and model.safetensors of a federated run; returns the summary."""
    scene = open_scene(folder)
    registry = open_registry(folder)
    scores, measured = measure([folder], scene.settings)
    replies = [reply for row in registry.rounds() for reply in registry.replies(row.id)]
    summary = (
        describe(scene.settings)
        | _counts(scene, seconds)
        | {
            "bytes_up": sum(reply.bytes_up for reply in replies),
            "bytes_down": sum(reply.bytes_down for reply in replies),
            "replies": {"accepted": sum(r.accepted for r in replies), "rejected": sum(not r.accepted for r in replies)},
            "centralised_form": choose_centralised(folder),
            "validation": _validation(folder),
            "tuning": read_json(scene.paths.run)["tuning"],
        }
        | measured
    )
    write_csv(folder / "rounds.csv", round_table(folder))
    write_csv(folder / "replies.csv", reply_table(folder))
    write_csv(folder / "router_statistics.csv", _router_table(registry))
    write_arms(folder, scores)
    _write_model(folder, scene.paths.models / f"{registry.newest_model()}.safetensors", scores["federated"])
    if scene.settings.tensorboard:
        write_tensorboard(folder / "tensorboard", scene.paths, round_table(folder))
    write_json(folder / "summary.json", summary)
    return summary


def write_centralised_results(folder: Path, seconds: float) -> dict[str, Any]:
    """Write summary.json and model.safetensors of a run that only trained centrally; returns the summary.

    ``all_data`` is what the model scored on the test part, ``trained_on`` on the clips that it learned from.
    """
    scene = open_scene(folder)
    scored = arm_answers([folder])["all_data"].score()
    learned = learned_answers(folder).score()
    summary = _what(scene.settings) | _counts(scene, seconds)
    summary |= {"all_data": scored.to_json(), "trained_on": learned.to_json()}
    if scene.settings.passes:
        summary["random_passes"] = random_passes([folder], scene.settings.passes)
    _write_model(folder, scene.paths.arm("all_data"), scored)
    if scene.settings.tensorboard:
        write_tensorboard(folder / "tensorboard", scene.paths, [])
    write_json(folder / "summary.json", summary)
    return summary


def describe(settings: SimulationSettings) -> dict[str, Any]:
    """What a summary says of its run before anything is measured."""
    return _what(settings) | {
        "rounds": settings.rounds,
        "cohort": settings.cohort,
        "train": settings.train,
        "rule": settings.rule,
        "server_optimiser": settings.server_optimiser,
    }


def measure(folders: Sequence[Path], settings: SimulationSettings) -> tuple[dict[str, Scores], dict[str, Any]]:
    """The scores of every arm on the test parts of these runs together, and what a summary says of them."""
    answers = arm_answers(folders)
    scores = {arm: said.score() for arm, said in answers.items()}
    measured = gain(answers, settings.seed) | {arm: scores[arm].to_json() if arm in scores else None for arm in ARMS}
    if settings.passes:
        measured["random_passes"] = random_passes(folders, settings.passes)
    return scores, measured


def write_arms(folder: Path, scores: Mapping[str, Scores]) -> None:
    """Write the table of arms for programs and for people."""
    write_csv(folder / "arms.csv", arm_table(scores))
    write_for_people(folder / "arms", arm_table(scores))


def _what(settings: SimulationSettings) -> dict[str, Any]:
    return {
        "model": settings.preset,
        "representation": settings.representation,
        "data": settings.data or "synthetic",
        "protocol": settings.protocol,
        "fold": settings.fold,
        "chance": 1 / len(EMOTIONS),
        "seed": settings.seed,
        "unlike_published": unlike_published(settings),
    }


def _counts(scene: Scene, seconds: float) -> dict[str, Any]:
    return {
        "subjects": {part: len(scene.subjects(part)) for part in PARTS},
        "clips": {part: len(scene.indices(part)) for part in PARTS},
        "seconds": round(seconds, 1),
    }


def _write_model(folder: Path, path: Path, scored: Scores) -> None:
    """The run's model, with what it scored on the test part in its card."""
    tensors, card = read_model(path)
    metrics = {"test": {key: scored.to_json()[key] for key in ("war", "uar", "f1p", "n")}}
    write_model(folder / "model.safetensors", tensors, replace(card, metrics=metrics))


def round_table(folder: Path) -> list[dict[str, Any]]:
    """One row per round: what it did, what it cost, what its model scores on validation."""
    registry = open_registry(folder)
    rows = []
    for row in registry.rounds():
        replies = registry.replies(row.id)
        accepted = [reply for reply in replies if reply.accepted]
        scored = validation_score(folder, f"round-{row.number}") if row.state == PUBLISHED else None
        rows.append(
            {
                "round": row.number,
                "attempt": row.attempt,
                "state": row.state,
                "reason": row.reason or "",
                "cohort": len(row.cohort),
                "accepted": len(accepted),
                "rejected": len(replies) - len(accepted),
                "loss_before": _mean([reply.loss_before for reply in accepted]),
                "loss_after": _mean([reply.loss_after for reply in accepted]),
                "update_norm": _mean([reply.norm for reply in accepted]),
                "bytes_up": sum(reply.bytes_up for reply in replies),
                "bytes_down": sum(reply.bytes_down for reply in replies),
                "validation_war": scored.war if scored else None,
                "validation_uar": scored.uar if scored else None,
                "model_sha256": row.published_sha256 or "",
            }
        )
    return rows


def _validation(folder: Path) -> dict[str, dict[str, float]]:
    """WAR and UAR on the validation part of the centrally trained models that were evaluated there."""
    found = {arm: validation_score(folder, arm) for arm in ("base", *CENTRALISED, "all_data")}
    return {arm: {"war": scored.war, "uar": scored.uar} for arm, scored in found.items() if scored}


def arm_table(scores: Mapping[str, Scores]) -> list[dict[str, Any]]:
    """One row per arm: measures on the test part, and the recall of each emotion."""
    return [
        {
            "arm": arm,
            "war": s.war,
            "uar": s.uar,
            "f1p": s.f1p,
            "macro_f1": s.macro_f1,
            "worst_tenth": s.worst_tenth,
            "clip_war": s.clip_war,
            "clips": s.n,
        }
        | {f"recall_{emotion}": s.per_emotion.get(emotion) for emotion in EMOTIONS}
        for arm, s in scores.items()
    ]


def reply_table(folder: Path) -> list[dict[str, Any]]:
    """One row per reply of a client."""
    registry = open_registry(folder)
    return [
        {
            "round": row.number,
            "attempt": row.attempt,
            "client": reply.client_id,
            "accepted": reply.accepted,
            "reason": reply.reason or "",
            "examples": reply.examples,
            "loss_before": reply.loss_before,
            "loss_after": reply.loss_after,
            "norm": reply.norm,
            "bytes_up": reply.bytes_up,
            "bytes_down": reply.bytes_down,
        }
        for row in registry.rounds()
        for reply in registry.replies(row.id)
    ]


def _router_table(registry: Registry) -> list[dict[str, Any]]:
    return [
        {
            "round": row.number,
            "attempt": row.attempt,
            "client": client,
            "expert": expert,
            "examples": counted.examples,
            "routed": counted.routed[expert],
            "gate_mass": counted.gate_mass[expert],
        }
        for row in registry.rounds()
        for client, counted in registry.router_statistics(row.id).items()
        for expert in range(len(counted.routed))
    ]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None
