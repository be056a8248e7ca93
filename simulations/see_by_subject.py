"""Every subject of a SEE data set is a client, and the clients learn in rounds: the simulation's command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mcoe_model.names import EMOTIONS
from simulations.answers import ARMS
from simulations.api import run
from simulations.arms import unlike_published
from simulations.command import command, make_parser, read_request
from simulations.console import Display
from simulations.settings import SimulationSettings
from simulations.tuning import edge_notes

EXAMPLES = """
Examples:

  python simulations/see_by_subject.py                          # quick, synthetic data, a few minutes on two cores

  python simulations/see_by_subject.py --data /data/SEE         # the real thing: event/, frame/, emotion.json

  python simulations/see_by_subject.py --rule median --cohort 0.5 --rounds 20 --out runs/median

  python simulations/see_by_subject.py --resume runs/median     # go on after a kill or Ctrl-C

  python simulations/see_by_subject.py --fold all               # every fold in turn: every subject is tested once

  python simulations/see_by_subject.py --grid 3e-4,1e-3,3e-3    # each arm at its own best learning rate

  python simulations/see_by_subject.py --print-config > my.toml && python simulations/see_by_subject.py --config my.toml
"""


def main(arguments: list[str] | None = None) -> None:
    """Simulate a fleet: a base model, then clients that learn in rounds, compared with what else could be done."""
    request = read_request(make_parser("see_by_subject.py", __doc__ or "", EXAMPLES), arguments)
    if request is None:
        return
    settings, folder = request.settings, request.folder
    display = Display(Console(stderr=request.as_json))
    _introduce(settings, folder, display, resumed=request.resumed)
    summary = run(settings, folder, display, resumed=request.resumed)
    display.console.print(_table(summary))
    display.console.print(_verdict(summary))
    for note in edge_notes(summary["tuning"]):
        display.console.print(f"[yellow]{note}[/yellow]")
    display.console.print(f"Open the report: [bold]{folder / 'report.html'}[/bold]", soft_wrap=True)
    if request.as_json:
        print(json.dumps(summary))


def _introduce(settings: SimulationSettings, folder: Path, display: Display, *, resumed: bool) -> None:
    display.say(
        f"[bold]{'Going on with' if resumed else 'Simulating'} {settings.preset}, {settings.rounds} rounds, "
        f"{settings.protocol}{f', all {settings.folds} folds' if settings.fold == 'all' else ''}[/bold] in {folder}"
    )
    if settings.synthetic:
        display.say(
            f"No --data: using synthetic data of {settings.subjects} subjects. Accuracy on them says nothing about SEE."
        )
    if settings.protocol == "published":
        display.say(
            "[yellow]The published split is by sequence: most test subjects are in training too. "
            "Do not read its numbers as accuracy on unseen people.[/yellow]"
        )
    if caution := unlike_published(settings):
        display.say(f"[yellow]{caution}[/yellow]")
    display.say(f"Chance level: {100 / len(EMOTIONS):.1f} % (7 emotions).")


def _table(summary: dict[str, Any]) -> Table:
    table = Table(
        title=f"{summary['subjects']['test']} test subjects, {summary['clips']['test']} clips"
        f"{' (synthetic data)' if summary['data'] == 'synthetic' else ''}"
    )
    for column in ("", "WAR %", "UAR %", "F1p %", "worst tenth %"):
        table.add_column(column, justify="left" if not column else "right")
    says = {
        "base": "base model, unmodified",
        "federated": "federated",
        "centralised": "centralised from the base (upper line)",
        "local": "each client alone (mean)",
        "all_data": "all data in one place, from scratch",
    }
    for arm in ARMS:
        if summary[arm]:
            cells = (summary[arm][key] for key in ("war", "uar", "f1p", "worst_tenth"))
            table.add_row(
                says[arm],
                *(f"{100 * cell:.1f}" if cell is not None else "-" for cell in cells),
                style="bold" if arm == "federated" else None,
            )
    return table


def _verdict(summary: dict[str, Any]) -> str:
    gain = summary["recovered_gain"]
    if gain is None:
        return "Recovered gain: not known (centralised training did not run, or gained nothing over the base)."
    text = f"Recovered gain: {gain:.2f} of what centralised training on the same clips gains over the base."
    if not summary["informative"]:
        text += " [yellow]Not informative: that gain is below 5 points or not resolved on so few subjects.[/yellow]"
    return text


if __name__ == "__main__":
    command(main)
