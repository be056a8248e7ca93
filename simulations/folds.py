"""Every fold after the other, so that every subject is tested once, and the results of all of them together.

A fold is a run like any other, in a folder of its own: it can be looked at, resumed and reported by itself. One model
is trained per fold; what is pooled is what each says of people it never saw.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcoe_model.errors import McoeError
from mcoe_model.files import read_json, write_json
from simulations import experiment
from simulations.answers import ARMS
from simulations.console import Display
from simulations.parts import PARTS
from simulations.provenance import utc_text
from simulations.report import write_report
from simulations.scene import Paths, fold_folder, open_scene
from simulations.settings import SimulationSettings
from simulations.summary import describe, measure, round_table, write_arms
from simulations.tables import write_csv
from simulations.tuning import pool


def begin_or_resume(settings: SimulationSettings, folder: Path, display: Display, *, resumed: bool) -> None:
    """Prepare every fold before any work, so that whatever is wrong with one of them is known at once."""
    if not resumed:
        experiment.begin(settings, folder)
    try:
        for fold in settings.of_folds():
            within = fold_folder(folder, fold)
            begun = Paths(within).run.exists()
            if not begun and within.exists():
                shutil.rmtree(within)  # left by a kill before the fold was written down
            experiment.begin_or_resume(fold, within, display, resumed=begun)
    except (McoeError, OSError):
        if not resumed:
            shutil.rmtree(folder)
        raise
    first = read_json(Paths(fold_folder(folder, settings.of_folds()[0])).run)
    known = {key: first[key] for key in ("data", "data_sha256", "skipped", "subject_overlap")}
    known["folds"] = [fold_folder(folder, fold).name for fold in settings.of_folds()]
    write_json(Paths(folder).run, read_json(Paths(folder).run) | known)


def run(settings: SimulationSettings, folder: Path, display: Display) -> dict[str, Any]:
    """Run the folds that are not finished, pool what they say of their test subjects; returns the pooled summary."""
    folds = settings.of_folds()
    folders = [fold_folder(folder, fold) for fold in folds]
    for number, within in enumerate(folders):
        finished = (within / "report.html").exists()
        display.say(
            f"[bold]Fold {number} ({number + 1} of {len(folds)})[/bold] in {within}"
            f"{': finished before' if finished else ''}"
        )
        if finished:
            continue
        bars = Display(display.console)
        with bars.live():
            experiment.run(within, bars)
            write_report(within)
        summary = read_json(within / "summary.json")
        base, federated = (100 * summary[arm]["war"] for arm in ("base", "federated"))
        display.say(f"Fold {number}: WAR {base:.1f} % (base), {federated:.1f} % (federated)")
    summary = _write_results(settings, folder, folders)
    done = {"tuning": summary["tuning"], "finished": utc_text()}
    write_json(Paths(folder).run, read_json(Paths(folder).run) | done)
    return summary


def _write_results(settings: SimulationSettings, folder: Path, folders: Sequence[Path]) -> dict[str, Any]:
    """Write the pooled summary.json and tables. Subjects and clips are counted once, however many folds use them."""
    found = [read_json(within / "summary.json") for within in folders]
    names = {part: {name for within in folders for name in getattr(open_scene(within).parts, part)} for part in PARTS}
    subject_of = {record.name: record.subject for record in open_scene(folders[0]).clips.records}
    forms = {one["centralised_form"] for one in found}
    scores, measured = measure(folders, settings)
    summary = (
        describe(settings)
        | {
            "subjects": {part: len({subject_of[clip] for clip in clips}) for part, clips in names.items()},
            "clips": {part: len(clips) for part, clips in names.items()},
            "seconds": round(sum(one["seconds"] for one in found), 1),
            "bytes_up": sum(one["bytes_up"] for one in found),
            "bytes_down": sum(one["bytes_down"] for one in found),
            "replies": {key: sum(one["replies"][key] for one in found) for key in ("accepted", "rejected")},
            "centralised_form": forms.pop() if len(forms) == 1 else "each fold's own",
            "validation": _mean_validation([one["validation"] for one in found]),
            "tuning": pool([one["tuning"] for one in found]),
        }
        | measured
        | {"folds": [_headline(one, within.name) for one, within in zip(found, folders, strict=True)]}
    )
    rounds = [{"fold": number} | row for number, within in enumerate(folders) for row in round_table(within)]
    write_csv(folder / "rounds.csv", rounds)
    write_arms(folder, scores)
    write_json(folder / "summary.json", summary)
    return summary


def _headline(summary: dict[str, Any], folder: str) -> dict[str, Any]:
    """What the pooled summary says of one fold."""
    same = ("fold", "subjects", "clips", "seconds", "recovered_gain", "informative", "centralised_form")
    wars = {arm: summary[arm]["war"] if summary[arm] else None for arm in ARMS}
    return {"folder": folder} | {key: summary[key] for key in same} | {"war": wars}


def _mean_validation(found: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """The mean over the folds of what each model scored on its fold's validation subjects."""
    return {
        arm: {key: statistics.mean(one[arm][key] for one in found) for key in ("war", "uar")}
        for arm in found[0]
        if all(arm in one for one in found)
    }
