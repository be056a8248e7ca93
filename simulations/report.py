"""The report of a run: one HTML file that stands alone, drawn from what the run's folder holds.

What is worth saying is worked out here, the figures are in ``plots.py``, the words and the looks in ``report.html.j2``.
Rates are fractions here and percent on the page. Equal folders give equal bytes.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from mcoe_model.files import read_json, write_bytes
from mcoe_model.learning.metrics import holm
from mcoe_model.names import EMOTIONS, LIGHTINGS
from mcoe_model.router_statistics import RouterStatistics
from server.registry import ABANDONED, PUBLISHED
from simulations import plots
from simulations.arms import read_predictions
from simulations.coordination import open_registry
from simulations.plots import ARM_STYLES
from simulations.scene import Scene, open_scene
from simulations.settings import SimulationSettings
from simulations.summary import ARMS, INFORMATIVE_GAIN, choose_centralised, round_table, validation_score

#: A difference of less than this is none that matters (in WAR).
MATTERS = 0.01
#: A subject with fewer test clips has no accuracy worth ranking (as in ``metrics.score``).
RANKED_CLIPS = 5
_ROUNDS_SHOWN = 24


def write_report(folder: Path) -> Path:
    """Write report.html of a finished run; returns its path."""
    path = folder / "report.html"
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"percent": _percent, "points": _points, "megabytes": _megabytes, "rounded": _rounded}
    write_bytes(path, pages.get_template("report.html.j2").render(_content(folder)).encode())
    return path


def _content(folder: Path) -> dict[str, Any]:
    """Everything the page shows."""
    scene, summary, run = open_scene(folder), read_json(folder / "summary.json"), read_json(folder / "run.json")
    arms = {arm: summary[arm] for arm in ARMS if summary[arm]}
    return {
        "summary": summary,
        "run": run,
        "settings": scene.settings,
        "toml": SimulationSettings(**run["settings"]).to_toml(),
        "command": shlex.join(["python", *run["command"]]),
        "styles": ARM_STYLES,
        "emotions": EMOTIONS,
        "arms": arms,
        "synthetic": summary["data"] == "synthetic",
        "upper_form": choose_centralised(folder),
        "ranked_clips": RANKED_CLIPS,
        "exchanges": sum(summary["replies"].values()),
        "differences": _differences(summary),
        "informative_gain": INFORMATIVE_GAIN,
        "arms_plot": _arms_plot(summary, arms),
        "rounds": _rounds(folder, summary, arms),
        "by_emotion": _by_emotion(summary, arms),
        "by_lighting": _by_lighting(summary, arms),
        "confusion": _confusion(summary),
        "by_subject": _by_subject(scene, summary),
        "experts": _experts(folder, summary["subjects"]["clients"]),
        "rejected": _rejected(folder),
        "provenance": _provenance(folder, run, summary),
    }


def _differences(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Arm -> its paired difference to the base, with Holm's p over all of them and what it amounts to."""
    stored = {name.removesuffix(" - base"): dict(found) for name, found in summary["differences"].items()}
    adjusted = holm([found["p"] for found in stored.values()])
    return {
        arm: found | {"p_holm": p, "verdict": _verdict(found)}
        for (arm, found), p in zip(stored.items(), adjusted, strict=True)
    }


def _verdict(difference: Mapping[str, float]) -> str:
    estimate, low, high = difference["estimate"], difference["low"], difference["high"]
    if low >= -MATTERS and high <= MATTERS:
        return "equivalent"
    if low > 0 and estimate >= MATTERS:
        return "better"
    if high < 0 and estimate <= -MATTERS:
        return "worse"
    return "not resolved"


def _arms_plot(summary: Mapping[str, Any], arms: Mapping[str, Any]) -> str:
    base = arms["base"]["war"]
    points = []
    for arm, scores in arms.items():
        found = summary["differences"].get(f"{arm} - base")
        interval = (100 * (base + found["low"]), 100 * (base + found["high"])) if found else None
        points.append(plots.ArmPoint(arm, 100 * scores["war"], interval))
    said = ", ".join(f"{ARM_STYLES[point.arm].name} {point.war:.1f} %" for point in points)
    return plots.arms_plot(f"WAR on the test subjects: {said}; chance {_percent(summary['chance'])}.", points,
                           100 * summary["chance"])


def _rounds(folder: Path, summary: Mapping[str, Any], arms: Mapping[str, Any]) -> dict[str, Any]:
    """Rounds as they went, with the base as round 0 and the arms without rounds as lines."""
    rows = round_table(folder)
    known = {"base": validation_score(folder, "base")}
    upper = choose_centralised(folder)
    if upper:
        known["centralised"] = validation_score(folder, upper)
    lines = {arm: {"WAR": 100 * found.war, "UAR": 100 * found.uar} for arm, found in known.items() if found}
    done = [row for row in rows if row["state"] == PUBLISHED and row["validation_war"] is not None]
    measured = {
        measure: [(0, lines["base"][measure])] * ("base" in lines) + [(row["round"], 100 * row[key]) for row in done]
        for measure, key in (("WAR", "validation_war"), ("UAR", "validation_uar"))
    }
    first, last = measured["WAR"][0], measured["WAR"][-1]
    best = max(done, key=lambda row: row["validation_war"])
    numbers = sorted({row["round"] for row in rows})
    traffic = {
        way: [sum(row[key] for row in rows if row["round"] == number) / 1e6 for number in numbers]
        for way, key in (("up", "bytes_up"), ("down", "bytes_down"))
    }
    return {
        "rows": rows,
        "abandoned": [row for row in rows if row["state"] == ABANDONED],
        "best": best,
        "last": done[-1],
        "base_war": known["base"].war if known["base"] else None,
        "plot": plots.rounds_plot(
            f"Line plots over rounds on the validation subjects: WAR goes from {first[1]:.1f} % before round 1 "
            f"to {last[1]:.1f} % after round {last[0]}.", measured, lines, 100 * summary["chance"]),
        "traffic_plot": plots.traffic_plot(
            f"Bars per round: megabytes up and down. In total {_megabytes(summary['bytes_up'])} up and "
            f"{_megabytes(summary['bytes_down'])} down.", numbers, traffic["up"], traffic["down"]),
    }


def _by_emotion(summary: Mapping[str, Any], arms: Mapping[str, Any]) -> dict[str, Any]:
    present = [emotion for emotion in EMOTIONS if emotion in arms["base"]["per_emotion"]]
    recall = {arm: [scores["per_emotion"][emotion] for emotion in present] for arm, scores in arms.items()}
    federated = arms["federated"]["per_emotion"]
    best, least = max(present, key=federated.__getitem__), min(present, key=federated.__getitem__)
    alt = f"Recall per emotion of every arm; the federated model recognises {best} best and {least} least."
    plot = plots.bars_plot("emotions", alt, present, _in_percent(recall), "recall, %", 100 * summary["chance"])
    absent = [emotion for emotion in EMOTIONS if emotion not in present]
    return {"names": present, "best": best, "least": least, "absent": absent, "plot": plot}


def _by_lighting(summary: Mapping[str, Any], arms: Mapping[str, Any]) -> dict[str, Any]:
    counted = arms["base"]["per_lighting"]
    present = [lighting for lighting in LIGHTINGS if lighting in counted]
    war = {arm: [scores["per_lighting"][lighting]["war"] for lighting in present] for arm, scores in arms.items()}
    names = [f"{lighting}\n{_subjects(counted[lighting]['subjects'])}" for lighting in present]
    alt = "WAR of every arm on the subjects recorded under each lighting; different people in each group."
    plot = plots.bars_plot("lightings", alt, names, _in_percent(war), "WAR, %", 100 * summary["chance"])
    return {"names": present, "counted": counted, "plot": plot}


def _confusion(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The federated model's expected counts, each row as shares, and the largest share off the diagonal."""
    counts = np.array(summary["federated"]["confusion"])  # (7, 7) rows true
    clips = counts.sum(1)  # (7,)
    shares = counts / np.maximum(clips, 1e-12)[:, None]
    wrong = np.where(np.eye(len(EMOTIONS), dtype=bool), -1, shares)
    true, taken = np.unravel_index(int(wrong.argmax()), wrong.shape)
    return {
        "rows": [(EMOTIONS[i], round(clips[i]), shares[i].tolist()) for i in range(len(EMOTIONS)) if clips[i] > 0],
        "worst": {"true": EMOTIONS[int(true)], "taken": EMOTIONS[int(taken)], "share": float(wrong.max())},
    }


def _by_subject(scene: Scene, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Test subjects by federated accuracy, best first; the worst tenth is of those with enough clips."""
    base, federated = (_accuracies(scene, name) for name in ("base", f"round-{scene.settings.rounds}"))
    order = sorted(federated, key=lambda subject: (-federated[subject][0], subject))
    ranked = [subject for subject in order if federated[subject][1] >= RANKED_CLIPS]
    worst = set(ranked[len(ranked) - math.ceil(len(ranked) / 10) :])
    rows: list[dict[str, Any]] = [
        {"subject": subject, "base": base[subject][0], "federated": federated[subject][0],
         "clips": federated[subject][1], "worst": subject in worst}
        for subject in order
    ]
    points = [plots.SubjectPoint(r["subject"], 100 * r["base"], 100 * r["federated"], r["worst"]) for r in rows]
    alt = (f"Accuracy of {len(rows)} test subjects, from {points[0].federated:.1f} % to {points[-1].federated:.1f} % "
           "with the federated model.")
    return {"rows": rows, "better": sum(row["federated"] > row["base"] for row in rows), "ranked": len(ranked),
            "worse": sum(row["federated"] < row["base"] for row in rows),
            "plot": plots.subjects_plot(alt, points, 100 * summary["chance"])}


def _accuracies(scene: Scene, name: str) -> dict[str, tuple[float, int]]:
    """Test subject -> (expected accuracy, clips) of a model."""
    said = read_predictions(scene.paths.predictions(name, "test"))
    correct: NDArray[np.float64] = said.predicted()[np.arange(len(said.labels)), said.labels]  # (N,)
    subject_of = {record.name: record.subject for record in scene.clips.records}
    subjects = np.array([subject_of[clip] for clip in said.names])
    of = {str(subject): correct[subjects == subject] for subject in np.unique(subjects)}
    return {subject: (float(values.mean()), len(values)) for subject, values in of.items()}


def _experts(folder: Path, clients: int) -> dict[str, Any] | None:
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


def _rejected(folder: Path) -> list[tuple[int, str, str]]:
    """(round, client, reason) of every reply that was not aggregated because of what it was."""
    registry = open_registry(folder)
    return [
        (row.number, reply.client_id, reply.reason or "")
        for row in registry.rounds()
        for reply in registry.replies(row.id)
        if not reply.accepted
    ]


def _provenance(folder: Path, run: Mapping[str, Any], summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the run was made with, as names and values."""
    machine = run["machine"]
    commit = run["commit"] or "not in a repository"
    return [
        ("started", run["started"]),
        ("took", f"{_rounded(summary['seconds'])} s, since it was last started"),
        ("commit", commit + " and uncommitted changes" * run["uncommitted_changes"]),
        ("data", run["data"]),
        ("data SHA-256", run["data_sha256"]),
        ("parts SHA-256", run["parts_sha256"]),
        ("model SHA-256", open_registry(folder).newest_model() or "none"),
        ("subjects", ", ".join(f"{part} {count}" for part, count in summary["subjects"].items())),
        ("clips", ", ".join(f"{part} {count}" for part, count in summary["clips"].items())),
        ("seed", str(summary["seed"])),
        ("versions", ", ".join(f"{package} {version}" for package, version in run["versions"].items())),
        ("machine", ", ".join(str(value) for value in (machine["system"], machine["processor"]) if value)
         + f", {machine['cpus']} processors"),
        ("device", f"{run['device']}, {run['threads_per_worker']} thread per worker"),
        ("tuning trials", run["tuning"]),
    ]


def _in_percent(series: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    return {name: [100 * value for value in values] for name, values in series.items()}


def _subjects(count: int) -> str:
    return f"{count} subject{'s' if count != 1 else ''}"


def _rounded(value: float, digits: int = 1) -> str:
    """A number with a true minus sign, and none before a rounded zero."""
    text = f"{abs(value):,.{digits}f}"
    return f"\N{MINUS SIGN}{text}" if value < 0 and float(text.replace(",", "")) else text


def _percent(rate: float) -> str:
    return f"{_rounded(100 * rate)}\N{NARROW NO-BREAK SPACE}%"


def _points(difference: float) -> str:
    """A difference of rates in percentage points, always signed."""
    text = _rounded(100 * difference)
    return text if difference < 0 or text == "0.0" else f"+{text}"


def _megabytes(count: float) -> str:
    return f"{_rounded(count / 1e6)}\N{NARROW NO-BREAK SPACE}MB"
