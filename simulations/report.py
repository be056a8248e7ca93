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

from mcoe_model.files import read_json, write_bytes
from mcoe_model.learning.metrics import holm
from mcoe_model.names import EMOTIONS, LIGHTINGS
from simulations import plots, report_rounds, words
from simulations.answers import ARMS, INFORMATIVE_GAIN, Answers, arm_answers
from simulations.coordination import open_registry
from simulations.plots import ARM_STYLES
from simulations.scene import Paths, fold_folder
from simulations.settings import SimulationSettings
from simulations.tuning import edge_notes
from simulations.words import percent, rounded

#: A difference of less than this is none that matters (in WAR).
MATTERS = 0.01
#: A subject with fewer test clips has no accuracy worth ranking (as in ``metrics.score``).
RANKED_CLIPS = 5


def write_report(folder: Path) -> Path:
    """Write report.html of a finished run; returns its path."""
    path = folder / "report.html"
    write_bytes(path, page("report.html.j2", _content(folder)))
    return path


def page(template: str, content: Mapping[str, Any]) -> bytes:
    """A page of this folder's templates, with the words that they use."""
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {word.__name__: word for word in (percent, rounded, words.points, words.megabytes)}
    return pages.get_template(template).render(content).encode()


def _content(folder: Path) -> dict[str, Any]:
    """Everything the page shows. ``folds`` is empty unless the run is over all folds."""
    summary, run = read_json(folder / "summary.json"), read_json(Paths(folder).run)
    settings = SimulationSettings(**run["settings"])
    folds = summary.get("folds", [])
    folders = [fold_folder(folder, fold) for fold in settings.of_folds()] if folds else [folder]
    arms = {arm: summary[arm] for arm in ARMS if summary[arm]}
    return {
        "summary": summary,
        "run": run,
        "settings": settings,
        "folds": folds,
        "toml": settings.to_toml(),
        "command": shlex.join(["python", *run["command"]]),
        "styles": ARM_STYLES,
        "emotions": EMOTIONS,
        "arms": arms,
        "synthetic": summary["data"] == "synthetic",
        "ranked_clips": RANKED_CLIPS,
        "exchanges": sum(summary["replies"].values()),
        "differences": _differences(summary),
        "informative_gain": INFORMATIVE_GAIN,
        "arms_plot": _arms_plot(summary, arms),
        "rounds": report_rounds.rounds(folders, summary),
        "by_emotion": _by_emotion(summary, arms),
        "by_lighting": _by_lighting(summary, arms),
        "confusion": _confusion(summary),
        "by_subject": _by_subject(arm_answers(folders), summary),
        "experts": None if folds else report_rounds.experts(folder, summary["subjects"]["clients"]),
        "rejected": report_rounds.rejected(folders),
        "tuning": summary["tuning"],
        "edge_notes": edge_notes(summary["tuning"]),
        "provenance": _provenance(folders, run, summary),
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
    return plots.arms_plot(f"WAR on the test subjects: {said}; chance {percent(summary['chance'])}.", points,
                           100 * summary["chance"])


def _by_emotion(summary: Mapping[str, Any], arms: Mapping[str, Any]) -> dict[str, Any]:
    present = [emotion for emotion in EMOTIONS if emotion in arms["base"]["per_emotion"]]
    recall = {arm: [scores["per_emotion"][emotion] for emotion in present] for arm, scores in arms.items()}
    federated = arms["federated"]["per_emotion"]
    best, least = max(present, key=federated.__getitem__), min(present, key=federated.__getitem__)
    alt = f"Recall per emotion of every arm; the federated model recognises {best} best and {least} least."
    plot = plots.bars_plot("emotions", alt, present, __in_percent(recall), "recall, %", 100 * summary["chance"])
    absent = [emotion for emotion in EMOTIONS if emotion not in present]
    return {"names": present, "best": best, "least": least, "absent": absent, "plot": plot}


def _by_lighting(summary: Mapping[str, Any], arms: Mapping[str, Any]) -> dict[str, Any]:
    counted = arms["base"]["per_lighting"]
    present = [lighting for lighting in LIGHTINGS if lighting in counted]
    war = {arm: [scores["per_lighting"][lighting]["war"] for lighting in present] for arm, scores in arms.items()}
    names = [f"{lighting}\n{_subjects(counted[lighting]['subjects'])}" for lighting in present]
    alt = "WAR of every arm on the subjects recorded under each lighting; different people in each group."
    plot = plots.bars_plot("lightings", alt, names, __in_percent(war), "WAR, %", 100 * summary["chance"])
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


def _by_subject(answers: Mapping[str, Answers], summary: Mapping[str, Any]) -> dict[str, Any]:
    """Test subjects by federated accuracy, best first; the worst tenth is of those with enough clips."""
    base, federated = answers["base"].by_subject(), answers["federated"].by_subject()
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


def _provenance(folders: Sequence[Path], run: Mapping[str, Any], summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the run was made with, as names and values."""
    machine = run["machine"]
    commit, grid = run["commit"] or "not in a repository", run["tuning"]["grid"]
    return [
        ("started", run["started"]),
        ("took", f"{rounded(summary['seconds'])} s, since it was last started"),
        ("commit", commit + _changes(run)),
        ("data", run["data"]),
        ("data SHA-256", run["data_sha256"]),
        ("parts SHA-256", ", ".join(read_json(Paths(folder).run)["parts_sha256"] for folder in folders)),
        ("model SHA-256", ", ".join(open_registry(folder).newest_model() or "none" for folder in folders)),
        ("subjects", ", ".join(f"{part} {count}" for part, count in summary["subjects"].items())),
        ("clips", ", ".join(f"{part} {count}" for part, count in summary["clips"].items())),
        ("seed", str(summary["seed"])),
        ("versions", ", ".join(f"{package} {version}" for package, version in run["versions"].items())),
        ("machine", ", ".join(str(value) for value in (machine["system"], machine["processor"]) if value)
         + f", {machine['cpus']} processors"),
        ("device", f"{run['device']}, {run['threads_per_worker']} thread per worker"),
        ("tuning trials", f"{len(grid)} for every arm, learning rate{'s' if len(grid) > 1 else ''} "
         + ", ".join(f"{rate:g}" for rate in grid)),
    ]


def _changes(run: Mapping[str, Any]) -> str:
    if not run["uncommitted_changes"]:
        return ""
    return f" and uncommitted changes (SHA-256 {run.get('uncommitted_sha256') or 'not kept'})"


def __in_percent(series: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    return {name: [100 * value for value in values] for name, values in series.items()}


def _subjects(count: int) -> str:
    return f"{count} subject{'s' if count != 1 else ''}"
