"""A simulation from Python: settings in, tidy tables out.

    from simulations.api import Experiment

    if __name__ == "__main__":  # worker processes import the script again
        tables = Experiment({"subjects": 12, "rounds": 4}).run()
        print(tables.arms)

Rows are dictionaries of plain values, one for each observation: pandas.DataFrame and csv.DictWriter take them as they
are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from mcoe_model.errors import NotResumable
from mcoe_model.files import read_json
from mcoe_model.names import EMOTIONS
from simulations import experiment, folds, report
from simulations.answers import arm_answers
from simulations.command import new_folder, stored_settings
from simulations.console import Display
from simulations.scene import Paths, fold_folder
from simulations.settings import SimulationSettings, make_settings
from simulations.summary import arm_table, measure, reply_table, round_table

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Tables:
    """What a run has shown. Shares are in [0, 1]; what is not known is None.

    - ``summary``: the object of ``summary.json``.
    - ``arms``: a row for each arm on the test clips: measures and recalls.
    - ``rounds``: a row for each round: replies, losses, bytes, the model's scores on validation.
    - ``replies``: a row for each client and round.
    - ``clips``: a row for each arm and test clip: what was said of it. ``recognised`` is the probability of its own
      emotion being said, over the windows that it can be sampled at; ``said_angry`` and so on that of each.

    Of several folds, ``rounds``, ``replies`` and ``clips`` have a column ``fold``.
    """

    folder: Path
    summary: dict[str, Any]
    arms: Rows
    rounds: Rows
    replies: Rows
    clips: Rows


@dataclass(frozen=True)
class Experiment:
    """A simulation, as `see_by_subject.py` runs it.

    - ``settings``: by name, as in a TOML file (``docs/simulation.md``), over the defaults of ``scale``.
    - ``out``: the run's folder; a new one under ``runs/`` by default. One that holds a run of the same settings is gone
      on with, and costs nothing where that has finished.
    - ``quiet``: whether nothing is drawn on the terminal.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    out: Path | str | None = None
    scale: str = "quick"
    quiet: bool = True

    def run(self) -> Tables:
        """Run it, from wherever it was left; its folder then holds all that the command's would.

        Raises McoeError: SettingsError with every fault, OutputExists or NotResumable for a folder of something else.
        """
        settings = make_settings(self.scale, self.settings)
        folder = (Path(self.out) if self.out else new_folder(settings)).absolute()
        resumed = Paths(folder).run.is_file()
        if resumed and stored_settings(folder) != settings:
            raise NotResumable(f"{folder} holds a run with other settings; name another folder")
        if not (resumed and (folder / "report.html").is_file()):
            run(settings, folder, Display(Console(quiet=self.quiet)), resumed=resumed)
        return read_tables(folder)


def run(settings: SimulationSettings, folder: Path, display: Display, *, resumed: bool) -> dict[str, Any]:
    """Run or go on with a simulation, of one fold or of all; writes everything, returns the summary."""
    if settings.fold == "all":
        with display.live():
            folds.begin_or_resume(settings, folder, display, resumed=resumed)
        summary = folds.run(settings, folder, display)
        report.write_report(folder)
        return summary
    with display.live():
        experiment.begin_or_resume(settings, folder, display, resumed=resumed)
        summary = experiment.run(folder, display)
        report.write_report(folder)
    return summary


def read_tables(folder: Path) -> Tables:
    """The tables of a finished run."""
    settings = stored_settings(folder)
    several = settings.fold == "all"
    of = {fold.fold: fold_folder(folder, fold) if several else folder for fold in settings.of_folds()}
    scores, _ = measure(list(of.values()), settings)
    rounds, replies, clips = Rows(), Rows(), Rows()
    for fold, within in of.items():
        named: dict[str, Any] = {"fold": int(fold)} if several else {}
        rounds += [named | row for row in round_table(within)]
        replies += [named | row for row in reply_table(within)]
        clips += [named | row for row in _clip_table(within)]
    return Tables(folder, read_json(folder / "summary.json"), arm_table(scores), rounds, replies, clips)


def _clip_table(folder: Path) -> Rows:
    rows = Rows()
    for arm, said in arm_answers([folder]).items():
        correct = said.correct()
        for place, name in enumerate(said.names):
            expected = {f"said_{emotion}": float(p) for emotion, p in zip(EMOTIONS, said.expected[place], strict=True)}
            rows.append(
                {
                    "arm": arm,
                    "clip": name,
                    "subject": said.subjects[place],
                    "lighting": said.lightings[place],
                    "emotion": EMOTIONS[said.labels[place]],
                    "recognised": float(correct[place]),
                }
                | expected
            )
    return rows
