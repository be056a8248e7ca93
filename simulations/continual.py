"""Compare methods against forgetting, alone or in rounds: streams of domains, a limit of bytes, every method alike."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.console import Console
from rich.table import Table

from mcoe_model.learning.methods import Eviction, MethodName
from simulations.command import errors_as_one_line
from simulations.console import Display
from simulations.continual_report import write_report
from simulations.continual_run import learn_everything, prepare
from simulations.continual_settings import ContinualSettings
from simulations.continual_summary import write_results
from simulations.settings import SIMULATED_RULES
from simulations.streams import StreamName

DEFAULT = ContinualSettings()
app = typer.Typer(add_completion=False)

EXAMPLES = """Examples:\n
python simulations/continual.py --stream emotions --methods latent-replay,der++,joint --seeds 3 --out runs/emotions\n
python simulations/continual.py --stream sessions --methods der++,ewc:100 --memory-mb 0.02,0.2,2 --out runs/sessions\n
python simulations/continual.py --stream emotions --methods der++,joint --federated --out runs/emotions-in-rounds\n
python simulations/continual.py --stream subjects --data /data/SEE --methods der++ --label-noise 0.2 --out runs/see\n
Started again with the same settings and folder, it goes on where it was stopped."""


@app.command(epilog=EXAMPLES)
def main(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run; a new one, or one to finish.")],
    stream: Annotated[str, typer.Option(help=f"What comes one after another: {', '.join(get_args(StreamName))}.")],
    methods: Annotated[
        str, typer.Option(help=f"With commas between, weights after a colon: {', '.join(get_args(MethodName))}; "
            "or your own, as path/file.py:Class.")
    ] = DEFAULT.methods,
    memory_mb: Annotated[str, typer.Option(help="Limits of what a method keeps, in MB, with commas between.")] = "2",
    eviction: Annotated[
        str, typer.Option(help=f"Who leaves a full memory, with commas between: {', '.join(get_args(Eviction))}.")
    ] = DEFAULT.eviction,
    seeds: Annotated[int, typer.Option(help="Runs with seeds 0, 1 ...: base, order and draws; people stay.")] = 3,
    data: Annotated[str, typer.Option(help="SEE folder; without one, synthetic data are made once.")] = "",
    design: Annotated[str, typer.Option(help="Synthetic design; by default the stream's own.")] = "",
    subjects: Annotated[int, typer.Option(help="Subjects of the synthetic set.")] = DEFAULT.subjects,
    sequences: Annotated[int, typer.Option(help="Performances per synthetic subject; 0: the design's own.")] = 0,
    model: Annotated[str, typer.Option(help="Preset: mcoe, mcoe-edge, mcoe-tiny.")] = DEFAULT.model,
    base_epochs: Annotated[int, typer.Option(help="Epochs of the base model's training.")] = DEFAULT.base_epochs,
    bases: Annotated[str, typer.Option(help="Folder of another comparison whose base models are taken.")] = "",
    part: Annotated[str, typer.Option(help="Who learns: clients, or validation to choose weights on.")] = DEFAULT.part,
    fold: Annotated[int, typer.Option(help="Which fifth of the subjects is unseen.")] = DEFAULT.fold,
    lesson: Annotated[int, typer.Option(help="Clips of a lesson at most.")] = DEFAULT.lesson,
    epochs: Annotated[int, typer.Option(help="Epochs of a lesson.")] = DEFAULT.epochs,
    batch_size: Annotated[int, typer.Option(help="New clips in a step.")] = DEFAULT.batch_size,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = DEFAULT.lr,
    windows: Annotated[
        str, typer.Option(help="Windows of a clip that are scored: exact (all, weighted), or the middle one alone.")
    ] = DEFAULT.windows,
    label_noise: Annotated[
        str, typer.Option(help="Share of wrong labels, or a JSON file with a confusion matrix (rows: true).")
    ] = DEFAULT.label_noise,
    federated: Annotated[bool, typer.Option("--federated", help="Learn in rounds, all devices one model.")] = False,
    rule: Annotated[
        str, typer.Option(help=f"With --federated, the aggregation rule: {', '.join(SIMULATED_RULES)}.")
    ] = DEFAULT.rule,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: one per core. Results do not depend on it.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Learn a stream on every device with each method: what is forgotten, and what is known at the end."""
    given = {name: value for name, value in locals().items() if name not in ("out", "workers", "as_json")}
    with errors_as_one_line("run the same command again to go on"):
        settings = ContinualSettings(**given)
        display = Display(Console(stderr=as_json))
        processes = workers or os.cpu_count() or 1
        with display.live():
            run = prepare(settings, out.absolute(), processes, display)
            for label, reason in run.left_out.items():
                display.say(f"[yellow]{label} is left out: {reason}[/yellow]")
            learn_everything(run, processes, display)
        summary = write_results(run)
        report = write_report(run.folder)
    display.console.print(_table(summary))
    if len(summary["arms"]) > 1:
        display.console.print(_differences(summary))
    for note in summary["notes"]:
        display.console.print(note, soft_wrap=True)
    for label, found in summary["arms"].items():
        if found["rejected"]:
            display.say(f"[yellow]{label}: {found['rejected']} updates went into no model[/yellow]")
    display.console.print(_verdict(summary), soft_wrap=True)
    display.console.print(f"The report: [bold]{report}[/bold]", soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(summary))


def _table(summary: dict[str, Any]) -> Table:
    sizes = ", ".join(f"{what} {summary[what]}" for what in ("devices", "people", "stages", "seeds"))
    title = f"{summary['stream']}, {_where(summary)}: {sizes}"
    table = Table(title=title + (" (exploratory)" if summary["exploratory"] else ""))
    table.add_column("method")
    for column in ("ACC", "BWT", "FWT", "forgetting", "from base", "unseen", "worst tenth", "kB kept"):
        table.add_column(column, justify="right")
    for label, found in summary["arms"].items():
        shares = [found[name] for name in ("acc", "bwt", "fwt", "forgetting", "forgetting_from_base")]
        shares += [found["unseen_acc"], found["worst_tenth"]]
        table.add_row(label, *(f"{100 * share:.1f}" for share in shares), f"{found['bytes_kept'] / 1000:.0f}")
    return table


def _differences(summary: dict[str, Any]) -> Table:
    table = Table(title="with 95 % intervals over people and seeds")
    table.add_column("method")
    for column in ("forgetting less naive's", "removed, %", "ACC less joint's", "both goals"):
        table.add_column(column, justify="right")
    for label, found in summary["arms"].items():
        if label != "naive":
            cells = [_with_interval(found["removed"], found["removed_interval"])]
            for name in ("forgetting_minus_naive", "acc_minus_joint"):
                one = found[name]
                cells.append(_with_interval(one["estimate"], (one["low"], one["high"])) if one else "-")
            table.add_row(label, cells[1], cells[0], cells[2], summary["reached"].get(label, "-"))
    return table


def _with_interval(share: float | None, between: Sequence[float] | None) -> str:
    if share is None:
        return "-"
    return f"{100 * share:.1f}" + (f" ({100 * between[0]:.1f} to {100 * between[1]:.1f})" if between else "")


def _where(summary: dict[str, Any]) -> str:
    return str(summary["learned"]) + (f" ({summary['rule']})" if summary["rule"] else "")


def _verdict(summary: dict[str, Any]) -> str:
    data = "Synthetic data, which say nothing about SEE. " if summary["data"] == "synthetic" else ""
    forgotten = f"Naive fine-tuning forgets {100 * summary['naive_forgetting']:.1f} points"
    if not summary["informative"]:
        return f"{data}[bold]Uninformative[/bold]: {forgotten}, fewer than 10; compare nothing on this stream."
    verdicts = "; ".join(f"{label} {verdict}" for label, verdict in summary["reached"].items())
    asked = "At least 70 % less, and within 3 points of joint training, as far as the intervals tell"
    return f"{data}{forgotten}. {asked}: {verdicts or 'not asked, since no limited method was compared with joint'}."


if __name__ == "__main__":
    app()
