"""A wearable for the page's own tests: it keeps to the page's protocol, in memory and without a camera."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import numpy as np

from client.comparison import Comparison
from client.consent_text import ConsentText
from client.page.wearable_protocol import (
    Camera,
    Disk,
    Live,
    ModelChoice,
    Preview,
    Prompt,
    Recording,
    Session,
    Span,
    Status,
    TryOut,
)
from mcoe_model.consent import Consent
from mcoe_model.data.events import Pair
from mcoe_model.data.geometry import PICTURE_SIZE, SENSOR, Geometry
from mcoe_model.errors import ConsentMissing, DataInvalid, DataMissing, Locked, OutputExists
from mcoe_model.invitation import Invitation

PASSPHRASE = "correct horse battery"
RECOVERY = "ABCD-EFGH-IJKL-MNOP-QRST-UVWX-YZ23-4567"


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def drawn(number: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A frame and an event picture of an eye that looks around."""
    y, x = np.mgrid[:height, :width]
    right = 0.06 * width * np.sin(number / 9)
    far = np.hypot((x - width / 2) / 1.6, y - height / 2)
    iris = np.hypot(x - width / 2 - right, y - height / 2)
    frame = np.where(far < height / 4, 215, 120)
    frame = np.where(iris < height / 7, 70, frame)
    frame = np.where(iris < height / 16, 15, frame)
    moved = np.where(np.abs(iris - height / 7) < 2, np.where(x > width / 2 + right, 255, 0), 128)
    return frame.astype(np.uint8), moved.astype(np.uint8)


class StandingWearable:
    """What the page sees of a wearable. ``calls`` counts what was asked of it."""

    def __init__(self) -> None:
        self.state = Status(
            stage="new", wearer=None, camera=Camera("simulated", True, None), recording=None, refusal="no-consent",
            live=None, model=None, checks=(), consents=(), geometry=Geometry(), fitted=False, prompts=0,
            disk=Disk(50_000_000_000, 0, 20_000_000_000), clock_set=True, enrolled=False, remembered_s=15.0,
        )  # fmt: skip
        self.sessions: dict[str, Session] = {}
        self.questions: list[Prompt] = []
        self.earlier: dict[int, list[Span]] = {}
        self.calls: list[str] = []
        self.passphrase: str | None = None
        self.tried: TryOut | None = None
        self.joined: Invitation | None = None
        self._changed = asyncio.Event()
        self._number = 0

    def change(self, **changed: object) -> None:
        """Another status."""
        self.state = replace(self.state, **changed)  # type: ignore[arg-type]
        allowed = any(consent.kind == "capture" for consent in self.state.consents)
        if self.state.refusal in (None, "no-consent"):
            self.state = replace(self.state, refusal=None if allowed else "no-consent")
        self._changed.set()
        self._changed = asyncio.Event()

    async def status(self) -> Status:
        return self.state

    async def changes(self) -> AsyncIterator[Status]:
        while True:
            changed = self._changed
            yield self.state
            await changed.wait()

    async def set_up(self, passphrase: str | None, kinds: Sequence[str], text: ConsentText) -> str | None:
        self.calls.append("set_up")
        if self.state.stage != "new":
            raise OutputExists("a wearer is there")
        self.passphrase = passphrase
        consents = tuple(Consent(kind, text.version, now()) for kind in kinds)
        self.change(stage="open", wearer="w-7k3m", consents=consents)
        return None if passphrase is None else RECOVERY

    async def unlock(self, words: str) -> None:
        if words not in (self.passphrase, RECOVERY):
            raise Locked("these words do not fit")
        self.change(stage="open")

    async def lock(self) -> None:
        if self.passphrase is None:
            raise DataMissing("there is no passphrase")
        self.change(stage="locked")

    async def preview(self) -> Preview | None:
        self._require("capture")
        self._number += 1
        width, height = SENSOR
        return Preview(self._number, *drawn(self._number, height, width))

    async def fit(self, geometry: Geometry) -> None:
        self.calls.append("fit")
        self.change(geometry=geometry, fitted=True)

    async def try_out(self) -> TryOut:
        self._require("capture")
        await asyncio.sleep(1)
        self.tried = TryOut(tuple(self._pairs(0, 10_000_000)), 123_456, 300)
        return self.tried

    async def tried_out(self) -> TryOut:
        self._require("capture")
        if self.tried is None:
            raise DataMissing("there is none")
        return self.tried

    async def delete_try_out(self) -> None:
        self.tried = None

    async def start_recording(self) -> str:
        self.calls.append("start")
        self._require("capture")
        self.change(recording=Recording(f"s{len(self.sessions)}", now()))
        assert self.state.recording is not None
        return self.state.recording.session

    async def stop_recording(self) -> str:
        self.calls.append("stop")
        recording = self.state.recording
        if recording is None:
            raise DataMissing("nothing is recorded")
        self.change(recording=None)
        return self.add(recording.session, 12.0)

    async def save_last(self, seconds: float = 15.0) -> str:
        self.calls.append("save_last")
        self._require("capture")
        return self.add(f"s{len(self.sessions)}", seconds)

    async def discard(self, session: str) -> None:
        self.calls.append("discard")
        await self.session(session)
        del self.sessions[session]

    async def preview_span(self, session: str, from_us: int, to_us: int) -> list[Pair]:
        self.calls.append("preview_span")
        if (await self.session(session)).raw_deleted:
            raise DataMissing("the pictures are deleted")
        return self._pairs(from_us, to_us)

    async def add_span(self, session: str, start_us: int, end_us: int, once: str = "") -> int:
        self.calls.append("add_span")
        found = await self.session(session)
        span = Span(len(self.earlier) + 1, start_us, end_us, None, None, None, 0, "everything")
        self.earlier[span.id] = []
        self.sessions[session] = replace(found, spans=(*found.spans, span))
        return span.id

    async def label(self, span: int, label: str, intensity: int | None, once: str = "") -> Span:
        self.calls.append("label")
        self._require("labels")
        before = self._span(span)
        self.earlier[span].append(before)
        return self._put(replace(before, label=label, intensity=intensity, versions=before.versions + 1))

    async def undo(self, span: int, once: str = "") -> Span:
        self.calls.append("undo")
        return self._put(self.earlier[span].pop())

    async def trim(self, span: int, start_us: int, end_us: int, once: str = "") -> Span:
        self.calls.append("trim")
        if not 500_000 <= end_us - start_us <= 30_000_000:
            raise DataInvalid("0.5 to 30 s")
        return self._put(replace(self._span(span), start_us=start_us, end_us=end_us))

    async def discard_span(self, span: int) -> None:
        self.calls.append("discard_span")
        if not any(one.id == span for made in self.sessions.values() for one in made.spans):
            raise DataMissing("it was discarded")
        for session, made in self.sessions.items():
            self.sessions[session] = replace(made, spans=tuple(one for one in made.spans if one.id != span))

    async def history(self) -> list[Session]:
        return sorted(self.sessions.values(), key=lambda session: session.started, reverse=True)

    async def session(self, session: str) -> Session:
        if session not in self.sessions:
            raise DataMissing(f"there is no session {session}")
        return self.sessions[session]

    async def keep_more(self, session: str) -> None:
        found = await self.session(session)
        assert found.raw_until is not None
        self.sessions[session] = replace(found, raw_until=found.raw_until + datetime.timedelta(days=14))

    async def prompts(self) -> list[Prompt]:
        return self.questions

    async def snooze(self, prompt: int) -> None:
        self.questions = [one for one in self.questions if one.id != prompt]
        self.change(prompts=len(self.questions))

    async def marker(self, text: str, source: str) -> int:
        self.calls.append(f"marker {text} {source}")
        return 1_234_567

    async def keep_model(self) -> None:
        self.calls.append("keep_model")

    async def take_model(self) -> None:
        self.calls.append("take_model")

    async def consent(self, kind: str, text: ConsentText) -> None:
        kept = tuple(one for one in self.state.consents if one.kind != kind)
        self.change(consents=(*kept, Consent(kind, text.version, now())))

    async def join(self, invitation: Invitation) -> None:
        self.calls.append("join")
        self._require("learning")
        self._require("updates")
        if self.state.enrolled:
            raise OutputExists("it is a member")
        self.joined = invitation
        self.change(enrolled=True, left=None)

    async def withdraw(self, kind: str) -> None:
        self.change(consents=tuple(one for one in self.state.consents if one.kind != kind), recording=None)

    async def export(self) -> AsyncIterator[bytes]:
        self._require("capture")
        yield b"PK"
        yield b"rest"

    async def forget(self) -> None:
        self.calls.append("forget")
        self.sessions.clear()
        self.change(stage="new", wearer=None, consents=(), fitted=False, left=None)

    # For tests alone

    def add(self, session: str, seconds: float, **known: object) -> str:
        """A session with one span, as a recording would have left it."""
        span = Span(len(self.earlier) + 1, 0, round(1e6 * min(seconds, 30)), None, None, "sadness", 0, "everything")
        self.earlier[span.id] = []
        until = now() + datetime.timedelta(days=14)
        made = Session(session, now(), seconds, "whole", 3_400_000, until, False, (span,))
        self.sessions[session] = replace(made, **known)  # type: ignore[arg-type]
        return session

    def recognise(self, emotion: int = 3) -> None:
        """A recognition, and a newer model that did worse."""
        probabilities = tuple(0.64 if one == emotion else 0.06 for one in range(7))
        live = Live("happiness", probabilities, 21.4, 30.0, 2)
        self.change(
            live=live, model=ModelChoice("3f" * 8, "9c" * 8, None, True, Comparison(24, 3, 12, 18, 0, 6).in_words())
        )

    def ask(self, session: str) -> None:
        """A question about a session's first span."""
        span = self.sessions[session].spans[0].id
        expires = now() + datetime.timedelta(hours=12)
        self.questions.append(Prompt(len(self.questions) + 1, session, span, now(), expires))
        self.change(prompts=len(self.questions))

    def _require(self, kind: str) -> None:
        if self.state.stage != "open":
            raise Locked("locked")
        if kind not in {consent.kind for consent in self.state.consents}:
            raise ConsentMissing(f"no consent to {kind}")

    def _pairs(self, from_us: int, to_us: int) -> list[Pair]:
        size, times = PICTURE_SIZE, range(from_us, to_us, 33_333)
        return [Pair(number, us, *drawn(us // 33_333, size, size), True) for number, us in enumerate(times)]

    def _span(self, span: int) -> Span:
        return next(one for session in self.sessions.values() for one in session.spans if one.id == span)

    def _put(self, span: Span) -> Span:
        for name, session in self.sessions.items():
            spans = tuple(span if one.id == span.id else one for one in session.spans)
            self.sessions[name] = replace(session, spans=spans)
        return span
