"""Write a synthetic data set in exactly SEE's layout: drawn eyes, four lightings, intensity and event pictures.

For everything that can be tried without SEE's own pictures. Accuracy on synthetic data says nothing about SEE.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mcoe_model.data.synthetic.design import plan
from mcoe_model.data.synthetic.raw import write_raw_events
from mcoe_model.data.synthetic.settings import DEFAULT_DIFFICULTY, DESIGNS, SEE_SUBJECTS, SyntheticSettings
from mcoe_model.data.synthetic.sheet import write_sheet
from mcoe_model.data.synthetic.statistics import SEE, Statistics, measure
from mcoe_model.data.synthetic.writer import write_see
from simulations.command import errors_as_one_line
from simulations.console import Display

app = typer.Typer(add_completion=False)

EXAMPLES = """Examples:\n
python simulations/synthesise_see.py data/synthetic\n
python simulations/synthesise_see.py data/quick --subjects 32 --sequences 14 --size 64\n
python simulations/synthesise_see.py data/events --subjects 32 --sequences 14 --size 64 --raw-events\n
python simulations/synthesise_see.py data/wearers --design wearable --subjects 10 --sheet wearers.png\n
Started again with the same settings, it goes on where it was stopped."""


@app.command(epilog=EXAMPLES)
def main(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Folder to write; a new one, or one to finish.")],
    subjects: Annotated[int, typer.Option(help="People.")] = SEE_SUBJECTS,
    sequences: Annotated[int, typer.Option(help="Performances per person at most; 0: the design's own number.")] = 0,
    design: Annotated[str, typer.Option(help=f"One of {', '.join(DESIGNS)}.")] = "see-like",
    size: Annotated[int, typer.Option(help="Side of a picture in pixels.")] = 90,
    difficulty: Annotated[
        float, typer.Option(help="0: every emotion by the book; larger: weaker expressions, more different people.")
    ] = DEFAULT_DIFFICULTY,
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: one per core. Results do not depend on it.")] = 0,
    raw_events: Annotated[
        bool, typer.Option("--raw-events", help="Write the events themselves too, and a table that names them.")
    ] = False,
    sheet: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw a contact sheet to this PNG too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Write a synthetic data set in exactly SEE's layout, with the statistics of its pictures beside SEE's."""
    with errors_as_one_line("run the same command again to go on"):
        settings = SyntheticSettings(subjects, sequences or None, size, design, difficulty, seed)
        display = Display(Console(stderr=as_json))
        started = time.monotonic()
        with display.live():
            processes = workers or os.cpu_count() or 1
            write_see(root, settings, workers=processes, progress=display.phase("draw sequences"))
            if raw_events:
                write_raw_events(root, settings, workers=processes, progress=display.phase("draw events"))
            if sheet is not None:
                write_sheet(sheet, settings)
        summary = summarise(root, settings, time.monotonic() - started)
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        display.console.print(_table(summary))


def summarise(root: Path, settings: SyntheticSettings, seconds: float) -> dict[str, Any]:
    """What was written: amounts, and statistics of the pictures by lighting beside SEE's."""
    clips = plan(settings)
    return {
        "root": str(root),
        "settings": settings.as_json(),
        "subjects": len({clip.subject for clip in clips}),
        "sequences": len(clips),
        "pictures": sum(clip.length for clip in clips),
        "training": sum(clip.split == "training" for clip in clips),
        "length": _spread([clip.length for clip in clips]),
        "statistics": {name: asdict(values) for name, values in measure(root, clips).items()},
        "see": asdict(SEE),
        "seconds": round(seconds, 1),
    }


def _spread(lengths: list[int]) -> dict[str, float]:
    mean = sum(lengths) / len(lengths)
    sd = (sum((length - mean) ** 2 for length in lengths) / len(lengths)) ** 0.5
    return {"least": min(lengths), "mean": round(mean, 1), "sd": round(sd, 1), "most": max(lengths)}


def _table(summary: dict[str, Any]) -> Table:
    length = summary["length"]
    table = Table(
        title=f"{summary['root']}: {summary['subjects']} people, {summary['sequences']} sequences "
        f"({summary['training']} for training), {summary['pictures']} pairs of pictures",
        caption=f"Sequences are {length['least']} to {length['most']} pictures long, mean {length['mean']}, "
        f"sd {length['sd']} (SEE: 18 to 131, 53.5, 15.2).\nAccuracy on synthetic data says nothing about SEE.",
    )
    table.add_column("shares of white")
    for column in ("frame mean", "frame sd", "event mean", "event sd", "active pixels"):
        table.add_column(column, justify="right")
    for name, values in (*summary["statistics"].items(), ("SEE", summary["see"])):
        table.add_row(name, *(f"{value:.3f}" for value in Statistics(**values).__dict__.values()))
    return table


if __name__ == "__main__":
    app()
