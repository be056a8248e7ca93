"""Scores a folder of prediction files in the format of the published repositories: one JSON file per pass,
``{"results": {sequence name: [{"label", "score"}, ...]}}``.

The measures are those of the released evaluation of SEEN and MCO-E Net (https://arxiv.org/abs/2310.04043): each file is
one pass over the test sequences with one random window each; a table shows mean and standard deviation over the files.
The standard deviation has n - 1 in its denominator: the passes are a sample of all that could be drawn. The truth
is read from the sequence names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mcoe_model.data.see import SequenceName, parse_name
from mcoe_model.errors import DataInvalid, DataMissing, McoeError
from mcoe_model.learning.metrics import Scores, score
from mcoe_model.names import EMOTIONS, LIGHTINGS, parse_emotion

_MEASURES = {"war": "WAR", "uar": "UAR", "f1p": "F1 (p = 0.33)", "macro_f1": "macro F1"}

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Examples:\n\npython simulations/score_predictions.py results/E4_S3\n\n"
    "python simulations/score_predictions.py results/E4_S3 --json"
)
def main(
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Score the prediction files of DIR, one *.json per pass: WAR, UAR, F1, recall per emotion, WAR per lighting."""
    try:
        summary = score_folder(folder)
    except McoeError as fault:
        typer.echo(f"error: {fault}", err=True)
        raise typer.Exit(fault.exit_code) from fault
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
    else:
        Console().print(_table(summary))


def score_folder(folder: Path) -> dict[str, Any]:
    """Mean and sd over the passes in ``folder`` of every measure, in percent; sd is None for a single pass.

    Raises DataMissing when there are no prediction files, DataInvalid naming the file that cannot be read as one or
    that predicts other sequences than the first.
    """
    if not folder.is_dir():
        raise DataMissing(f"no folder {folder}; name one that holds prediction files")
    files = sorted(folder.glob("*.json"))
    if not files:
        raise DataMissing(f"{folder} holds no *.json; name the folder of one setting's prediction files")
    passes = [_read(file) for file in files]
    names = sorted(passes[0])
    for file, predicted in zip(files, passes, strict=True):
        if predicted.keys() != passes[0].keys():
            differing = len(predicted.keys() ^ passes[0].keys())
            raise DataInvalid(f"{file} and {files[0].name} differ in {differing} sequences; all passes need the same")
    sequences = [_parse(name, files[0]) for name in names]
    scores = [_score(sequences, [predicted[name] for name in names]) for predicted in passes]
    return {
        "folder": str(folder),
        "files": len(files),
        "sequences": len(names),
        "subjects": len({sequence.subject for sequence in sequences}),
        "unit": "percent",
        **{measure: _mean_sd([getattr(one, measure) for one in scores]) for measure in _MEASURES},
        "per_emotion": {
            emotion: _mean_sd([one.per_emotion[emotion] for one in scores])
            for emotion in EMOTIONS if emotion in scores[0].per_emotion
        },
        "per_lighting": {
            lighting: {
                **_mean_sd([one.per_lighting[lighting].war for one in scores]),
                "subjects": scores[0].per_lighting[lighting].subjects,
            }
            for lighting in LIGHTINGS if lighting in scores[0].per_lighting
        },
    }  # fmt: skip


def _read(file: Path) -> dict[str, int]:
    """Sequence name -> class of its best-scored label."""
    try:
        results = json.loads(file.read_bytes())["results"]
        predicted = {name: EMOTIONS.index(_best(entries)) for name, entries in results.items()}
    except OSError as fault:
        raise DataInvalid(f"cannot read {file}: {fault.strerror}") from fault
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise DataInvalid(f"{file} is no prediction file: {type(fault).__name__}: {fault}") from fault
    if not predicted:
        raise DataInvalid(f"{file} predicts nothing")
    return predicted


def _best(entries: list[Mapping[str, Any]]) -> str:
    if not all(math.isfinite(entry["score"]) for entry in entries):
        raise ValueError("a score is not a finite number")
    return parse_emotion(max(entries, key=lambda entry: float(entry["score"]))["label"])


def _parse(name: str, file: Path) -> SequenceName:
    try:
        return parse_name(name)
    except ValueError as fault:
        raise DataInvalid(f"{file}: sequence name {name} not understood: {fault}") from fault


def _score(sequences: list[SequenceName], predicted: list[int]) -> Scores:
    """One pass as the distribution that puts everything on the predicted class."""
    expected: NDArray[np.float64] = np.eye(len(EMOTIONS))[predicted]  # (N, C)
    true = np.array([EMOTIONS.index(sequence.emotion) for sequence in sequences])
    return score(
        true, expected, [one.subject for one in sequences], [one.lighting for one in sequences], published=True
    )


def _mean_sd(values: list[float]) -> dict[str, float | None]:
    percent = 100 * np.array(values)
    return {"mean": float(percent.mean()), "sd": float(percent.std(ddof=1)) if len(values) > 1 else None}


def _table(summary: dict[str, Any]) -> Table:
    table = Table(
        title=f"{summary['folder']}: {summary['files']} passes, {summary['sequences']} sequences, "
        f"{summary['subjects']} subjects",
        caption="percent, mean and standard deviation over passes; where each subject was recorded under one lighting, "
        "the lightings are different people and not an effect of light",
    )
    table.add_column("measure")
    table.add_column("mean", justify="right")
    table.add_column("sd", justify="right")
    rows = [(label, summary[measure]) for measure, label in _MEASURES.items()]
    rows += [(f"recall {emotion}", values) for emotion, values in summary["per_emotion"].items()]
    rows += [
        (f"WAR {lighting} ({values['subjects']} subjects)", values)
        for lighting, values in summary["per_lighting"].items()
    ]
    for label, values in rows:
        table.add_row(label, f"{values['mean']:.2f}", "" if values["sd"] is None else f"{values['sd']:.2f}")
    return table


if __name__ == "__main__":
    app()
