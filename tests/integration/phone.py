"""A phone of 390 x 844 points: real Chromium without a window, and a wearer's hands and eyes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

WIDTH, HEIGHT = 390, 844
#: Controls that are smaller than 44 x 44 and are no link within a text: WCAG 2.2, 2.5.5 and 2.5.8.
_SMALL = """
const box = (one) => one.getBoundingClientRect();
const big = (one) => box(one).width >= 43.5 && box(one).height >= 43.5;
return [...document.querySelectorAll("a, button, input, summary, [tabindex='0']")]
  .filter((one) => box(one).width && !one.matches(".to-content") && !big(one))
  .filter((one) => !(one.closest("label") && big(one.closest("label"))))
  .filter((one) => !(one.matches("a:not(.button)") && one.closest("p")))
  .map((one) => one.outerHTML.slice(0, 120));
"""
#: Controls that lie beside the screen.
_OUTSIDE = """
const box = (one) => one.getBoundingClientRect();
return [...document.querySelectorAll("a, button, input, canvas")].filter((one) => !one.matches(".to-content"))
  .filter((one) => box(one).width && (box(one).left < 0 || box(one).right > innerWidth + 1))
  .map((one) => one.outerHTML.slice(0, 120));
"""
#: Fields, buttons and pictures that a screen reader has no name for.
_NAMELESS = """
const text = (one) => (one?.textContent ?? "").trim();
const by = (one) => document.getElementById(one.getAttribute("aria-labelledby"));
const named = (one) => one.getAttribute("aria-label") || (one.hasAttribute("aria-labelledby") && by(one))
  || [...(one.labels ?? [])].some(text) || (!one.matches("input, canvas, nav, dialog") && text(one));
return [...document.querySelectorAll("a, button, input, canvas, nav, dialog, progress, [role='group']")]
  .filter((one) => one.getAttribute("aria-hidden") !== "true")
  .filter((one) => !named(one)).map((one) => one.outerHTML.slice(0, 120));
"""

#: Whether what has the focus lies behind something else.
_BEHIND = """
const [one, place] = [document.activeElement, document.activeElement.getBoundingClientRect()];
return !one.contains(document.elementFromPoint(place.x + place.width / 2, place.y + place.height / 2));
"""


class Phone:
    """``shots``: a folder for pictures of the screens; MCOE_SCREENSHOTS names one that is kept."""

    def __init__(self, chrome: webdriver.Chrome, address: str, shots: Path) -> None:
        self.chrome, self.address, self._shots = chrome, address, shots
        self.zoom(1)

    def open(self, path: str) -> None:
        self.chrome.get(self.address + path)

    @property
    def path(self) -> str:
        return self.chrome.current_url.removeprefix(self.address)

    def find(self, selector: str) -> WebElement:
        return self.chrome.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """What one reads there; read again where the page renewed that part between finding and reading it."""
        while True:
            with suppress(StaleElementReferenceException):
                return " ".join(self.find(selector).text.split())

    def press(self, selector: str) -> None:
        """Scroll there and tap."""
        self.until(lambda: self.find(selector).is_displayed() and self.find(selector).is_enabled())
        self.chrome.execute_script("arguments[0].scrollIntoView({block: 'center'})", self.find(selector))
        self.find(selector).click()

    def choose(self, selector: str) -> None:
        """Tap a radio button or a box whose label is what one sees."""
        self.chrome.execute_script("arguments[0].click()", self.find(selector))

    def count(self, selector: str) -> int:
        return len(self.chrome.find_elements(By.CSS_SELECTOR, selector))

    def status(self, path: str) -> int:
        """What the page's own script would be answered there."""
        ask = "fetch(arguments[0]).then((answer) => arguments[1](answer.status))"
        return int(self.chrome.execute_async_script(ask, path))

    def type(self, selector: str, text: str) -> None:
        self.find(selector).send_keys(text)

    def tab(self, times: int) -> list[str]:
        """Go from control to control by keyboard: the ids, or else the texts, of what is reached. None is hidden."""
        reached = []
        for _ in range(times):
            ActionChains(self.chrome).send_keys(Keys.TAB).perform()
            one = self.chrome.switch_to.active_element
            reached.append(one.get_attribute("id") or one.text)
            assert not self.chrome.execute_script(_BEHIND), f"{reached[-1]} has the focus behind something else"
        return reached

    def until(self, holds: Callable[[], object], seconds: float = 180) -> None:
        WebDriverWait(self.chrome, seconds, 0.1, ignored_exceptions=[Exception]).until(lambda _: holds())

    def until_at(self, path: str) -> None:
        self.until(lambda: self.path.startswith(path) if path != "/" else self.path == "/")

    def offline(self, is_offline: bool) -> None:
        self.chrome.set_network_conditions(offline=is_offline, latency=0, throughput=-1)

    def zoom(self, factor: float) -> None:
        """As browsers zoom: fewer points across."""
        self._width = round(WIDTH / factor)
        size = {"width": self._width, "height": round(HEIGHT / factor), "deviceScaleFactor": factor}
        self.chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size | {"mobile": True})

    def look(self, name: str) -> None:
        """Nothing sticks out, is too small to tap or has no name; a picture of the screen is kept."""
        run = self.chrome.execute_script
        width = run("return document.documentElement.scrollWidth")
        assert width <= self._width, f"{name} is {width} wide"
        for question in (_OUTSIDE, _SMALL, _NAMELESS):
            assert not (found := run(question)), f"{name}: {found}"
        assert run("return document.querySelectorAll('h1').length") == 1, f"{name} needs one heading"
        self.chrome.save_screenshot(str(self._shots / f"{name}.png"))

    def complaints(self) -> list[str]:
        """What the browser has to say of the page, but for refusals that a test provoked; each once."""
        log: list[dict[str, Any]] = self.chrome.get_log("browser")
        return [
            entry["message"] for entry in log if entry["level"] == "SEVERE" and "status of 4" not in entry["message"]
        ]


@contextmanager
def a_phone(address: str, folder: Path) -> Iterator[Phone]:
    """A phone that takes the device's certificate, as its owner did after a look at the sticker."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver, to see the page as a wearer does")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.accept_insecure_certs = True
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync", "lang=en",
                 "disable-background-networking", "disable-component-update", "hide-scrollbars"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={folder / 'chromium'}")
    shots = Path(os.environ.get("MCOE_SCREENSHOTS", str(folder / "screens")))
    shots.mkdir(parents=True, exist_ok=True)
    chrome = webdriver.Chrome(options, Service(driver))
    chrome.set_page_load_timeout(180)
    try:
        yield Phone(chrome, address, shots)
    finally:
        chrome.quit()
