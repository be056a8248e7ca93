"""The report says what the run's folder says, stands alone, and can be read on a phone."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from mcoe_model.files import read_json, write_json
from mcoe_model.protocol import CheckIn, TrainReport, UpdateMeta
from mcoe_model.router_statistics import RouterStatistics
from server.acceptance import Accepted, Rejected
from server.registry import Transfer
from simulations.coordination import open_registry
from simulations.report import write_report
from simulations.summary import write_results

HOSTILE = '"><script>alert(1)</script>'
SECTIONS = ("arms", "rounds", "emotions", "lightings", "confusion", "subjects", "experts", "traffic", "reproduce")


class Page(HTMLParser):
    """What the tests ask of a page: its ids, links, tables and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self._words: list[str] = []
        self._skipping = self._in_cell = False
        self.feed(html)
        self.text = " ".join(" ".join(self._words).replace("\u202f", " ").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._skipping = tag == "style"
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._skipping = False
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._skipping:
            return
        self._words.append(data)
        if self._in_cell:
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data.strip()}".strip()

    def attributes(self, name: str) -> list[str]:
        return [values[name] or "" for _, values in self.tags if name in values]

    def row(self, begins: str) -> list[str]:
        """The cells of the first table row whose heading begins so."""
        return next(row for row in self.rows if row[0].startswith(begins))


@pytest.fixture(scope="module")
def page(finished_run: Path) -> Page:
    return Page(write_report(finished_run).read_text())


@pytest.fixture
def copy(finished_run: Path, tmp_path: Path) -> Path:
    """A run that a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def change(folder: Path, name: str, **values: Any) -> None:
    write_json(folder / name, read_json(folder / name) | values)


def read(folder: Path) -> Page:
    return Page(write_report(folder).read_text())


def test_stands_alone(page: Page) -> None:
    assert not re.search(r"https?:|//[a-z]+\.|@import|src\s*=", page.html)
    assert all(link.startswith(("#", "data:,")) for link in page.attributes("href"))
    assert "default-src 'none'" in page.html


def test_every_section_is_there_and_linked(page: Page) -> None:
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert [name for name in ids if name in SECTIONS] == list(SECTIONS)
    referred = [link.removeprefix("#") for link in page.attributes("href") if link.startswith("#")]
    referred += re.findall(r"url\(#([^)]+)\)", page.html)
    assert set(referred) <= set(ids)
    assert set(SECTIONS) <= set(referred)


def test_every_figure_has_words(page: Page) -> None:
    plots = [values for _, values in page.tags if values.get("role") == "img"]
    assert len(plots) == 6
    assert all(len(values["aria-label"] or "") > 30 for values in plots)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("figure") == tags.count("figcaption") == 9


def test_numbers_are_the_summary_s(page: Page, finished_run: Path) -> None:
    summary = read_json(finished_run / "summary.json")
    for arm, name in {"base": "Base", "federated": "Federated", "all_data": "All data"}.items():
        shown = [f"{100 * summary[arm][key]:.1f}" for key in ("war", "uar", "f1p", "macro_f1")]
        assert page.row(name)[1:5] == shown
    confusion = summary["federated"]["confusion"][0]
    assert page.row("angry")[1:6] == [f"{100 * recall:.1f}" for recall in recalls(summary, "angry")]
    angry = [row for row in page.rows if row[0] == f"angry {round(sum(confusion))}"]
    assert angry[0][1:] == [f"{100 * count / sum(confusion):.1f}" for count in confusion]
    assert f"{summary['bytes_up'] / 1e6:.1f} MB up" in page.text
    assert "Chance level 14.3 %" in page.text


def recalls(summary: dict[str, Any], emotion: str) -> list[float]:
    arms = ("base", "federated", "centralised", "local", "all_data")
    return [summary[arm]["per_emotion"][emotion] for arm in arms]


def test_says_that_the_data_are_synthetic_and_the_test_part_was_scored_once(page: Page) -> None:
    assert "The data are synthetic." in page.text
    assert "says nothing about accuracy on SEE" in page.text
    assert "The test part was scored once" in page.text
    assert "different people under different light (normal: 1 subject," in page.text


def test_command_and_settings_reproduce_the_run(page: Page, finished_run: Path) -> None:
    run = read_json(finished_run / "run.json")
    assert f"{run['command'][0]} --subjects 12 --sequences 4" in page.text
    assert "base-epochs = 1" in page.text
    assert "1 for every arm, learning rate 0.001" in page.text
    for value in (run["data_sha256"], run["parts_sha256"], run["versions"]["torch"]):
        assert value in page.text


def test_client_loads_are_shares_of_its_clips(page: Page, finished_run: Path) -> None:
    registry = open_registry(finished_run)
    client, counted = next(iter(registry.router_statistics(registry.rounds()[-1].id).items()))
    assert page.row(client)[1:] == [f"{100 * count / counted.examples:.1f}" for count in counted.routed]


def difference(estimate: float, low: float, high: float) -> dict[str, Any]:
    return {"estimate": estimate, "low": low, "high": high, "p": 0.25, "subjects": 3, "seeds": 1}


@pytest.mark.parametrize(
    ("gain", "upper", "heading", "advice"),
    [
        (0.623, difference(0.08, 0.02, 0.12), "Recovered gain 62.3 %", ()),
        (0.5, difference(0.03, 0.01, 0.05), "Not informative: recovered gain 50.0 %", ("--base-epochs", "--rounds")),
        (0.5, difference(0.08, -0.01, 0.17), "Not informative: recovered gain 50.0 %", ("--folds",)),
        (None, difference(-0.01, -0.03, 0.01), "No recovered gain", ("--base-epochs", "--rounds", "--folds")),
    ],
)
def test_leads_with_the_gain(
    copy: Path, gain: float | None, upper: dict[str, Any], heading: str, advice: tuple[str, ...]
) -> None:
    informative = gain is not None and not advice
    differences = {"federated - base": difference(0.04, 0.02, 0.06), "centralised - base": upper}
    change(copy, "summary.json", recovered_gain=gain, informative=informative, differences=differences)
    page = read(copy)
    assert page.text.split("What each arm reaches")[0].count(heading) == 1
    assert ("not-informative" in page.attributes("id")) == (not informative)
    beginning = page.text.split("Chance level")[0]
    assert {flag for flag in ("--base-epochs", "--rounds", "--folds") if flag in beginning} == set(advice)


def test_arms_that_were_not_run_are_absent(copy: Path) -> None:
    for path in (copy / "predictions").iterdir():
        if path.name.startswith(("centralised", "local", "all_data")):
            path.unlink()
    write_results(copy, seconds=1.0)
    page = read(copy)
    assert "--baselines on" in page.text
    assert page.row("Federated")
    for absent in ("Centralised", "Each alone", "All data"):
        assert absent not in page.text
    assert not re.search(r"var\(--(centralised|local|all_data)\)", page.html)


def test_abandoned_round_and_hostile_client(copy: Path) -> None:
    registry = open_registry(copy)
    newest = registry.newest_model()
    assert newest is not None
    registry.saw(CheckIn(HOSTILE, 4))
    row = registry.open_round(newest, [HOSTILE], {}, None)
    registry.record_reply(row.id, HOSTILE, Rejected(f"its name is {HOSTILE}"), Transfer(1, 1))
    registry.abandon_round(row.id, "0 of 1 replies were accepted, 1 are needed")
    change(copy, "run.json", command=["see.py", "--out", HOSTILE], skipped=[{"name": HOSTILE, "reason": HOSTILE}])
    write_results(copy, seconds=1.0)
    page = read(copy)
    assert "<script" not in page.html
    assert {"rejected", "skipped", "abandoned"} <= set(page.attributes("id"))
    assert "Round 3, attempt 1: 0 of 1 replies were accepted, 1 are needed" in page.text
    assert ["3", HOSTILE, f"its name is {HOSTILE}"] in page.rows
    assert [HOSTILE, HOSTILE] in page.rows
    assert any(row[0] == "3 (abandoned)" for row in page.rows)


def test_only_the_clients_of_the_round_have_a_row_and_a_dead_expert_is_named(copy: Path) -> None:
    registry = open_registry(copy)
    newest = registry.newest_model()
    assert newest is not None
    asked = registry.rounds()[0].cohort[0]
    others = registry.rounds()[0].cohort[1:]
    statistics = RouterStatistics(4, 2, (4, 0, 2, 1, 0, 1, 0, 0), (0.5,) * 8)
    meta = UpdateMeta("0" * 32, asked, 3, newest, "generation", "full", (0, 2, 3, 5))
    row = registry.open_round(newest, [asked], {}, None)
    accepted = Accepted(meta, TrainReport(4, 1.0, 0.5, 1.0, statistics), 0.1)
    registry.record_reply(row.id, asked, accepted, Transfer(10, 5))
    registry.close_round(row.id)
    registry.publish_round(row.id, newest, "generation")
    page = read(copy)
    assert page.row(asked)[1:] == ["100.0", "0.0", "50.0", "25.0", "0.0", "25.0", "0.0", "0.0"]
    assert not [cells for cells in page.rows if cells[0] in others]
    assert "Dead in round 3: experts 1, 4, 6, 7" in page.text
    assert f"{len(others)} of {len(others) + 1} clients were not asked" in page.text


def test_published_protocol_is_not_of_unseen_people(copy: Path) -> None:
    settings = read_json(copy / "run.json")["settings"] | {"protocol": "published"}
    overlap = {"subjects_training": 90, "subjects_testing": 89, "subjects_both": 71, "sequences_testing": 767,
               "sequences_testing_of_seen_subjects": 640}
    change(copy, "run.json", settings=settings, subject_overlap=overlap)
    write_results(copy, seconds=1.0)
    text = read(copy).text
    assert "The test subjects are not unseen." in text
    assert "71 of its 89 test subjects" in text
    assert "640 of its 767 test sequences" in text


def test_same_folder_same_bytes_in_another_process(finished_run: Path) -> None:
    first = write_report(finished_run).read_bytes()
    code = "import sys, pathlib; from simulations.report import write_report; write_report(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, finished_run], env=os.environ | {"PYTHONHASHSEED": "7"}, check=True)
    assert (finished_run / "report.html").read_bytes() == first


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path, int], webdriver.Chrome]]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver, to see the report as a reader does")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
                 "disable-background-networking", "disable-component-update"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    chrome = webdriver.Chrome(options, Service(driver))

    def show(path: Path, width: int) -> webdriver.Chrome:
        size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        chrome.get(path.as_uri())
        chrome.execute_script("document.querySelectorAll('details').forEach(folded => folded.open = true)")
        return chrome

    yield show
    chrome.quit()


@pytest.mark.parametrize(("width", "form"), [(390, "narrow"), (1280, "wide")])
def test_reads_without_sideways_scrolling(
    finished_run: Path, browser: Callable[[Path, int], webdriver.Chrome], width: int, form: str
) -> None:
    chrome = browser(write_report(finished_run), width)
    assert chrome.execute_script("return document.documentElement.scrollWidth") <= width
    assert chrome.get_log("browser") == []
    shown = chrome.execute_script("return [...document.querySelectorAll('svg')].filter(s => s.clientWidth).map(s => "
                                  "s.getAttribute('class'))")
    assert shown == [form] * 6
