"""The recordings that capture is writing: the one that runs, and one of what was remembered."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from client.cameras.source import Portion
from client.child_process import Say
from client.recorder import Recorder
from client.said import Said
from client.segment_files import PlainSegment, checked_session
from mcoe_model.errors import DiskFull, McoeError, SettingsError

#: With less room than this in the folder, recording stops: where there is none, dv-processing ends the process.
LEAST_ROOM_BYTES = 32 << 20
#: A segment is cut after so long even when the camera has nothing to say, since the writer holds back the last of it.
_QUIET_NS = 12_000_000_000
#: What was remembered is written in pieces of this length, so that the camera is heard in between.
_SLICE_S = 0.03


class Recordings:
    """At most one that runs and one that is being saved; ``say`` tells of each start, segment and stop."""

    def __init__(self, folder: Path, say: Say) -> None:
        self._folder = folder
        self._say = say
        self._running: _Session | None = None
        self._saving: _Session | None = None
        self._refused = 0

    @property
    def recording(self) -> bool:
        """Whether one runs."""
        return self._running is not None

    @property
    def refused(self) -> int:
        """What was not fit to be recorded."""
        return self._refused + sum(one.recorder.refused for one in (self._running, self._saving) if one is not None)

    def begin(self, session: object, moment: dict[str, int], *, in_sync: bool) -> None:
        """Record what comes from now, which is ``moment``, on. Raises SettingsError, DiskFull."""
        if self._running is not None:
            raise SettingsError(["it records already; stop it first"])
        self._running = self._begun(session, moment, [], in_sync)

    def save(self, session: object, moment: dict[str, int], remembered: list[Portion], *, in_sync: bool) -> None:
        """Record what has come since ``moment``, and stop. Raises SettingsError, DiskFull."""
        if self._saving is not None:
            raise SettingsError(["what came last is just being saved"])
        if not remembered:
            raise SettingsError([Said("camera.nothing_remembered", "nothing is remembered yet")])
        self._saving = self._begun(session, moment, remembered, in_sync)

    def add(self, portion: Portion) -> None:
        """The camera gave this."""
        if self._running is not None:
            self._running = self._kept(self._running, [portion])

    def write_on(self) -> bool:
        """Write some more of what was remembered. Returns whether there was any."""
        if self._saving is None:
            return False
        until = time.monotonic() + _SLICE_S
        while self._saving is not None and time.monotonic() < until:
            waiting = self._saving.waiting
            if not waiting:
                self._end(self._saving)
                self._saving = None
            else:
                self._saving = self._kept(self._saving, [waiting.pop()])
        return True

    def stop(self, why: str = "") -> None:
        """End the one that runs, if any; with ``why``, something cut it short."""
        if self._running is not None:
            self._end(self._running, why)
            self._running = None

    def finish(self) -> None:
        """End both, all of what was remembered written."""
        self.stop()
        while self.write_on():
            pass

    def cut(self) -> None:
        """What comes next goes into another segment."""
        if self._running is not None:
            self._running.recorder.cut()

    def out_of_sync(self) -> None:
        """Frames and events are not of the same time."""
        if self._running is not None:
            self._running.in_sync = False

    def tick(self) -> None:
        """About once a second."""
        if self._running is not None and time.monotonic_ns() - self._running.cut_ns > _QUIET_NS:
            self._running.cut_ns = time.monotonic_ns()
            self.cut()

    def _begun(self, session: object, moment: dict[str, int], remembered: list[Portion], in_sync: bool) -> _Session:
        self._make_sure_of_room()
        begun = _Session(self._folder, checked_session(session), self._say, remembered, in_sync)
        self._say({"is": "started", "session": begun.recorder.session, **moment})
        return begun

    def _kept(self, one: _Session, portions: list[Portion]) -> _Session | None:
        """Write portions; the session, or None when that could not be done and it was stopped."""
        try:
            self._make_sure_of_room()
            for portion in portions:
                one.recorder.add(portion)
        except McoeError as fault:
            self._end(one, str(fault))
            return None
        return one

    def _end(self, one: _Session, why: str = "") -> None:
        one.recorder.cut(last=True)
        self._refused += one.recorder.refused
        said: dict[str, Any] = {"partial": bool(why), "why": why, "in_sync": one.in_sync}
        self._say({"is": "stopped", "session": one.recorder.session, **said})

    def _make_sure_of_room(self) -> None:
        found = os.statvfs(self._folder)
        if found.f_bavail * found.f_frsize < LEAST_ROOM_BYTES:
            says = "less than {least} MiB of memory are free for recordings; free some"
            raise DiskFull(Said("room.memory", says, least=LEAST_ROOM_BYTES >> 20))


class _Session:
    """One recording. ``waiting``: what of it is remembered and not yet written, the newest first."""

    def __init__(self, folder: Path, session: str, say: Say, remembered: list[Portion], in_sync: bool) -> None:
        self.recorder = Recorder(folder, session, self._finished)
        self.waiting = remembered[::-1]
        self.in_sync = in_sync
        self.cut_ns = time.monotonic_ns()
        self._say = say

    def _finished(self, segment: PlainSegment) -> None:
        self.cut_ns = time.monotonic_ns()
        self._say({"is": "segment", **segment.to_record()})
