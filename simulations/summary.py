"""From predictions and registry to results: scores of every arm, tables, the model with its card, `summary.json`.

The report is drawn from what is written here and from nothing else.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcoe_model.files import write_json
from mcoe_model.learning.evaluate import Predictions
from mcoe_model.learning.metrics import Scores, paired_difference, recovered_gain, recovered_gain_interval, score
from mcoe_model.model_file import read_model, write_model
from mcoe_model.names import EMOTIONS
from server.registry import PUBLISHED, Registry
from simulations.arms import CENTRALISED, read_predictions
from simulations.coordination import open_registry
from simulations.parts import PARTS
from simulations.scene import Scene, open_scene
from simulations.tables import write_csv, write_for_people
from simulations.training_logs import write_tensorboard

#: A setting says something about federation only if centralised training gains at least this much WAR over the base.
INFORMATIVE_GAIN = 0.05
ARMS = ("base", "federated", "centralised", "local", "all_data")


def choose_centralised(folder: Path) -> str | None:
    """The form of centralised training that is better on validation (the smaller batch on a tie); None without any."""
    scene = open_scene(folder)
    there = [arm for arm in CENTRALISED if scene.paths.predictions(arm, "validation").exists()]
    return max(there, key=lambda arm: (_score(scene, [arm], "validation").war, arm == CENTRALISED[0]), default=None)


def arm_scores(folder: Path) -> dict[str, Scores]:
    """The scores on the test part of every arm that was run."""
    scene = open_scene(folder)
    return {arm: _score(scene, names, "test") for arm, names in _names_of(scene).items()}


def write_results(folder: Path, seconds: float) -> dict[str, Any]:
    """Write summary.json, the tables and model.safetensors of a federated run; returns the summary."""
    scene = open_scene(folder)
    registry = open_registry(folder)
    scores = arm_scores(folder)
    replies = [reply for row in registry.rounds() for reply in registry.replies(row.id)]
    summary = _common(scene, seconds) | {
        "rounds": scene.settings.rounds,
        "cohort": scene.settings.cohort,
        "train": scene.settings.train,
        "rule": scene.settings.rule,
        "bytes_up": sum(reply.bytes_up for reply in replies),
        "bytes_down": sum(reply.bytes_down for reply in replies),
        "replies": {"accepted": sum(r.accepted for r in replies), "rejected": sum(not r.accepted for r in replies)},
        **_gain(scene, scores),
        **{arm: scores[arm].to_json() if arm in scores else None for arm in ARMS},
        "validation": _validation(scene),
    }
    if scene.settings.passes:
        summary["random_passes"] = {arm: _passes(scene, names) for arm, names in _names_of(scene).items()}
    write_csv(folder / "rounds.csv", round_table(folder))
    write_csv(folder / "replies.csv", _reply_table(registry))
    write_csv(folder / "router_statistics.csv", _router_table(registry))
    write_csv(folder / "arms.csv", _arm_table(scores))
    write_for_people(folder / "arms", _arm_table(scores))
    _write_model(folder, scene.paths.models / f"{registry.newest_model()}.safetensors", scores["federated"])
    if scene.settings.tensorboard:
        write_tensorboard(folder / "tensorboard", scene.paths, round_table(folder))
    write_json(folder / "summary.json", summary)
    return summary


def write_centralised_results(folder: Path, seconds: float) -> dict[str, Any]:
    """Write summary.json and model.safetensors of a run that only trained centrally; returns the summary."""
    scene = open_scene(folder)
    scored = _score(scene, ["all_data"], "test")
    summary = _common(scene, seconds) | {"all_data": scored.to_json()}
    if scene.settings.passes:
        summary["random_passes"] = {"all_data": _passes(scene, ["all_data"])}
    _write_model(folder, scene.paths.arm("all_data"), scored)
    if scene.settings.tensorboard:
        write_tensorboard(folder / "tensorboard", scene.paths, [])
    write_json(folder / "summary.json", summary)
    return summary


def _common(scene: Scene, seconds: float) -> dict[str, Any]:
    return {
        "model": scene.settings.model,
        "data": scene.settings.data or "synthetic",
        "protocol": scene.settings.protocol,
        "chance": 1 / len(EMOTIONS),
        "subjects": {part: len(scene.subjects(part)) for part in PARTS},
        "clips": {part: len(scene.indices(part)) for part in PARTS},
        "seed": scene.settings.seed,
        "seconds": round(seconds, 1),
    }


def _write_model(folder: Path, path: Path, scored: Scores) -> None:
    """The run's model, with what it scored on the test part in its card."""
    tensors, card = read_model(path)
    metrics = {"test": {key: scored.to_json()[key] for key in ("war", "uar", "f1p", "n")}}
    write_model(folder / "model.safetensors", tensors, replace(card, metrics=metrics))


def round_table(folder: Path) -> list[dict[str, Any]]:
    """One row per round: what it did, what it cost, what its model scores on validation."""
    scene, registry = open_scene(folder), open_registry(folder)
    rows = []
    for row in registry.rounds():
        replies = registry.replies(row.id)
        accepted = [reply for reply in replies if reply.accepted]
        scored = None
        if row.state == PUBLISHED and scene.paths.predictions(f"round-{row.number}", "validation").exists():
            scored = _score(scene, [f"round-{row.number}"], "validation")
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


def validation_score(folder: Path, name: str) -> Scores | None:
    """What a model scored on the validation part, if it was evaluated there."""
    scene = open_scene(folder)
    return _score(scene, [name], "validation") if scene.paths.predictions(name, "validation").exists() else None


def _validation(scene: Scene) -> dict[str, dict[str, float]]:
    """WAR and UAR on the validation part of the centrally trained models that were evaluated there."""
    found = {arm: validation_score(scene.paths.folder, arm) for arm in ("base", *CENTRALISED, "all_data")}
    return {arm: {"war": scored.war, "uar": scored.uar} for arm, scored in found.items() if scored}


def _names_of(scene: Scene) -> dict[str, list[str]]:
    """Which prediction files make up each arm on the test part; an arm that was not run is absent."""
    local = [f"local-{subject}" for subject in scene.subjects("clients")]
    names = {
        "base": ["base"],
        "federated": [f"round-{scene.settings.rounds}"],
        "centralised": [choose_centralised(scene.paths.folder) or CENTRALISED[0]],
        "local": local,
        "all_data": ["all_data"],
    }
    return {
        arm: group for arm, group in names.items() if all(scene.paths.predictions(n, "test").exists() for n in group)
    }


def _expected(scene: Scene, names: list[str], part: str) -> tuple[Predictions, NDArray[np.float64]]:
    """Expected predictions (N, 7), the mean over the models of an arm."""
    said = [read_predictions(scene.paths.predictions(name, part)) for name in names]
    return said[0], np.mean([one.predicted() for one in said], axis=0)


def _score(scene: Scene, names: list[str], part: str) -> Scores:
    said, expected = _expected(scene, names, part)
    subjects, lightings = _who(scene, said)
    softmax = said.mean_softmax() if len(names) == 1 else None
    published = scene.settings.protocol == "published"
    return score(said.labels, expected, subjects, lightings, mean_softmax=softmax, published=published)


def _who(scene: Scene, said: Predictions) -> tuple[list[str], list[str]]:
    records = {record.name: record for record in scene.clips.records}
    return [records[name].subject for name in said.names], [records[name].lighting for name in said.names]


def _gain(scene: Scene, scores: dict[str, Scores]) -> dict[str, Any]:
    """The recovered gain, and whether this setting can say anything about it (paired 95 % intervals over subjects)."""
    names, seed = _names_of(scene), scene.settings.seed
    said, _ = _expected(scene, names["base"], "test")
    subjects, _ = _who(scene, said)
    rows = np.arange(len(said.labels))
    correct = {arm: _expected(scene, group, "test")[1][rows, said.labels] for arm, group in names.items()}  # (N,) each
    differences = {
        f"{arm} - base": paired_difference(correct[arm][None], correct["base"][None], subjects, seed=seed)._asdict()
        for arm in names
        if arm != "base"
    }
    if "centralised" not in names:
        return {"recovered_gain": None, "informative": None, "differences": differences}
    upper = differences["centralised - base"]
    triple = (correct["base"], correct["federated"], correct["centralised"])
    return {
        "recovered_gain": recovered_gain(scores["base"].war, scores["federated"].war, scores["centralised"].war),
        "recovered_gain_interval": recovered_gain_interval(*triple, subjects, seed=seed),
        "informative": bool(upper["estimate"] >= INFORMATIVE_GAIN and upper["low"] > 0),
        "centralised_form": choose_centralised(scene.paths.folder),
        "differences": differences,
    }


def _passes(scene: Scene, names: list[str]) -> dict[str, float]:
    """The published protocol: mean and standard deviation of WAR and UAR over random passes."""
    said, _ = _expected(scene, names, "test")
    lengths = {record.name: record.n_frames for record in scene.clips.records}
    subjects, lightings = _who(scene, said)
    war, uar = [], []
    for number in range(scene.settings.passes):
        for name in names:
            one = read_predictions(scene.paths.predictions(name, "test"))
            drawn = one.random_pass(scene.settings.seed, number, tuple(lengths[clip] for clip in one.names))
            scored = score(one.labels, drawn, subjects, lightings)
            war.append(scored.war)
            uar.append(scored.uar)
    return {
        "war": statistics.mean(war),
        "war_sd": statistics.pstdev(war),
        "uar": statistics.mean(uar),
        "uar_sd": statistics.pstdev(uar),
    }


def _arm_table(scores: dict[str, Scores]) -> list[dict[str, Any]]:
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


def _reply_table(registry: Registry) -> list[dict[str, Any]]:
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
