"""What happens in a fleet, from the first model to the next one: real processes, simulated eyes, a script for hands.

Steps, in this order: *base*, *server*, *wearables* (each is paired with a phone, set up and enrolled by its page),
*record*, *label*, *learn* (each wearable for itself), *round*, *arrive* (the next model, at every wearable) and
*measure*. Everything that a wearer does goes through the page, everything an operator does through `mcoe-server`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from client.cameras.synthetic_eye import TURN_S, script
from client.enrolment import ClientPaths
from client.keys import unlock
from client.own_models import model_path, open_model
from client.running import Running, RunningModel
from client.wearers import Wearers
from mcoe_model.errors import McoeError
from mcoe_model.learning.samples import FeatureSamples
from mcoe_model.model_file import file_sha256, write_model
from mcoe_model.workers import spawn_pool
from simulations.console import Display
from simulations.fleet import unseen
from simulations.fleet.base_model import BaseRecipe, base_model
from simulations.fleet.phone import Phone
from simulations.fleet.processes import free_ports, wait_for
from simulations.fleet.server import Server
from simulations.fleet.wearable import RealWearable

T = TypeVar("T")
STEPS = ("base", "server", "wearables", "record", "label", "learn", "round", "arrive", "measure")
#: What every wearer agrees to.
CONSENTS = ("capture", "labels", "learning", "updates")
PASSPHRASE = "seven quiet lanterns"
#: A labelled part lasts so long [s], and begins or ends at least so long after or before the expression changes.
PART_S, MARGIN_S = 2.0, 0.2
#: Seconds between two check-ins of a wearable, whose radio sleeps meanwhile.
CHECK_IN_S = 20
#: The server asks for a round by command, so that every wearable has learned all that it recorded before it.
SERVER_SETTINGS = f"""
open_when = "command"
check_in_s = {CHECK_IN_S}
first_k = 0
deadline_s = 600
pause_s = 0.1
keep_updates = true
"""


@dataclass(frozen=True)
class FleetSettings:
    """``turns``: expressions that each wearer shows while it records, of four seconds each; ``unseen``: others, on
    which models are measured at the end."""

    wearables: int = 3
    turns: int = 10
    unseen: int = 21
    base: BaseRecipe = BaseRecipe()  # noqa: RUF009 (it is frozen)


@dataclass
class Wearer:
    """Somebody who wears a simulated wearable, with a phone; ``seed`` is that of the eye.

    ``spans``: the labels by part of the one ``session``; ``own``: the model that the wearable learned by itself.
    ``labelled`` is when the last label was given [monotonic s]; own and next model ran so many seconds later.
    ``recognised`` counts unseen expressions, by model: base, own and next.
    """

    name: str
    seed: int
    wearable: RealWearable
    client_id: str = ""
    session: str = ""
    spans: dict[int, str] = field(default_factory=dict)
    own: Path | None = None
    labelled: float = 0.0
    learned_s: float = 0.0
    arrived_s: float = 0.0
    recognised: dict[str, int] = field(default_factory=dict)
    phone: Phone | None = None

    @property
    def page(self) -> Phone:
        """The phone, once it is paired."""
        assert self.phone is not None
        return self.phone

    @property
    def paths(self) -> ClientPaths:
        """The files of the wearer on the wearable."""
        return Wearers(self.wearable.folder, finish=False).paths

    @property
    def running(self) -> RunningModel:
        """Which model the wearable runs."""
        return Running(self.paths.running).read()


class Story:
    """A fleet in ``folder``, where the logs are too. Raises McoeError for what fails. ``end`` ends every process."""

    def __init__(self, settings: FleetSettings, folder: Path, display: Display) -> None:
        self.settings, self.folder, self.display = settings, folder, display
        numbers = range(1, settings.wearables + 1)
        self.wearers = [
            Wearer(f"wearer {number}", number, RealWearable(folder / f"w{number}" / "wearable", f"simulated:{number}"))
            for number in numbers
        ]
        self.base = Path()
        self.next = Path()
        self.server: Server | None = None
        self._artist = spawn_pool(1)
        self._drawn: list[Future[FeatureSamples]] = []

    def run(self, before: Callable[[str], None] = lambda step: None) -> None:
        """Every step, in order. ``before`` is told each step's name first."""
        with self.display.live():
            for step in STEPS:
                before(step)
                getattr(self, f"_{step}")()

    def end(self) -> None:
        """End all processes, and remove what the wearables have in memory."""
        self._artist.shutdown(wait=False, cancel_futures=True)
        for wearer in self.wearers:
            if wearer.phone is not None:
                wearer.phone.close()
        with ThreadPoolExecutor(max(1, len(self.wearers))) as pool:
            list(pool.map(_end, self.wearers))
        if self.server is not None and self.server.process is not None:
            with suppress(McoeError):
                self.server.process.end()

    @property
    def the_server(self) -> Server:
        """The server, once it is there."""
        assert self.server is not None
        return self.server

    def _base(self) -> None:
        self.base = base_model(self.settings.base, self.display)
        # Drawn while the server starts: later the wearables need both processors.
        turns = self.settings.unseen
        self._drawn = [self._artist.submit(unseen.clips_of, one.seed, self.base, turns) for one in self.wearers]

    def _server(self) -> None:
        report = self.display.phase("start the server")
        report(0, 1, "")
        server = self.server = Server(self.folder / "server", self.base, free_ports(3))
        server.set(SERVER_SETTINGS + f"min_clients = {self.settings.wearables}\n")
        server.start()
        report(1, 1, server.address)
        self.display.say(f"dashboard  {server.dashboard}")

    def _wearables(self) -> None:
        invited = self.the_server.ask(
            "clients", "invite", "--count", self.settings.wearables, "--address", self.the_server.address
        )
        by_wearer = iter(invited)
        invitations = {wearer.name: next(by_wearer) for wearer in self.wearers}
        self._each("enrol by invitation", lambda wearer: self._enrol(wearer, invitations[wearer.name]["invitation"]))
        for wearer in self.wearers:
            wearer.client_id = invitations[wearer.name]["client_id"]
            link = wearer.wearable.command("page")
            self.display.say(f"page of {wearer.name}  {wearer.page.address}/pair#{link['code']}")
        first = file_sha256(self.base)
        self._until("fetch the first model", lambda wearer: wearer.running.runs == first, 120)

    def _enrol(self, wearer: Wearer, invitation: str) -> None:
        """The wearer's first visit to the page, as a phone makes it."""
        wearable = wearer.wearable
        wearable.page_port = free_ports(1)
        wearable.folder.parent.mkdir()
        wearable.start()
        wearer.phone = Phone(wearable.page_port, wearable.folder / "page" / "page.crt")
        wearer.phone.pair(wearable.command("page")["code"])
        wearer.phone.set_up(PASSPHRASE, CONSENTS)
        wearer.phone.join(invitation)
        wait_for(wearable.sees, 60, f"the camera of {wearer.name}")

    def _record(self) -> None:
        for wearer in self.wearers:
            wearer.session = wearer.page.start()
        report, seconds = self.display.phase("record"), self.settings.turns * TURN_S
        for second in range(seconds):
            report(second, seconds, "seconds")
            time.sleep(1)
        report(seconds, seconds, "seconds")
        self._each("seal the recordings", lambda wearer: wearer.page.stop())

    def _label(self) -> None:
        self._each("label by the page", self._label_all)

    def _label_all(self, wearer: Wearer) -> None:
        start_us, end_us = wearer.page.times(wearer.session)
        for first, last, emotion in parts(wearer.seed, start_us, end_us):
            span = wearer.page.add(wearer.session, first - start_us, last - start_us)
            wearer.page.label(span, emotion)
            wearer.spans[span] = emotion
        wearer.labelled = time.monotonic()

    def _learn(self) -> None:
        def learned(wearer: Wearer) -> bool:
            now = wearer.wearable.status()["learning"]
            if now["state"] != "nothing" or now["last"] is None:
                return False
            wearer.learned_s = time.monotonic() - wearer.labelled
            return True

        self._until("learn on each wearable", learned, 180)
        for wearer in self.wearers:
            sealed = model_path(wearer.paths.models, wearer.running.runs)
            wearer.own = self.folder / f"w{wearer.seed}" / "own.safetensors"
            write_model(wearer.own, *open_model(sealed, unlock(wearer.paths.device_key, PASSPHRASE).derive("lessons")))

    def _round(self) -> None:
        self.the_server.ask("rounds", "open")
        report = self.display.phase("a round of the fleet")
        report(0, 1, "the wearables check in and train")
        self.the_server.wait_for_round(1, 240)
        [row] = self.the_server.published()
        accepted = sum(reply.accepted for reply in self.the_server.registry().replies(row.id))
        report(1, 1, f"{accepted} updates accepted")
        self.next = self.the_server.folder / "models" / f"{row.published_sha256}.safetensors"

    def _arrive(self) -> None:
        def arrived(wearer: Wearer) -> bool:
            if wearer.running.runs != self.next.stem:
                return False
            wearer.arrived_s = time.monotonic() - wearer.labelled
            return True

        self._until("the next model arrives", arrived, 180)

    def _measure(self) -> None:
        """Of base, own and next model: how many expressions each recognises that nobody has learned from."""
        report = self.display.phase("measure on unseen expressions")
        report(0, len(self.wearers), "")
        for done, (wearer, drawn) in enumerate(zip(self.wearers, self._drawn, strict=True), start=1):
            assert wearer.own is not None
            models = {"base": self.base, "own": wearer.own, "next": self.next}
            wearer.recognised = {name: unseen.recognised(model, drawn.result()) for name, model in models.items()}
            report(done, len(self.wearers), "")
        self._artist.shutdown()

    def _each(self, name: str, act: Callable[[Wearer], T]) -> list[T]:
        """Do something with all wearers at a time."""
        report, done = self.display.phase(name), 0
        report(0, len(self.wearers), "")
        with ThreadPoolExecutor(len(self.wearers)) as pool:
            results = []
            for result in pool.map(act, self.wearers):
                results.append(result)
                done += 1
                report(done, len(self.wearers), "")
        return results

    def _until(self, name: str, holds: Callable[[Wearer], bool], seconds: float) -> None:
        """Wait until something holds of each wearer."""
        report, waiting = self.display.phase(name), list(self.wearers)

        def all_hold() -> bool:
            waiting[:] = [wearer for wearer in waiting if not holds(wearer)]
            report(len(self.wearers) - len(waiting), len(self.wearers), "")
            return not waiting

        wait_for(all_hold, seconds, f"“{name}”", every_s=1.0)


def parts(seed: int, start_us: int, end_us: int) -> Sequence[tuple[int, int, str]]:
    """Start and end [us since 1970] of the parts to be labelled of what the eye of ``seed`` shows, with the truth."""
    margin, length = round(MARGIN_S * 1e6), round(PART_S * 1e6)
    found = []
    for shown in script(seed, start_us, end_us):
        firsts = range(shown.start_us + margin, shown.end_us - margin - length + 1, length)
        found += [(first, first + length, shown.emotion) for first in firsts]
    return found


def _end(wearer: Wearer) -> None:
    with suppress(McoeError):
        if wearer.wearable.process is not None:
            wearer.wearable.end()
    wearer.wearable.remove()
