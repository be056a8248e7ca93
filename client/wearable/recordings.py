"""Recording: sessions are begun, their segments sealed as they come, and ended, however that happens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from client.capture_link import NoAnswer
from client.consent_text import ConsentTexts
from client.page import wearable_protocol as page
from client.replay import content, pairs
from client.segment_files import left_over
from client.sessions import Moment, Store, now
from client.sessions.values import LONGEST_US, SHORTEST_US
from client.wearable.base import WearableBase
from client.wearable.views import utc
from mcoe_model.data.events import Pair
from mcoe_model.errors import (
    CameraMissing,
    ConsentMissing,
    DataInvalid,
    DataMissing,
    DiskFull,
    McoeError,
    RecordingRuns,
    for_log,
)

#: Seconds that a session may take to end once that was asked; then the capture process is ended.
END_S = 30.0
#: The same when the whole program is to end.
QUICK_END_S = 4.0
TRY_OUT_S = 10.0
#: Seconds after which a try-out that nobody deleted is forgotten: whoever closes the page does not say so, and a phone
#: that shows it has it since.
TRY_OUT_KEPT_S = 120.0
#: Seconds between two looks for new pictures; the ring holds two seconds of them.
_POLL_S = 0.2

log = logging.getLogger("mcoe")


@dataclass
class UnderWay:
    """A session that is being recorded, or saved from what is ``remembered``.

    ``full``: it was ended for want of room. ``cut``: a segment found no space, so that nothing may follow it.
    """

    session: str
    began: Moment
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    remembered: bool = False
    stopping: bool = False
    full: bool = False
    cut: bool = False
    driven: bool = False
    in_sync: bool = True


class RecordingWearable(WearableBase):
    """What the wearer does with the camera."""

    def __init__(self, folder: Path, device: str, texts: ConsentTexts) -> None:
        super().__init__(folder, device, texts)
        self.under_way: UnderWay | None = None
        self._tried_out: page.TryOut | None = None
        self._try_out_goes: asyncio.TimerHandle | None = None
        self._try_outs_deleted = 0
        self._turn = asyncio.Lock()  # one beginning or ending at a time
        self._unsealed = set[str]()  # sessions of which something waits in memory for a disk that is full
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        #: What the camera's clock said at a time of the monotonic one.
        self._camera_clock: tuple[int, int] | None = None

    async def start_recording(self, driven: bool = False) -> str:
        """Begin a session; its id. ``driven``: a study knows what its spans are, so that the wearer is not asked.

        Raises Locked, ConsentMissing, CameraMissing, DiskFull, LabelFirst, RecordingRuns.
        """
        async with self._turn:
            under_way = await self._begin()
            under_way.driven = driven
            try:
                await self.capture.record(under_way.session)
            except McoeError as fault:
                await self._abandon(under_way, hangs=isinstance(fault, NoAnswer))
                raise
            return under_way.session

    async def stop_recording(self) -> str:
        """End the session under way; returns its id when all of it is sealed. Raises DataMissing when there is none."""
        async with self._turn:
            under_way = self.under_way
            if under_way is None:
                raise DataMissing("nothing is being recorded")
            await self._stop(under_way)
            return under_way.session

    async def save_last(self, seconds: float = 15.0) -> str:
        """What the camera saw in the last seconds, as a session of its own; its id. Raises as `start_recording`."""
        async with self._turn:
            under_way = await self._begin()
            under_way.remembered = True
            try:
                await self.capture.save_last(under_way.session, seconds)
            except McoeError as fault:
                await self._abandon(under_way, hangs=isinstance(fault, NoAnswer))
                raise
            await self._until_ended(under_way)
            return under_way.session

    async def discard(self, session: str) -> None:
        """Delete a session, its pictures and its labels; one under way is ended first. Raises DataMissing."""
        async with self._turn:
            if self.under_way is not None and self.under_way.session == session:
                await self._stop(self.under_way)
            await self.kept(lambda store: store.discard(session))
        await self.salvage_what_waits()

    async def preview_span(self, session: str, from_us: int, to_us: int) -> list[Pair]:
        """The pictures of a part of a session, 30 s at most. Raises DataMissing once they are deleted, DataInvalid."""
        if to_us - from_us > LONGEST_US:
            raise DataInvalid(f"at most {LONGEST_US / 1e6:g} seconds are replayed at a time; ask for a shorter part")

        def read(store: Store) -> tuple[list[bytes], Any, int]:
            recording = store.session(session)
            start = recording.starts_us or 0
            wanted = [
                segment
                for segment in store.segments(session)
                if segment.ends_us > start + from_us and segment.starts_us < start + to_us
            ]
            if not wanted:
                raise DataMissing("the pictures of this part are no longer there")
            return [b"".join(store.open_segment(segment)) for segment in wanted], recording.geometry, start

        segments, geometry, start = await self.kept(read)
        return await pairs(segments, geometry, start + from_us, start + to_us)

    async def marker(self, text: str, source: str) -> int:
        """Write down something that happens now; the camera's time of it in microseconds. Raises CameraMissing."""
        seen = self.capture.camera is not None and self.capture.camera.seen
        if self._camera_clock is None or not seen:
            raise CameraMissing("no camera is there whose time this could be; plug it in")
        camera_us, monotonic_ns = self._camera_clock
        at_us = camera_us + (time.monotonic_ns() - monotonic_ns) // 1000
        session = self.under_way.session if self.under_way is not None else None
        await self.kept(lambda store: store.add_marker(source, text, session_id=session, camera_us=at_us))
        return at_us

    async def try_out(self) -> page.TryOut:
        """Ten seconds of pictures in memory. Raises as `preview`, CameraMissing."""
        self._require_sight()
        store, deleted = self.store, self._try_outs_deleted
        if self.capture.camera is None or not self.capture.camera.seen:
            raise CameraMissing("no camera is there; plug it in, and it is found by itself")
        seen: list[Pair] = []
        events, number, ends = 0.0, self.capture.newest_number(), time.monotonic() + TRY_OUT_S
        while time.monotonic() < ends:
            await asyncio.sleep(_POLL_S)
            seen += self.capture.pairs_since(number)
            number = seen[-1].number if seen else number
            events += self.capture.rate.events_per_s * _POLL_S
        self._require_sight()  # it may have been taken back meanwhile
        if self.store is not store:
            raise DataMissing("another one wears it now; the try-out was deleted")
        if self._try_outs_deleted != deleted:
            raise DataMissing("the try-out was deleted")
        self._tried_out = page.TryOut(tuple(seen), round(events), sum(pair.fresh for pair in seen))
        if self._try_out_goes is not None:
            self._try_out_goes.cancel()  # it was for the one before
        self._try_out_goes = asyncio.get_running_loop().call_later(TRY_OUT_KEPT_S, self._forget_try_out)
        return self._tried_out

    async def tried_out(self) -> page.TryOut:
        """The pictures of the last try-out. Raises DataMissing once they are deleted, Locked, ConsentMissing."""
        self._require_sight()
        if self._tried_out is None:
            raise DataMissing("the try-out was deleted")
        return self._tried_out

    async def delete_try_out(self) -> None:
        """Forget its pictures, also of one that is not over yet."""
        self._try_outs_deleted += 1
        self._forget_try_out()

    def _forget_try_out(self) -> None:
        self._tried_out = None

    async def salvage(self, session: str | None = None) -> set[str]:
        """Seal what a process that died has left of a session, or of any: what can still be read of it counts.

        What cannot be read, or is nobody's, is removed. Returns the sessions of which something waits in memory, such
        as for a disk that is full; `salvage_what_waits` tries it again.
        """
        waiting: set[str] = set()
        self._unsealed = set() if session is None else self._unsealed - {session}
        for found, number, _, path in left_over(self.plain):
            if session not in (None, found):
                continue
            try:
                held = await content([await asyncio.to_thread(path.read_bytes)])
                if held.starts_us is None or held.ends_us is None:
                    raise DataInvalid("nothing was written yet")
                counts = {name: getattr(held, name) for name in ("events", "frames", "imu", "triggers")}
                add = partial(Store.add_segment, session_id=found, number=number, plain=path, **counts)
                await self.kept(partial(add, starts_us=held.starts_us, ends_us=held.ends_us))
                log.info("a segment that was not finished is kept: %d events, %d frames", held.events, held.frames)
            except (DataInvalid, DataMissing, ConsentMissing) as fault:
                log.warning("what a process that died has left of a session is lost: %s", for_log(fault))
                path.unlink(missing_ok=True)
            except McoeError as fault:
                log.warning("what a process that died has left of a session waits in memory: %s", for_log(fault))
                waiting.add(found)
        self._unsealed |= waiting
        return waiting

    async def salvage_what_waits(self) -> None:
        """Try again to seal what found no space, once there is some."""
        async with self._turn:
            for session in sorted(self._unsealed) if self.known.no_room is None else ():
                if not await self.salvage(session):
                    with contextlib.suppress(DataMissing):  # it was discarded
                        end = partial(Store.end_session, session_id=session, partial=True, why="process ended")
                        await self.kept(end)

    async def seal(self) -> None:
        """Do with each event of a session what is to be done, in their order. Never ends."""
        while True:
            event = await self._events.get()
            try:
                await self._take(event)
            except (McoeError, OSError, SQLAlchemyError) as fault:
                log.warning("a part of a recording could not be kept: %s", for_log(fault))

    def recording(self) -> page.Recording | None:
        """The session under way, as the page shows it."""
        under_way = self.under_way
        return None if under_way is None else page.Recording(under_way.session, utc(under_way.began.utc_us))

    async def end_capture(self) -> None:
        """End a recording as a whole session, if that is soon done, and then the camera."""
        with contextlib.suppress(McoeError, TimeoutError):
            async with asyncio.timeout(QUICK_END_S), self._turn:
                if self.under_way is not None:
                    await self._stop(self.under_way)
        await self.capture.child.end()
        if self.under_way is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.under_way.ended.wait(), QUICK_END_S)

    def _heard(self, event: dict[str, Any]) -> None:
        if "camera_us" in event and "monotonic_ns" in event:
            self._camera_clock = int(event["camera_us"]), int(event["monotonic_ns"])
        if event["is"] == "found":
            self._camera_clock = None  # it may count its time from elsewhere than before
        if event["is"] == "ready" and self.capture.pairs_ring is not None:
            self.recognise.use_ring(self.capture.pairs_ring)
        if event["is"] in ("started", "segment", "stopped", "clock", "trigger"):
            self._events.put_nowait(event)
        here = self.under_way
        if event["is"] == "rate" and event.get("in_sync") is False and here is not None and here.in_sync:
            here.in_sync = False  # written down at once: its process may not live to say so at the end
            self._events.put_nowait({"is": "out-of-sync", "session": here.session})

    def _capture_gone(self) -> None:
        self._camera_clock = None
        if self.under_way is not None:
            why = "consent withdrawn" if self._camera_wanted() is None else "capture ended"
            said = {"session": self.under_way.session, "partial": True, "why": why, "died": True}
            self._events.put_nowait({"is": "stopped", **said})

    async def _begin(self) -> UnderWay:
        if self.under_way is not None:
            raise RecordingRuns("a recording runs already; stop it first")
        camera = self.capture.camera
        free = self.disk().free

        def begin(store: Store) -> str:
            store.require("capture")
            store.delete_due()
            no_room = store.refuses_to_record(free)
            if no_room is not None:
                raise no_room
            if camera is None or not camera.seen:
                raise CameraMissing("no camera is there; plug it in, and it is found by itself")
            return store.begin_session(camera.model, self.geometry)

        self.under_way = UnderWay(await self.kept(begin), now())
        return self.under_way

    async def _abandon(self, under_way: UnderWay, hangs: bool) -> None:
        """A session that did not come about. Capture that ``hangs`` might yet begin with it, so it is ended."""
        if hangs:
            self.capture.child.kill()
            await self._until_ended(under_way)
        self.under_way = None
        with contextlib.suppress(McoeError):
            await self.kept(lambda store: store.discard(under_way.session))

    async def _stop(self, under_way: UnderWay) -> None:
        under_way.stopping = True
        with contextlib.suppress(McoeError):  # then it ends by itself, or with its process
            await self.capture.stop()
        await self._until_ended(under_way)

    async def _until_ended(self, under_way: UnderWay) -> None:
        try:
            await asyncio.wait_for(under_way.ended.wait(), END_S)
        except TimeoutError:
            self.capture.child.kill()
            await asyncio.wait_for(under_way.ended.wait(), END_S)

    async def _take(self, event: dict[str, Any]) -> None:
        session, under_way = event.get("session"), self.under_way
        match event["is"]:
            case "segment":
                await self._seal_segment(event)
            case "stopped":
                try:
                    await self._end_session(event)
                finally:
                    if under_way is not None and under_way.session == session:
                        self.under_way = None
                        under_way.ended.set()
            case "out-of-sync":
                await self.kept(lambda store: store.flag(str(session), "out-of-sync"))
            case "started" | "clock" if session or under_way:
                await self._note_clock(str(session or (under_way and under_way.session)), event)
            case "trigger" if under_way is not None:
                here, at_us = under_way.session, int(event["camera_us"])
                await self.kept(lambda store: store.add_marker("signal", "signal", session_id=here, camera_us=at_us))

    async def _note_clock(self, session: str, event: dict[str, Any]) -> None:
        here = now()
        at = Moment(int(event["utc_us"]), int(event["monotonic_ns"]), here.zone, here.clock_state)
        stepped = bool(event.get("stepped"))
        await self.kept(lambda store: store.add_clock(session, int(event["camera_us"]), at, stepped))

    async def _seal_segment(self, event: dict[str, Any]) -> None:
        """Seal it; when the disk is full, or would soon be, the recording is ended politely.

        What comes until it has ended is sealed as long as there is space, and so is all that was remembered.
        """
        session, plain, under_way = str(event["session"]), Path(event["path"]), self.under_way
        counts = {name: int(event[name]) for name in ("events", "frames", "imu", "triggers")}
        number, starts_us, ends_us = (int(event[name]) for name in ("number", "starts_us", "ends_us"))
        try:
            if under_way is not None and under_way.cut:
                raise DiskFull("no space left for a recording; delete some on the page")
            await self.kept(lambda store: store.add_segment(session, number, plain, starts_us, ends_us, **counts))
            full = not (under_way is not None and under_way.remembered) and not await self._has_room()
        except DiskFull:
            plain.unlink(missing_ok=True)
            full = True
            if under_way is not None:
                under_way.cut = True
        if full and under_way is not None and not under_way.full:
            log.warning("the disk is nearly full; the recording ends")
            under_way.full = True
            self.capture.child.say({"do": "stop"})

    async def _has_room(self) -> bool:
        """Whether more may be recorded, now or once what is learned was deleted."""
        free = self.disk().free

        def has_room(store: Store) -> bool:
            store.delete_due()
            return store.refuses_to_record(free) is None

        try:
            return await self.kept(has_room)
        except DiskFull:  # for writing down what was deleted
            return False

    async def _end_session(self, event: dict[str, Any]) -> None:
        """Write down how it ended, and mark what is short enough to be labelled as one span."""
        session, under_way = str(event["session"]), self.under_way
        full, driven = (under_way.full, under_way.driven) if under_way is not None else (False, False)
        cut_short = bool(event["partial"]) or full
        why = "disk full" if full else str(event.get("why") or "")

        if event.get("died"):
            await self.salvage(session)

        def end(store: Store) -> None:
            store.end_session(session, cut_short, why)
            if not event.get("in_sync", True):
                store.flag(session, "out-of-sync")
            recording = store.session(session)
            if driven or recording.starts_us is None or recording.ends_us is None or not store.allowed("labels"):
                return
            if SHORTEST_US <= recording.ends_us - recording.starts_us <= LONGEST_US:
                predicted = self._predicted(recording.starts_us, recording.ends_us)
                span = store.add_span(session, recording.starts_us, recording.ends_us, predicted=predicted)
                store.ask(span.id)

        await self.kept(end)

    def _predicted(self, starts_us: int, ends_us: int) -> Any:
        """What was recognised between two times of the camera's clock."""
        if self._camera_clock is None:
            return None
        camera_us, monotonic_ns = self._camera_clock
        starts, ends = (monotonic_ns + (at - camera_us) * 1000 for at in (starts_us, ends_us))
        return self.recognise.prediction(starts, ends)
