"""Every subject of a SEE data set is a client, and the clients learn in rounds: the simulation's command."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mcoe_model.errors import ExitCode, McoeError, NotResumable, SettingsError
from mcoe_model.files import read_json
from mcoe_model.names import EMOTIONS
from simulations import experiment, report
from simulations.console import Display
from simulations.scene import Paths
from simulations.settings import SimulationSettings, make_settings, read_toml
from simulations.summary import ARMS

EXAMPLES = """
Examples:

  python simulations/see_by_subject.py                          # quick, synthetic data, a few minutes on two cores

  python simulations/see_by_subject.py --data /data/SEE         # the real thing: event/, frame/, emotion.json

  python simulations/see_by_subject.py --rule median --cohort 0.5 --rounds 20 --out runs/median

  python simulations/see_by_subject.py --resume runs/median     # go on after a kill or Ctrl-C

  python simulations/see_by_subject.py --print-config > my.toml && python simulations/see_by_subject.py --config my.toml
"""

def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="see_by_subject.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings; flags go over it")
    parser.add_argument("--print-config", action="store_true", help="print the settings as TOML and stop")
    parser.add_argument("--scale", default="quick", help="quick or full: which defaults the settings start from")
    parser.add_argument("--out", type=Path, metavar="DIR", help="output folder; by default a new one under runs/")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on with the run in this folder")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on the last line")
    settings = parser.add_argument_group("settings, with the defaults of --scale quick")
    for field in dataclasses.fields(SimulationSettings):
        flag, says = f"--{field.name.replace('_', '-')}", f"{field.metadata['help']} [{field.default}]"
        if type(field.default) is bool:
            settings.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=says)
        else:
            settings.add_argument(flag, type=type(field.default), metavar="", help=says)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Simulate a fleet: a base model, then clients that learn in rounds, compared with what else could be done."""
    flags = vars(_parser().parse_args(arguments))
    config, print_config, scale, out, resume, as_json = (
        flags.pop(name) for name in ("config", "print_config", "scale", "out", "resume", "json")
    )
    if resume is not None:
        given = [f"--{name.replace('_', '-')}" for name, value in {**flags, "out": out}.items() if value is not None]
        if given or config:
            raise SettingsError([f"--resume takes its settings from the run; leave out {', '.join(given) or '--config'}"])
        settings, folder = _stored_settings(resume), resume
    else:
        settings = make_settings(scale, read_toml(config) if config else {}, flags)
        folder = out or Path("runs") / f"{datetime.now():%Y-%m-%d-%H%M%S}-{settings.model}"
    if print_config:
        print(settings.to_toml(), end="")
        return
    display = Display(Console(stderr=as_json))
    _introduce(settings, folder, display, resumed=resume is not None)
    with display.live():
        if resume is None:
            experiment.begin(settings, folder)
        try:
            experiment.prepare(settings, folder, display)
        except McoeError:
            if resume is None:
                shutil.rmtree(folder)
            raise
        summary = experiment.run(folder, display)
        path = report.write_report(folder)
    display.console.print(_table(summary))
    display.console.print(_verdict(summary))
    display.console.print(f"Open the report: [bold]{path}[/bold]")
    if as_json:
        print(json.dumps(summary))


def _stored_settings(folder: Path) -> SimulationSettings:
    try:
        return SimulationSettings(**read_json(Paths(folder).run)["settings"])
    except (FileNotFoundError, NotADirectoryError, KeyError, ValueError, TypeError) as fault:
        raise NotResumable(f"{folder} holds no run to resume ({fault}); start one without --resume") from fault


def _introduce(settings: SimulationSettings, folder: Path, display: Display, *, resumed: bool) -> None:
    display.say(f"[bold]{'Going on with' if resumed else 'Simulating'} {settings.model}, {settings.rounds} rounds, "
                f"{settings.protocol}[/bold] in {folder}")
    if settings.synthetic:
        display.say(f"No --data: using synthetic data of {settings.subjects} subjects. "
                    "Accuracy on them says nothing about SEE.")
    if settings.protocol == "published":
        display.say("[yellow]The published split is by sequence: most test subjects are in training too. "
                    "Do not read its numbers as accuracy on unseen people.[/yellow]")
    display.say(f"Chance level: {100 / len(EMOTIONS):.1f} % (7 emotions).")


def _table(summary: dict[str, Any]) -> Table:
    table = Table(title=f"{summary['subjects']['test']} test subjects, {summary['clips']['test']} clips"
                  f"{' (synthetic data)' if summary['data'] == 'synthetic' else ''}")
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
            table.add_row(says[arm], *(f"{100 * cell:.1f}" if cell is not None else "-" for cell in cells),
                          style="bold" if arm == "federated" else None)
    return table


def _verdict(summary: dict[str, Any]) -> str:
    gain = summary["recovered_gain"]
    if gain is None:
        return "Recovered gain: not known (centralised training did not run, or gained nothing over the base)."
    text = f"Recovered gain: {gain:.2f} of what centralised training on the same clips gains over the base."
    if not summary["informative"]:
        text += " [yellow]Not informative: that gain is below 5 points or not resolved on so few subjects.[/yellow]"
    return text


def command() -> None:
    """The script: expected errors are one line and their exit code."""
    try:
        main()
    except McoeError as fault:
        print(f"error: {fault}", file=sys.stderr)
        sys.exit(fault.exit_code)
    except KeyboardInterrupt:
        print("stopped; go on with --resume", file=sys.stderr)
        sys.exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    command()
