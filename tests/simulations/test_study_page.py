"""What a study's page says of its runs, and the files beside it; the runs are copies of one that was made."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mcoe_model.errors import DataMissing
from simulations.console import Display
from simulations.study import Study
from simulations.study_grid import make_grid

RAW = {
    "name": "try",
    "seeds": [1, 2],
    "reference": {},
    "factor": [
        {"says": "Rule & co", "values": [{"rule": "median"}, {"rule": "krum"}]},
        {"says": "Cohort", "changes": "upper", "values": [{"cohort": "0.5"}]},
    ],
}
DONE = ("reference-seed-1", "reference-seed-2", "rule-median-seed-1", "cohort-0.5-seed-1", "cohort-0.5-seed-2")
FAILED = ("rule-median-seed-2", "rule-krum-seed-1", "rule-krum-seed-2")
TABLES = ("to-gain", "factor-1", "factor-2", "measures", "lightings")


class Written:
    """A study of runs that are all the same one: its page, and what `--json` prints."""

    def __init__(self, run: Path, folder: Path, tuning: Mapping[str, Any] | None = None) -> None:
        self.folder = folder / "runs"
        self.summary = json.loads((run / "summary.json").read_text())
        study = Study(make_grid(RAW), self.folder, Display(Console(quiet=True)))
        study.registry.declare(study.commands)
        for name in DONE:
            (self.folder / name).symlink_to(run)
            study.registry.done(name, 1.0, self.summary | {"tuning": tuning or self.summary["tuning"]})
        for name in FAILED:
            study.registry.failed(name, 1.0, "too few accepted")
        self.said = study.write(folder / "page.md", "python simulations/study.py try.toml")
        self.page = (folder / "page.md").read_text()

    def row(self, heading: str, setting: str) -> list[str]:
        """The cells of a setting in the table under a heading."""
        lines = self.page.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
        (line,) = (line for line in lines if line.startswith(f"| {setting}"))
        return [cell.strip() for cell in line.strip("|").split("|")]

    def csv(self, name: str) -> list[dict[str, str]]:
        with (self.folder / name).open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def written(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(finished_run, tmp_path_factory.mktemp("page"))


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def test_the_page_shows_what_recovered_gain_is_made_of(written: Written) -> None:
    arms = ("base", "federated", "centralised", "all_data")
    for setting in ("reference", "rule median", "cohort 0.5"):
        row = written.row("What there was to gain", setting)
        assert row[1:5] == [percent(written.summary[arm]["war"]) for arm in arms]
    room = written.summary["centralised"]["war"] - written.summary["base"]["war"]
    reference = written.row("What there was to gain", "reference")
    assert reference[5].startswith(f"{100 * room:+.1f} [")
    assert reference[7] in ("yes", "no")


def test_the_page_shows_the_protocols_other_measures(written: Written) -> None:
    federated = written.summary["federated"]
    row = written.row("Other measures, and recalls of emotions", "reference")
    assert row[1:4] == [percent(federated[measure]) for measure in ("f1p", "macro_f1", "clip_war")]
    assert row[4] == str(federated["classes"]) and percent(federated["per_emotion"]["happiness"]) in row
    under = federated["per_lighting"]["normal"]
    assert f"{percent(under['war'])} (n = {2 * under['subjects']})" in written.row("Under each lighting", "reference")
    assert "different people under different light" in written.page


def test_what_failed_is_named_and_counts_in_the_adjustment(written: Written) -> None:
    assert "**3 of 8 runs are missing**" in written.page
    for name in FAILED:
        assert f"- `{name}`: too few accepted" in written.page
    assert written.row("Rule & co", "rule median")[0] == "rule median (1 seed missing)"
    assert "Of these settings nothing is done, and the tables are without them: rule krum." in written.page
    assert not any(row["setting"] == "rule krum" for row in written.csv("settings.csv"))
    assert [row["missing"] for factor in written.said["factors"] for row in factor["rows"]] == [0, 1, 0, 0]
    assert written.said["factors"][0]["rows"][1]["holm_p"] == 1.0  # both arms are the same one


def test_every_table_is_latex_too_and_the_page_says_where(written: Written) -> None:
    for name in TABLES:
        text = (written.folder / "tables" / f"{name}.tex").read_text()
        assert text.startswith(r"\begin{tabular}") and "reference" in text
        assert f"tables/{name}.tex`" in written.page
    assert {path.stem for path in (written.folder / "tables").glob("*.tex")} == set(TABLES)
    assert r"WAR \%" in (written.folder / "tables" / "factor-1.tex").read_text()


def test_results_are_tidy_for_programs(written: Written) -> None:
    scores = {
        (row["setting"], row["seed"], row["arm"], row["measure"]): row["value"] for row in written.csv("scores.csv")
    }
    for arm in ("base", "federated", "centralised", "local", "all_data"):
        assert float(scores["cohort 0.5", "2", arm, "uar"]) == written.summary[arm]["uar"]
    assert ("rule median", "2", "federated", "war") not in scores
    reference, median, *_ = written.csv("settings.csv")
    assert (reference["factor"], median["setting"], median["verdict"]) == ("Rule & co", "rule median", "equivalent")
    assert float(reference["base"]) == pytest.approx(written.summary["base"]["war"])
    assert reference["difference_estimate"] == "" and float(median["difference_low"]) == 0.0


def test_without_a_grid_of_learning_rates_nothing_was_tuned(written: Written) -> None:
    assert "No learning rate was tuned" in written.page and "## Learning rates" not in written.page
    assert {row["lr"] for row in written.csv("tuning.csv")} == {"0.001"}


def trials(*wars: float | None) -> list[dict[str, Any]]:
    return [
        {"lr": rate, "validation_war": war, "validation_uar": war} for rate, war in zip((3e-4, 1e-3), wars, strict=True)
    ]


def test_the_page_says_which_learning_rate_was_taken_of_how_many_trials(finished_run: Path, tmp_path: Path) -> None:
    arms = {
        "federated": {"chosen": 1e-3, "add": 3e-3, "trials": trials(0.2, 0.3)},
        "local": {"chosen": [3e-4, 1e-3], "add": [None, None], "trials": trials(0.3, None)},
    }
    told = Written(finished_run, tmp_path, {"grid": [3e-4, 1e-3], "arms": arms})
    federated, alone = ["federated", "0.0003, 0.001", "2"], ["each client alone", "0.0003, 0.001", "2 (2 lost in all)"]
    assert told.row("Learning rates", "reference | federated")[1:] == [*federated, "0.001 (1, 2)", "0.003"]
    assert told.row("Learning rates", "reference | each")[1:] == [*alone, "0.0003, 0.001 (1, 2)", "-"]
    assert "Every arm of every setting had 2 trials per seed." in told.page
    assert (told.folder / "tables" / "learning-rates.tex").exists()
    first = told.csv("tuning.csv")[1]
    assert (first["seed"], first["lr"], first["validation_war"], first["chosen"]) == ("1", "0.001", "0.3", "1")


def test_a_study_without_its_reference_has_no_page(tmp_path: Path) -> None:
    study = Study(make_grid(RAW), tmp_path / "runs", Display(Console(quiet=True)))
    study.registry.declare(study.commands)
    with pytest.raises(DataMissing, match="no run of the reference"):
        study.write(tmp_path / "page.md", "as made")
