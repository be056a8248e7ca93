"""The dashboard as its operator sees it: a served process, a real browser, a real round while the page is open."""

from __future__ import annotations

import datetime
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from ports import free_port
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from server.certificates import make_authority, make_server_certificate
from server.registry import utc_now
from server.rounds import RoundEngine

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))  # the toy fleet lies beside the tests of the server

from toy_fleet import enlist, honest_reply, toy_engine

SERVE = """
import sys
from pathlib import Path
from server.dashboard import serve_dashboard
from server.paths import ServerPaths
from server.settings import ServerSettings
running = [ServerSettings(experiment=name) for name in sys.argv[3:]]
serve_dashboard(ServerPaths(Path(sys.argv[1])), running, int(sys.argv[2]))
"""
PAGES = ("/", "/rounds", "/rounds/1", "/models", "/models/1/rollback", "/experts", "/server")


@dataclass(frozen=True)
class Served:
    """A dashboard's process and what it serves."""

    process: subprocess.Popen[str]
    engine: RoundEngine
    address: str
    token: str


@contextmanager
def serving(folder: Path, *engines: RoundEngine) -> Iterator[Served]:
    """The dashboard of these experiments; the first one's engine is at hand."""
    make_authority(folder / "certificates")
    make_server_certificate(folder / "certificates", ["localhost"])
    port = free_port(1)
    names = [engine.registry.experiment for engine in engines]
    command = [sys.executable, "-c", SERVE, str(folder), str(port), *names]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    address = f"http://127.0.0.1:{port}"
    ends = time.monotonic() + 180
    while True:
        try:
            httpx.get(f"{address}/health", trust_env=False).raise_for_status()
            break
        except httpx.HTTPError:
            assert process.poll() is None and time.monotonic() < ends, process.communicate()[0]
            time.sleep(0.1)
    yield Served(process, engines[0], address, (folder / "dashboard.token").read_text().strip())
    process.kill()
    process.communicate()
    for engine in engines:
        engine.registry.engine.dispose()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    engine = toy_engine(tmp_path)
    enlist(engine, *"abc")
    with serving(tmp_path, engine) as made:
        yield made


@pytest.fixture
def chrome(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver, to see the dashboard as an operator does")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-sync",
        "disable-background-networking",
        "disable-component-update",
    ):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path / 'chromium'}")
    found = webdriver.Chrome(options, Service(driver))
    yield found
    found.quit()


def until(chrome: webdriver.Chrome, holds: Callable[[], object]) -> None:
    WebDriverWait(chrome, 180, ignored_exceptions=[Exception]).until(lambda _: holds())


def part(chrome: webdriver.Chrome, name: str) -> str:
    return " ".join(chrome.find_element(By.ID, name).text.split())


def versions(chrome: webdriver.Chrome) -> list[str]:
    """The first cells of the page's table."""
    return [row.text.split()[0] for row in chrome.find_elements(By.CSS_SELECTOR, "tbody tr")]


def test_a_real_round_appears_live_while_the_page_is_open(served: Served, chrome: webdriver.Chrome) -> None:
    engine = served.engine
    chrome.get(f"{served.address}/rounds?token={served.token}")
    assert chrome.current_url == f"{served.address}/rounds"
    assert "No round is under way" in part(chrome, "live")
    assert "No round has ended yet" in part(chrome, "history")
    chrome.execute_script("window.neverLoadedAgain = true")

    current = engine.open(("a", "b", "c"))
    until(chrome, lambda: "Round 1 open" in part(chrome, "live"))
    assert "Awaited 3 a b c Accepted 0 nobody Rejected 0 nobody" in part(chrome, "live")
    engine.receive(current, honest_reply(current.expectation, "b"))
    until(chrome, lambda: "Awaited 2 a c Accepted 1 b" in part(chrome, "live"))
    engine.receive(current, honest_reply(current.expectation, "a", scale=float("nan")))
    until(chrome, lambda: "Awaited 1 c Accepted 1 b Rejected 1 a tensor" in part(chrome, "live"))
    engine.receive(current, honest_reply(current.expectation, "c"))
    engine.finish(current)
    until(chrome, lambda: "No round is under way" in part(chrome, "live"))
    until(chrome, lambda: "1 published 2 of 3 1 0" in part(chrome, "history"))

    assert chrome.execute_script("return window.neverLoadedAgain") is True
    assert chrome.get_log("browser") == []
    served.process.send_signal(signal.SIGTERM)  # the page's stream of events is still open
    said, _ = served.process.communicate(timeout=60)
    assert (served.process.returncode, said) == (0, "")
    until(chrome, lambda: "The connection is lost" in chrome.find_element(By.ID, "connection").text)


def test_a_rollback_by_hand(served: Served, chrome: webdriver.Chrome) -> None:
    registry = served.engine.registry
    play(served.engine)
    chrome.get(f"{served.address}/models?token={served.token}")
    chrome.find_element(By.LINK_TEXT, "roll back").click()
    until(chrome, lambda: "Roll back to version 1?" in chrome.find_element(By.TAG_NAME, "h1").text)
    assert len(registry.models()) == 2
    chrome.find_element(By.TAG_NAME, "button").click()
    until(chrome, lambda: chrome.current_url.endswith("/models"))
    until(chrome, lambda: versions(chrome) == ["3", "2", "1"])
    assert registry.newest_model() == registry.models()[0].sha256
    assert chrome.get_log("browser") == []


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")])
def test_pages_fit_a_phone_and_a_laptop(served: Served, chrome: webdriver.Chrome, width: int, scheme: str) -> None:
    play(served.engine)
    made = served.engine.registry.models()[-1]
    served.engine.registry.set_model_state(made.sha256, "candidate")
    assert served.engine.registry.begin_canary(made.version, "abc", 0.3, 4, utc_now() + datetime.timedelta(hours=1))
    for model in served.engine.registry.models():
        served.engine.registry.record_evaluation(model.sha256, "field study", {"war": 0.5, "uar": 0.4})
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    chrome.get(f"{served.address}/?token={served.token}")
    papers = set()
    for path in PAGES:
        chrome.get(served.address + path)
        assert chrome.execute_script("return document.documentElement.scrollWidth") <= width, path
        papers.add(chrome.execute_script("return getComputedStyle(document.body).backgroundColor"))
        loaded = chrome.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
        assert loaded and all(name.startswith((served.address, "data:")) for name in loaded), loaded
    assert papers == {"rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)"}
    assert chrome.get_log("browser") == []


@pytest.mark.parametrize("width", [390, 1280])
def test_several_experiments_are_one_switch_apart(tmp_path: Path, chrome: webdriver.Chrome, width: int) -> None:
    names = ("glasses", "a-much-longer-name-of-an-experiment", "another-experiment-with-a-long-name")
    engines = [toy_engine(tmp_path, experiment=name) for name in names]
    for engine in engines:
        engine.spool = tmp_path / "spool" / engine.registry.experiment
        enlist(engine, f"client-of-{engine.registry.experiment}")
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    with serving(tmp_path, *engines) as served:
        chrome.get(f"{served.address}/?token={served.token}")
        assert chrome.current_url == f"{served.address}/experiments/glasses/"
        chrome.find_element(By.LINK_TEXT, "Rounds").click()
        for engine in engines[1:]:
            chrome.find_element(By.LINK_TEXT, engine.registry.experiment).click()
            address = f"{served.address}/experiments/{engine.registry.experiment}/rounds"
            until(chrome, lambda address=address: chrome.current_url == address)  # type: ignore[misc]
            assert chrome.execute_script("return document.documentElement.scrollWidth") <= width
            until(chrome, lambda: "No round is under way" in part(chrome, "live"))
            client = f"client-of-{engine.registry.experiment}"
            engine.open((client,))
            until(chrome, lambda client=client: f"Awaited 1 {client}" in part(chrome, "live"))  # type: ignore[misc]
        assert chrome.get_log("browser") == []


def play(engine: RoundEngine) -> None:
    """One whole round."""
    current = engine.open(("a", "b", "c"))
    for client in "abc":
        engine.receive(current, honest_reply(current.expectation, client))
    engine.finish(current)
