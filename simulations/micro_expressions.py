"""Train CMFNet on micro-expressions (SMIC, SAMM, CASME II), leaving every subject out once, and print UF1 and UAR."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from simulations.command import errors_as_one_line
from simulations.console import Display
from simulations.leave_one_out import MicroSettings, begin_or_resume, run

app = typer.Typer(add_completion=False)

EXAMPLES = """Examples:\n
python simulations/micro_expressions.py --data /data/composite --out runs/composite\n
python simulations/micro_expressions.py --data /data/smic --epochs 50 --json\n
Started again with the same settings and --out, it goes on where it was stopped.\n
DATA holds labels.csv (database,subject,clip,emotion,onset,offset) and the folders of pictures that it names."""


@app.command(epilog=EXAMPLES)
def main(
    data: Annotated[Path, typer.Option(metavar="DATA", help="Folder with labels.csv and the clips' folders.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the run; by default a new one under runs/.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of each fold.")] = MicroSettings.epochs,
    size: Annotated[int, typer.Option(help="Side of the pictures in pixels.")] = MicroSettings.size,
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = MicroSettings.seed,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: one per core. Results do not depend on it.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Train CMFNet on micro-expressions, leaving every subject out once; print UF1 and UAR as MEGC2019 pools them."""
    display = Display(Console(stderr=as_json))
    with errors_as_one_line("run the same command again, with --out, to go on"):
        settings = MicroSettings(str(data.absolute()), epochs, size, seed)
        folder = (out or Path("runs") / f"{datetime.now():%Y-%m-%d-%H%M%S}-micro-expressions").absolute()
        with display.live():
            clips = begin_or_resume(settings, folder, display)
            display.say(f"{len(clips.names)} clips of {len(clips.left_out)} subjects, in {escape(str(folder))}")
            for fault in clips.unusable:
                display.say(escape(f"not used: line {fault['line']}, {fault['name']}: {fault['reason']}"))
            summary = run(folder, workers or os.cpu_count() or 1, display)
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        display.console.print(_table(summary))


def _table(summary: dict[str, Any]) -> Table:
    """One row for everything, and for each database where there are several."""
    table = Table(
        title=f"{summary['subjects']} subjects, each left out once",
        caption="UF1 and UAR: counts pooled over all folds after the last epoch, as MEGC2019 prescribes.\n"
        "Optimistic: the best epoch on the subject left out, mean over folds, as CMFNet's released code prints; "
        "it compares with no other publication.",
    )
    table.add_column("")
    for column in ("clips", "UF1", "UAR", "accuracy", "optimistic UF1", "optimistic UAR"):
        table.add_column(column, justify="right")
    for name, part in {"all": summary, **summary["per_database"]}.items():
        optimistic = part["best_epoch_mean_of_folds"]
        values = [part["uf1"], part["uar"], part["accuracy"], optimistic["uf1"], optimistic["uar"]]
        table.add_row(name or "-", str(sum(part["clips"].values())), *(f"{value:.3f}" for value in values))
    return table


if __name__ == "__main__":
    app()
