"""What a few labelled clips of an unseen wearer are worth: the protocol calibration-k, on a finished run.

Every subject of the run's test part is a wearer whom nobody has learned from. k of the wearer's clips are labelled,
whatever they show, and the run's model is fitted to the wearer with them:

- class priors: the wearer's own in place of the model's; nothing is trained;
- head trained: as a wearable trains it on its first lesson, but with no clip held out and the result always used.

What is scored is the same for every k and way: the clips that are left when the largest k is drawn. A smaller k takes
the first of the clips drawn, and k = 0 is the model as it is. The clips are drawn anew several times, by the run's
seed, and every measure is a mean over the draws; the interval of a difference is over wearers and draws.

Since clips are drawn without putting them back, those that are left show the labelled emotions the less: in a data set
where everybody shows each emotion equally often, a few labels mislead about the rest.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from client.learn import SETTINGS
from mcoe_model.data.reader import ClipRecord
from mcoe_model.errors import DataMissing, SettingsError, TooFewSubjects
from mcoe_model.files import atomic_write, write_json
from mcoe_model.learning.evaluate import evaluate
from mcoe_model.learning.fine_tune import fine_tune
from mcoe_model.learning.metrics import Difference, Scores, holm, paired_difference, score
from mcoe_model.learning.samples import FeatureSamples
from mcoe_model.learning.weights import copy_weights, load_model, tensors_of
from mcoe_model.model_file import file_sha256
from mcoe_model.networks import picture_encoder
from mcoe_model.streams import stream
from mcoe_model.workers import one_thread
from simulations.command import errors_as_one_line, stored_settings
from simulations.console import Crew, Display
from simulations.personalise import with_class_priors
from simulations.provenance import origin
from simulations.scene import Paths, fold_folder, open_scene
from simulations.tables import write_csv, write_for_people

PRIORS, TRAINED, AS_IT_IS = "class priors", "head trained", "as it is"
EXAMPLES = """
Examples:

  python simulations/calibrate.py runs/NAME                        # k = 0, 1 and 5 clips, five draws of them

  python simulations/calibrate.py runs/NAME --k 0,1,2,3 --draws 20 --json

Writes table.csv (.md, .tex), predictions.npz and summary.json into RUN_FOLDER/calibration, in place of what is there.
"""
#: What stands with every table: a run has one seed, and the protocol asks for ten.
EXPLORATORY = "exploratory: one training seed; draws are not seeds"


@dataclass(frozen=True)
class CalibrationSettings:
    """``k``: numbers of labelled clips, with commas between; ``draws``: how many times they are drawn.

    ``workers``: processes, 0 as many as the run had; results do not depend on it.
    """

    k: str = "0,1,5"
    draws: int = 5
    workers: int = 0

    def __post_init__(self) -> None:
        found = []
        counts = self.k.split(",")
        if not all(count.isdecimal() for count in counts) or len({*map(int, counts)}) < len(counts) or not self.most:
            found.append(f"--k must be different whole numbers with commas between, one above 0, not {self.k!r}")
        if not 1 <= self.draws <= 1000:
            found.append(f"--draws must be between 1 and 1000, not {self.draws}")
        if self.workers < 0:
            found.append(f"--workers must be at least 0, not {self.workers}")
        if found:
            raise SettingsError(found)

    @property
    def counts(self) -> tuple[int, ...]:
        """Every k, ascending; 0 is among them, since all are compared with it."""
        return tuple(sorted({0, *map(int, self.k.split(","))}))

    @property
    def most(self) -> int:
        """The largest k."""
        return self.counts[-1]

    @property
    def fitted(self) -> tuple[tuple[int, str], ...]:
        """Every k above 0 with every way of fitting."""
        return tuple((k, way) for k in self.counts[1:] for way in (PRIORS, TRAINED))


@dataclass(frozen=True)
class Wearer:
    """What is said of a wearer: D draws, n clips that are asked about in each, c emotions.

    ``asked`` are the clips of each draw; ``said`` (D, n, c), for each k and way, the probability of each emotion being
    said of them.
    """

    asked: tuple[tuple[ClipRecord, ...], ...]
    said: dict[tuple[int, str], NDArray[np.float64]]


def main(arguments: list[str] | None = None) -> None:
    """Fit a finished run's model to every test subject with k labelled clips, and score the others."""
    parser = argparse.ArgumentParser(
        prog="calibrate.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="a finished run of see_by_subject.py")
    parser.add_argument("--k", default="0,1,5", metavar="LIST", help="numbers of labelled clips [0,1,5]")
    parser.add_argument("--draws", type=int, default=5, metavar="N", help="how many times they are drawn [5]")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="worker processes; 0: as the run says")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on the last line")
    asked = parser.parse_args(arguments)
    settings, display = CalibrationSettings(asked.k, asked.draws, asked.workers), Display(Console(stderr=asked.json))
    summary = run(asked.run.absolute(), settings, display)
    display.console.print(_table(summary))
    if asked.json:
        print(json.dumps(summary))


def run(folder: Path, settings: CalibrationSettings, display: Display) -> dict[str, Any]:
    """Fit and score, of a run over all folds every fold's model to its own test subjects; writes and returns the
    summary.

    Raises DataMissing when the folder holds no run or one that is not finished, NotResumable for one that cannot be
    read, SettingsError for one whose test subjects are not unseen, TooFewSubjects when none of them has clips beyond
    the largest k, ModelInvalid for a model that has no features of single pictures.
    """
    if not Paths(folder).run.is_file():
        raise DataMissing(f"{folder} holds no run of see_by_subject.py")
    made = stored_settings(folder)
    if made.protocol == "published":
        raise SettingsError(["the run's --protocol is published: most of its test subjects are in training too"])
    folders = [fold_folder(folder, fold) for fold in made.of_folds()] if made.fold == "all" else [folder]
    if unfinished := [within for within in folders if not _model(within).is_file()]:
        raise DataMissing(f"{unfinished[0]} is not finished; go on with see_by_subject.py --resume {folder}")
    of = [(within, subject) for within in folders for subject in open_scene(within).subjects("test")]
    wearers = [(within, who) for within, who in of if len(open_scene(within).indices("test", who)) > settings.most]
    if not wearers:
        raise TooFewSubjects(f"no test subject has more than {settings.most} clips; use a smaller --k")
    report, found = display.phase("fit to every wearer"), []
    with display.live():
        crew = Crew(settings.workers or made.processes, display)
        try:
            jobs = [crew.pool.submit(calibrate, within, who, settings) for within, who in wearers]
            for job in jobs:
                found.append(job.result())
                report(len(found), len(jobs), "")
        finally:
            crew.close()
    rows = table(found, settings)
    summary = {
        "protocol": "calibration-k",
        "run": str(folder),
        "model": made.preset,
        "model_sha256": [file_sha256(_model(within)) for within in folders],
        "data": made.data or "synthetic",
        "k": list(settings.counts),
        "draws": settings.draws,
        "seed": made.seed,
        "wearers": len(wearers),
        "too few clips": [who for within, who in of if (within, who) not in wearers],
        "clips asked about": sum(len(wearer.asked[0]) for wearer in found),
        "exploratory": EXPLORATORY,
        "rows": rows,
        "origin": origin(),
    }
    within = folder / "calibration"
    _keep_said(within / "predictions.npz", found)
    write_csv(within / "table.csv", rows)
    write_for_people(within / "table", _for_people(rows), f"{_title(summary)}; {_caption(summary)}.")
    write_json(within / "summary.json", summary)
    return summary


def calibrate(folder: Path, subject: str, settings: CalibrationSettings) -> Wearer:
    """Fit the run's model to one subject of the test part, and ask it about the clips that no k takes."""
    one_thread()
    scene = open_scene(folder)
    model, card = load_model(_model(folder))
    picture_encoder(model)
    as_trained = tensors_of(model)
    indices = scene.indices("test", subject)
    clips = scene.evaluation_samples(model, card, indices)
    assert isinstance(clips, FeatureSamples)
    as_it_is = evaluate(model, clips)
    asked: list[tuple[ClipRecord, ...]] = []
    said: dict[tuple[int, str], list[NDArray[np.float64]]] = {key: [] for key in ((0, AS_IT_IS), *settings.fitted)}
    for draw in range(settings.draws):
        keys = (scene.settings.seed, "calibration", subject, draw)
        order = stream(*keys).permutation(len(indices)).tolist()
        others = sorted(order[settings.most :])
        asked.append(tuple(scene.clips.records[indices[position]] for position in others))
        said[0, AS_IT_IS].append(as_it_is.predicted()[others])
        for k, way in settings.fitted:
            own = clips.at(order[:k])
            if way == PRIORS:
                said[k, way].append(with_class_priors(model, own, as_it_is).predicted()[others])
            else:
                fine_tune(model, own, SETTINGS, train_mode="head", keys=keys)
                said[k, way].append(evaluate(model, clips.at(others)).predicted())
                copy_weights(model, as_trained)
    return Wearer(tuple(asked), {key: np.stack(draws) for key, draws in said.items()})


def _keep_said(path: Path, wearers: Sequence[Wearer]) -> None:
    """Write what was said in F fits (``k`` and ``way`` of each) and D draws of N clips, one wearer's after the other's:
    ``subject`` (N,), ``clip`` and ``label`` (D, N), ``said`` (F, D, N, c).
    """
    keys = list(wearers[0].said)
    with atomic_write(path) as file:
        np.savez(
            file,
            k=np.array([k for k, _ in keys]),
            way=np.array([way for _, way in keys]),
            subject=np.array([record.subject for wearer in wearers for record in wearer.asked[0]]),
            clip=np.concatenate([[[one.name for one in draw] for draw in wearer.asked] for wearer in wearers], axis=1),
            label=_labels(wearers),
            said=np.stack([np.concatenate([wearer.said[key] for wearer in wearers], axis=1) for key in keys]),
        )


def table(wearers: Sequence[Wearer], settings: CalibrationSettings) -> list[dict[str, Any]]:
    """A row for each k and way, first that of k = 0; differences are to that one. Measures are in [0, 1].

    The D draws stand in the place of seeds in `paired_difference`: they are of one trained model, and say nothing of
    another's. ``holm_p`` is adjusted over all rows. A worst tenth is None where nobody has five clips that are asked
    about.
    """
    people = [record.subject for wearer in wearers for record in wearer.asked[0]]  # (N,), the same in every draw
    reference = _correct(wearers, (0, AS_IT_IS))
    apart = {key: paired_difference(_correct(wearers, key), reference, people, seed=0) for key in settings.fitted}
    adjusted = dict(zip(apart, holm([one.p for one in apart.values()]), strict=True))
    return [
        _row(key, [_score(wearers, key, draw) for draw in range(settings.draws)], apart.get(key), adjusted.get(key))
        for key in ((0, AS_IT_IS), *settings.fitted)
    ]


def _correct(wearers: Sequence[Wearer], key: tuple[int, str]) -> NDArray[np.float64]:
    """(D, N) the probability of the true emotion being said, of all wearers' clips one after the other."""
    said = np.concatenate([wearer.said[key] for wearer in wearers], axis=1)  # (D, N, c)
    correct: NDArray[np.float64] = np.take_along_axis(said, _labels(wearers)[:, :, None], axis=2)[:, :, 0]
    return correct


def _labels(wearers: Sequence[Wearer]) -> NDArray[np.int64]:
    """(D, N) the true emotions, of all wearers' clips one after the other."""
    return np.concatenate([[[one.class_index for one in draw] for draw in wearer.asked] for wearer in wearers], axis=1)


def _score(wearers: Sequence[Wearer], key: tuple[int, str], draw: int) -> Scores:
    records = [record for wearer in wearers for record in wearer.asked[draw]]
    return score(
        np.array([record.class_index for record in records]),
        np.concatenate([wearer.said[key][draw] for wearer in wearers]),
        [record.subject for record in records],
        [record.lighting for record in records],
    )


def _row(
    key: tuple[int, str], scores: Sequence[Scores], apart: Difference | None, holm_p: float | None
) -> dict[str, Any]:
    tenths = [one.worst_tenth for one in scores if one.worst_tenth is not None]
    return {
        "k": key[0],
        "way": key[1],
        "war": statistics.mean(one.war for one in scores),
        "uar": statistics.mean(one.uar for one in scores),
        "worst_tenth": statistics.mean(tenths) if tenths else None,
        "difference": apart.estimate if apart else None,
        "low": apart.low if apart else None,
        "high": apart.high if apart else None,
        "holm_p": holm_p,
    }


def _model(folder: Path) -> Path:
    """The model that a finished run leaves."""
    return folder / "model.safetensors"


def _title(summary: dict[str, Any]) -> str:
    synthetic = " (synthetic data)" if summary["data"] == "synthetic" else ""
    return f"{summary['wearers']} unseen wearers, {summary['clips asked about']} clips asked about{synthetic}"


def _caption(summary: dict[str, Any]) -> str:
    left = len(summary["too few clips"])
    return (
        f"{summary['exploratory']}; means over {summary['draws']} draws of the labelled clips; differences to the "
        "model as it is, on the same clips, 95 % interval, p by Holm"
        f"{f'; wearers with too few clips: {left}' if left else ''}"
    )


def _for_people(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The rows as they are read: shares in percent, a difference with its interval."""
    found = []
    for row in rows:
        measures = {"WAR %": row["war"], "UAR %": row["uar"], "worst tenth %": row["worst_tenth"]}
        shown = {name: "-" if share is None else f"{100 * share:.1f}" for name, share in measures.items()}
        apart, p = "-", "-"
        if row["difference"] is not None:
            points = (100 * row[key] for key in ("difference", "low", "high"))
            apart, p = "{:+.1f} ({:+.1f} to {:+.1f})".format(*points), f"{row['holm_p']:.3f}"
        found.append({"k": str(row["k"]), "way": row["way"], **shown, "difference, points": apart, "p": p})
    return found


def _table(summary: dict[str, Any]) -> Table:
    rows = _for_people(summary["rows"])
    table = Table(title=_title(summary), caption=_caption(summary))
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "way" else "right")
    for row in rows:
        table.add_row(*row.values())
    return table


if __name__ == "__main__":
    with errors_as_one_line("run the same command again"):
        main()
