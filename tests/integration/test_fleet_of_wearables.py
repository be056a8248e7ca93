"""`make fleet` in small, while its processes are killed and everything that wearables send is read on the wire.

Two wearables with simulated eyes record, are labelled through their pages, learn, take part in a round and get the
next model. Named steps begin with kill -9: see `Killer`. That a recording survives the end of capture, and a round that
of coordinator, SuperLink or SuperNode in the middle of it, is in test_wearable_processes and test_fleet.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_fleet import models_of, wait_for
from rich.console import Console
from wire import Wire, found_in, requests, times_in

from client.enrolment import ClientPaths
from client.keys import DeviceKey, unlock
from client.lesson_book import LessonBook, is_held_out
from client.page.certificate import device_certificate
from client.session_clips import SessionClips
from client.sessions import Store
from client.settings import ClientSettings
from mcoe_model.model_file import read_card
from mcoe_model.names import EMOTIONS
from simulations.console import Display
from simulations.fleet.base_model import BaseRecipe
from simulations.fleet.story import PASSPHRASE, FleetSettings, Story, Wearer
from simulations.fleet_of_wearables import lines, summary

SETTINGS = FleetSettings(wearables=2, turns=5, unseen=3, base=BaseRecipe(subjects=2, sequences=7, epochs=1))
#: Bytes of a request that is no part of an update: a question for tasks, a check-in, signatures, its health.
SMALL = 16_000
#: What is ended with SIGKILL.
KILLED = {"main", "client.capture", "client.recognise", "client.learn", "client.fleet"}
KILLED |= {"mcoe-server", "dashboard", "coordinator", "superlink"}
#: What a wearable asks for, up to the last part of the path.
ROUTES = {"GET /v1/device", "POST /v1/device", "GET /v1/device/models", "POST /v1/fleet", "GET "}


@dataclass
class Killer:
    """Ends processes with SIGKILL at the beginning of a step, or in it, and keeps what is needed of that moment."""

    story: Story
    folder: Path
    wire: Wire | None = None
    pictures: dict[str, bytes] = field(default_factory=dict)
    learner: threading.Thread | None = None
    killed: list[str] = field(default_factory=list)

    def kept(self, wearer: Wearer) -> ClientPaths:
        """Where a copy of the lessons is, as they were before the round."""
        return ClientPaths(self.folder / wearer.name)

    def __call__(self, step: str) -> None:
        if (act := getattr(self, f"before_{step}", None)) is not None:
            act()

    def before_wearables(self) -> None:
        """No kill: from here on everything passes the wire."""
        self.wire = Wire(self.story.the_server)
        self.story.the_server.address = self.wire.address

    def before_label(self) -> None:
        """A wearable's main process, and with it all of its children; the recording is whole and sealed.

        And its learning process, as soon as there is one, while it takes its task.
        """
        first = self.story.wearers[0]
        first.wearable.end(signal.SIGKILL)
        first.wearable.start()
        first.page.unlock(PASSPHRASE)
        self.killed.append("main")
        self.learner = threading.Thread(target=self._kill_learner, args=(first,))
        self.learner.start()

    def before_learn(self) -> None:
        """Camera and recognition of the other wearable."""
        second = self.story.wearers[1]
        for wearer in self.story.wearers:
            self.pictures |= rows_of(wearer)
        for module in ("client.capture", "client.recognise"):
            second.wearable.kill(module, signal.SIGKILL)
            self.killed.append(module)

    def _kill_learner(self, wearer: Wearer) -> None:
        found: list[int | None] = []

        def begun() -> bool:
            found.append(wearer.wearable.child("client.learn"))
            return found[-1] is not None

        wait_for(begun, 300, "a learning process")
        assert found[-1] is not None
        os.kill(found[-1], signal.SIGKILL)  # it takes seconds only to begin
        self.killed.append("client.learn")

    def before_round(self) -> None:
        """The server with all of its processes; then, of the next one, each child by itself."""
        assert self.learner is not None
        self.learner.join()
        for wearer in self.story.wearers:
            shutil.copytree(wearer.paths.lessons, self.kept(wearer).lessons)
        # One takes part without a camera from here on, the other while it sees and recognises.
        self.story.wearers[0].wearable.ask("withdraw", kind="capture")
        server = self.story.the_server
        assert server.process is not None
        children = [server.child(kind) for kind in ("superlink", "coordinator", "dashboard")]
        server.process.end(signal.SIGKILL)
        wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 30, "the children's end")
        server.start()
        self.killed.append("mcoe-server")
        for kind in ("dashboard", "coordinator", "superlink"):
            wait_for(lambda kind=kind: _runs(self.story, kind), 60, f"the {kind}")  # type: ignore[misc]
            os.kill(server.child(kind), signal.SIGKILL)
            self.killed.append(kind)

    def before_arrive(self) -> None:
        """A wearable's part in the fleet, with its SuperNode."""
        self.story.wearers[1].wearable.kill("client.fleet", signal.SIGKILL)
        self.killed.append("client.fleet")

    def before_measure(self) -> None:
        """No kill: what remains needs no camera, which would take the processor time of a whole core."""
        self.story.wearers[1].wearable.ask("withdraw", kind="capture")


def _runs(story: Story, kind: str) -> bool:
    try:
        return bool(story.the_server.child(kind))
    except IndexError:
        return False


def rows_of(wearer: Wearer) -> dict[str, bytes]:
    """Pieces of some of the recorded pictures, frames and events, as the page shows them."""
    start_us, end_us = wearer.page.times(wearer.session)
    content = wearer.page.get(f"/api/replay/{wearer.session}?from_us=0&to_us={end_us - start_us}")
    count, side = (int(value) for value in np.frombuffer(content, "<u4", 2))
    pictures = np.frombuffer(content, np.uint8, offset=8 + 4 * count).reshape(2, count, side, side)
    found = {}
    for name, kind in zip(("frame", "event picture"), pictures, strict=True):
        for number in range(0, count, 20):
            row = max(kind[number, :, 20:52], key=lambda one: len(set(one.tolist())))
            if len(set(row.tolist())) > 2:
                found[f"{name} {number} of {wearer.name}"] = row.tobytes()
    return found


@dataclass(frozen=True)
class Told:
    """The story, once everything is known of it; its processes run."""

    story: Story
    killer: Killer
    found: dict[str, Any]
    stores: tuple[Store, ...]
    keys: tuple[DeviceKey, ...]

    @property
    def wire(self) -> Wire:
        assert self.killer.wire is not None
        return self.killer.wire

    def book(self, wearer: int, lessons: Path) -> LessonBook:
        """A lesson book of a wearer's."""
        return LessonBook(lessons, self.keys[wearer].derive("lessons"), read_card(self.story.base).generation.id)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, simulation_cache: Path) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("wearables")
    story = Story(SETTINGS, folder / "fleet", Display(Console(file=io.StringIO())))
    story.folder.mkdir()
    killer, began = Killer(story, folder / "kept"), time.monotonic()
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("MCOE_CACHE", str(simulation_cache))
        stack.callback(story.end)
        story.run(killer)
        keys = tuple(unlock(wearer.paths.device_key, PASSPHRASE) for wearer in story.wearers)
        stores = tuple(
            stack.enter_context(closing(Store(w.paths.store, w.paths.recordings, ClientSettings().rules(), key)))
            for w, key in zip(story.wearers, keys, strict=True)
        )
        yield Told(story, killer, summary(story, time.monotonic() - began), stores, keys)


def test_the_next_model_is_that_of_an_undisturbed_fleet(told: Told, tmp_path: Path) -> None:
    """The same bits as the engine makes in this process of the same lessons, without network and kills."""
    story, server = told.story, told.story.the_server
    assert set(told.killer.killed) >= KILLED
    [row] = server.published()
    assert {reply.client_id for reply in server.registry().replies(row.id) if reply.accepted} == {
        wearer.client_id for wearer in story.wearers
    }
    clips = [
        SessionClips(told.killer.kept(wearer), wearer.client_id, story.base, key.derive("lessons"))
        for wearer, key in zip(story.wearers, told.keys, strict=True)
    ]
    assert models_of(story.base, sorted(clips, key=lambda one: one.client_id), tmp_path, 1) == [row.published_sha256]
    assert server.ask("rounds", "replay", 1)["same"]
    assert all(wearer.running.runs == row.published_sha256 for wearer in story.wearers)


def test_what_is_printed_at_the_end_says_what_was_measured(told: Told) -> None:
    printed = Console(file=io.StringIO(), width=80)
    for line in lines(told.found):
        printed.print(line)
    said = printed.file.getvalue()  # type: ignore[attr-defined]
    assert "synthetic" in said and all(wearer.name in said for wearer in told.story.wearers)
    assert json.loads(json.dumps(told.found))["model"] == told.story.next.stem
    assert all(0 <= one["recognised"]["next"] <= one["of"] == 3 for one in told.found["wearers"])


def test_every_labelled_span_is_learned_once_and_none_is_lost(told: Told) -> None:
    story = told.story
    [row] = story.the_server.published()
    examples = {reply.client_id: reply.examples for reply in story.the_server.registry().replies(row.id)}
    for number, (wearer, store) in enumerate(zip(story.wearers, told.stores, strict=True)):
        [session] = store.sessions()
        assert session.state == "whole"
        spans = {span.id: span for span in store.spans(session.id)}
        assert {name: span.label.said for name, span in spans.items() if span.label} == wearer.spans
        assert len(wearer.spans) >= 4 and store.to_learn().lessons == ()
        learned = [span for span in wearer.spans if not is_held_out(span)]
        assert sum(training.spans for training in store.trainings()) == len(learned) == examples[wearer.client_id]
        assert (wearer.wearable.folder / "logs" / "fleet.log").read_text().count("round 1: trained on") == 1
        book = told.book(number, wearer.paths.lessons)
        wait_for(lambda book=book: not book.waiting, 120, "the news that its clips were taken")  # type: ignore[misc]


def test_nothing_of_a_wearer_is_on_the_wire(told: Told) -> None:
    """Neither picture nor event, label, feature, path, serial or name: all that wearables sent is searched."""
    asked = told.wire.requests()
    assert {path.rsplit("/", 1)[0] for path, _ in asked} <= ROUTES, {path for path, _ in asked}
    sent = b"\0".join(bytes(kept) for kept in told.wire.sent)
    updates = sum(one["bytes_up"] for one in told.found["wearers"])
    assert 200_000 < sum(len(body) for _, body in asked if len(body) > SMALL) < 1.05 * updates
    needles = secrets_of(told)
    assert len(needles) > 60 and found_in(sent, needles) == set()
    for store in told.stores:
        [session] = store.sessions()
        assert times_in(sent, session.starts_us, session.ends_us) == []


def test_the_search_finds_what_is_hidden(told: Told) -> None:
    """Each needle, wherever it stands, and a time of an event."""
    needles = secrets_of(told)
    for name, needle in needles.items():
        assert name in found_in(b"\1\2\3" + needle + b"\4", needles)
    [session] = told.stores[0].sessions()
    event = (session.starts_us + 5).to_bytes(8, "little")
    assert times_in(b"abc" + event, session.starts_us, session.ends_us) == [session.starts_us + 5]
    request = b"POST /v1/device/x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /y HTTP/1.1\r\nHost: z\r\n\r\n"
    assert list(requests(request)) == [("POST /v1/device/x", b"abc"), ("GET /y", b"")]


def secrets_of(told: Told) -> dict[str, bytes]:
    """What must not leave a wearable, by what it is."""
    words = {f"label {word}": word for word in EMOTIONS}
    words |= {"passphrase": PASSPHRASE, "this machine": socket.gethostname(), "user's folder": str(Path.home())}
    found = dict(told.killer.pictures)
    for number, (wearer, store) in enumerate(zip(told.story.wearers, told.stores, strict=True)):
        whose = f" of {wearer.name}"
        device = device_certificate(wearer.wearable.folder / "page")
        [session] = store.sessions()
        words |= {
            f"serial{whose}": f"SIM{wearer.seed:05d}",
            f"device's name{whose}": device.name,
            f"wearer's code{whose}": f'"{wearer.paths.folder.name}"',
            f"path{whose}": str(wearer.wearable.folder),
            f"session{whose}": session.id,
        }
        for clip in told.book(number, told.killer.kept(wearer).lessons).clips([*clip_names(told, number)]):
            for stream, rows in clip.features.items():
                for kind in (np.float32, np.float16):
                    content = rows[len(rows) // 2].astype(kind).tobytes()
                    found[f"feature {clip.name} {stream} {kind.__name__}{whose}"] = content[:48]
    # What is shorter turns up among an update's numbers by chance.
    return found | {name: word.encode() for name, word in words.items() if len(word) >= 4}


def clip_names(told: Told, number: int) -> tuple[str, ...]:
    """The clips of a wearer, learned and held out, before the round."""
    book = told.book(number, told.killer.kept(told.story.wearers[number]).lessons)
    return (*book.waiting, *book.held_out)
