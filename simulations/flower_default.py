"""What `flwr run .` does around the rounds when it is given no prepared run: a whole run, inside Flower's process."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from mcoe_model.errors import SettingsError
from mcoe_model.progress import Progress
from mcoe_model.workers import one_thread
from simulations import experiment
from simulations.arms import train_base
from simulations.console import Display
from simulations.report import write_report
from simulations.settings import make_settings, read_toml


class LogDisplay(Display):
    """A line for every phase that is done: bars cannot be drawn into a log."""

    def phase(self, name: str) -> Progress:
        """A progress report that says when the phase is done."""
        said = False

        def report(done: int, total: int, note: str = "") -> None:
            nonlocal said
            if done == total and not said:
                said = True
                self.say(f"{name}: done")

        return report


def prepare(folder: Path, config: str) -> None:
    """Prepare a run with the quick settings, or with those of a TOML file, up to its base model."""
    if config and not Path(config).is_absolute():
        raise SettingsError([f"settings must be an absolute path, not {config!r}: Flower's processes run elsewhere"])
    if "runtime-envs" in Path(torch.__file__).parts:
        print(f"Flower installed packages of its own for this run (torch {torch.__version__}) instead of using yours; "
              "set FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 before its first command to avoid that", flush=True)
    one_thread()
    settings = make_settings("quick", read_toml(Path(config)) if config else {}, {"engine": "ray"})
    if settings.grid or settings.fold == "all":
        raise SettingsError(["grid and fold = 'all' need see_by_subject.py: Flower runs the rounds of one trial"])
    display = LogDisplay(Console(soft_wrap=True))
    display.say(f"preparing a run in {folder}")
    experiment.begin_or_resume(settings, folder, display, resumed=False)
    train_base(folder, display.phase("base model"))


def finish(folder: Path) -> None:
    """Compare and evaluate what the rounds have left, and write the results."""
    display = LogDisplay(Console(soft_wrap=True))
    experiment.run(folder, display)
    display.say(f"open the report: {write_report(folder)}")
