"""A declared grid of runs, made, compared and written up: the study's command."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from mcoe_model.errors import DataMissing, ExitCode, McoeError, SettingsError
from mcoe_model.files import write_bytes
from simulations.command import command
from simulations.console import Display
from simulations.study_grid import Grid, Included, Run, command_of, flags, read_grid, runs_of, shell
from simulations.study_page import Found, Shown, differences_figure, page, page_tables
from simulations.study_registry import DONE, FAILED, RunRow, StudyRegistry
from simulations.study_results import tables, tidy_scores, tidy_settings, tidy_tuning, tuned
from simulations.tables import write_csv, write_for_people

EXAMPLES = """
Examples:

  python simulations/study.py studies/reduced.toml              # every run of the grid, then docs/study.md

  python simulations/study.py studies/reduced.toml --list       # what would be run, and with which commands

The same command goes on where it was stopped; runs that failed are tried again.
"""
_HERE = Path(__file__).parent.parent
#: The grid that `docs/study.md` is of; another's page has its name.
_MAIN = _HERE / "studies" / "reduced.toml"


def main(arguments: list[str] | None = None) -> None:
    """Run what is not done yet, several at a time, and write the page."""
    asked = _parser().parse_args(arguments)
    if asked.jobs < 1:
        raise SettingsError([f"--jobs must be at least 1, not {asked.jobs}"])
    grid = read_grid(asked.grid)
    folder = (asked.out or Path("runs") / f"study-{grid.name}").absolute()
    study = Study(grid, folder, Display(Console(stderr=asked.json)))
    if asked.list:
        print("\n".join(shell(line) for line in study.commands.values()))
        return
    failed = study.run(asked.jobs)
    path = asked.page or page_of(asked.grid)
    found = study.write(path.absolute(), shell([*_told(asked)]))
    study.display.console.print(f"Open the page: [bold]{path}[/bold]", soft_wrap=True)
    if asked.json:
        print(json.dumps(found))
    if failed:
        first, fault = next(iter(failed.items()))
        raise McoeError(f"{len(failed)} runs failed, the first: {first}: {fault}; the same command tries them again")


def page_of(grid: Path) -> Path:
    """The page of a grid whose page nobody named: its own, so that no other is written over."""
    name = "study" if grid.resolve() == _MAIN.resolve() else f"study-{grid.stem.replace('_', '-')}"
    return Path("docs") / f"{name}.md"


class Study:
    """The runs of a grid in a folder: a folder each, and a row each in ``study.sqlite``."""

    def __init__(self, grid: Grid, folder: Path, display: Display) -> None:
        self.grid, self.folder, self.display = grid, folder, display
        self.runs = runs_of(grid)
        shown = Path(os.path.relpath(folder))  # as it is typed from here
        self.commands = {run.name: command_of(grid, run, shown) for run in self.runs}
        self.included = {f"command-{number}": one for number, one in enumerate(grid.included, 1)}
        self.commands |= {name: list(one.run) for name, one in self.included.items()}
        self._stopped = threading.Event()

    @cached_property
    def registry(self) -> StudyRegistry:
        """The rows of the runs; made, with its folder, when it is first asked for."""
        return StudyRegistry(self.folder / "study.sqlite")

    def run(self, jobs: int) -> dict[str, str]:
        """Make every run that is not done, ``jobs`` at a time, the references first; which failed, and why."""
        registry = self.registry
        registry.declare(self.commands)
        base = [run.name for run in self.runs if run.reference]
        waves = [base, [name for name in self.commands if name not in base]]
        report = self.display.phase("runs")
        with self.display.live(), ThreadPoolExecutor(jobs) as pool:
            try:
                for wave in waves:
                    rows = registry.rows(wave)
                    waiting = {name: pool.submit(self._make, name) for name in wave if rows[name].state != DONE}
                    self._await(waiting, report)
            except BaseException:
                self._stopped.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        rows = registry.rows(list(self.commands))
        return {name: row.fault or "" for name, row in rows.items() if row.state == FAILED}

    def _await(self, waiting: dict[str, Future[None]], report: Any) -> None:
        while True:
            states = [row.state for row in self.registry.rows(list(self.commands)).values()]
            report(states.count(DONE), len(states), f"{states.count(FAILED)} failed" if FAILED in states else "")
            if all(future.done() for future in waiting.values()):
                break
            time.sleep(0.5)
        for future in waiting.values():
            future.result()

    def _make(self, name: str) -> None:
        """One run as its command makes it; a run that was begun goes on."""
        out, line = self.folder / name, self.commands[name]
        workers = [] if name in self.included else ["--workers", "1"]  # bits do not depend on them
        begun = (out / "run.json").exists()
        if not begun:
            shutil.rmtree(out, ignore_errors=True)  # left by a kill before anything was written down
        started = time.monotonic()
        # Some commands go on when they are given again, and others, which then refuse the folder, with --resume.
        code, said = self._start(name, [*line, *workers, "--out", str(out), "--json"])
        if begun and code == ExitCode.OUTPUT_EXISTS:
            code, said = self._start(name, [line[0], "--resume", str(out), "--json"])
        seconds = time.monotonic() - started
        if self._stopped.is_set():
            return
        if code == 0:
            self.registry.done(name, seconds, json.loads(said.splitlines()[-1]))
        else:
            last = (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines()[-1:]
            self.registry.failed(name, seconds, last[0] if last else f"exit code {code}")

    def _start(self, name: str, line: list[str]) -> tuple[int, str]:
        """A command from its start to its end: its exit code, and what it printed."""
        # Whoever ends this process, and however, ends the run: it lives as long as its standard input.
        run = [sys.executable, "-m", "simulations.end_with_parent", sys.executable, *line]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(run, cwd=_HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
            assert process.stdin and process.stdout
            threading.Thread(target=self._end, args=(process,), daemon=True).start()
            said = process.stdout.read().decode().strip()
            return process.wait(), said

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Close the run's standard input when the study is stopped."""
        while process.poll() is None and not self._stopped.wait(0.2):
            pass
        assert process.stdin
        process.stdin.close()

    def write(self, path: Path, made_by: str) -> dict[str, Any]:
        """Write the page, its figure and the tables; returns what `--json` prints. Raises DataMissing for no run."""
        rows = self.registry.rows(list(self.commands))
        summaries = {name: row.found for name, row in rows.items() if row.state == DONE}
        if not any(run.name in summaries for run in self.runs if run.reference):
            raise DataMissing(f"no run of the reference is done; see {self.folder}/*.log")
        found = self._found(rows, path, made_by)
        if found.figure:
            write_bytes(path.with_name(found.figure), differences_figure(found.tables))
        write_bytes(path, page(found).encode())
        for table in page_tables(found):
            write_for_people(self.folder / "tables" / table.name, table.rows, table.caption)
        write_csv(self.folder / "runs.csv", [_run_row(run, summaries) for run in self.runs if run.name in summaries])
        write_csv(self.folder / "scores.csv", tidy_scores(self.runs, summaries))
        write_csv(self.folder / "settings.csv", tidy_settings(self.grid, found.tables))
        write_csv(self.folder / "tuning.csv", tidy_tuning(found.tuned))
        return {
            "name": self.grid.name,
            "done": len(summaries),
            "failed": [name for name, row in rows.items() if row.state == FAILED],
            "page": str(path),
            "factors": [
                {"says": factor.says, "rows": [row.to_json() for row in table]}
                for factor, table in zip(self.grid.factors, found.tables, strict=True)
            ],
        }

    def _found(self, rows: Mapping[str, RunRow], path: Path, made_by: str) -> Found:
        """What the page at ``path`` tells of the runs."""
        summaries = {name: row.found for name, row in rows.items() if row.state == DONE}
        found = tables(self.grid, self.runs, summaries, self.folder)
        compared = any(row.difference for table in found for row in table)
        return Found(
            grid=self.grid,
            tables=found,
            tuned=tuned(self.runs, summaries),
            commands=[self._shown(factor.values) for factor in self.grid.factors],
            included=[self._included(name, one, path) for name, one in self.included.items() if name in summaries],
            missing={name: row.fault or "not run" for name, row in rows.items() if row.state != DONE},
            runs=len(rows),
            results=os.path.relpath(self.folder),
            figure=f"{path.stem}-differences.svg" if compared else None,
            made_by=made_by,
            synthetic=any(summary.get("data") == "synthetic" for summary in summaries.values()),
        )

    def _included(self, name: str, one: Included, path: Path) -> Shown:
        """An included command's table, and its figures, which are put beside the page."""
        table = self.folder / name / one.table
        latex = table.with_suffix(".tex")
        return Shown(
            one,
            table.read_text(),
            os.path.relpath(latex) if latex.exists() else None,
            [self._copy(name, number, figure, path) for number, figure in enumerate(one.figures, 1)],
            shell(one.run),
        )

    def _shown(self, values: Sequence[Any]) -> list[str]:
        """The commands of the reference and of a factor's first value, under the first seed."""
        first = [run for run in self.runs if run.seed == self.grid.seeds[0]]
        return [shell(self.commands[run.name]) for run in first if run.reference or run.changed == values[0]]

    def _copy(self, name: str, number: int, figure: str, path: Path) -> str:
        """Put a figure of an included command beside the page; its name there."""
        source = self.folder / name / figure
        target = path.with_name(f"{path.stem}-{name}-{number}{source.suffix}")
        write_bytes(target, source.read_bytes())
        return target.name


def _run_row(run: Run, summaries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    summary = summaries[run.name]
    measures = ("war", "uar", "worst_tenth")
    arms = ("base", "federated", "centralised", "all_data")
    scores = {f"{arm}_{m}": (summary[arm] or {}).get(m) for arm in arms for m in measures}
    same = {key: summary[key] for key in ("recovered_gain", "bytes_up", "bytes_down", "seconds")}
    return {"run": run.name, "seed": run.seed, "changed": " ".join(flags(run.changed))} | scores | same


def _told(asked: argparse.Namespace) -> list[str]:
    """The command as it can be given again."""
    return ["simulations/study.py", str(asked.grid), *(["--page", str(asked.page)] if asked.page else [])]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="study.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("grid", type=Path, metavar="GRID.toml", help="the declared grid; see studies/")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the runs [runs/study-NAME]")
    parser.add_argument(
        "--page", type=Path, metavar="FILE",
        help="the page to write [docs/study.md for studies/reduced.toml, docs/study-GRID.md for another]",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=int, metavar="N", default=os.cpu_count() or 1, help="runs at a time [one per processor]"
    )
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON on the last line")
    return parser


if __name__ == "__main__":
    command(main)
