"""The capture process as the main process sees it: what the camera is and gives, and recordings asked of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from client.children import Child
from client.page.wearable_protocol import Camera, Preview
from client.ring import PairRing, unlink_rings
from client.said import Said
from mcoe_model.data.events import Pair
from mcoe_model.data.geometry import Geometry
from mcoe_model.errors import CameraMissing, McoeError

#: Seconds in which capture answers a command; a segment that is being closed takes a fraction of one.
ANSWER_S = 20.0


class NoAnswer(McoeError):
    """Capture has not answered a command. It may do it all the same."""


@dataclass(frozen=True)
class Rate:
    """What the camera gave in the last second, and how much of the past is remembered.

    ``dropped``: what was left out since its process started, because it cannot be right.
    """

    events_per_s: float = 0.0
    frames_per_s: float = 0.0
    remembered_s: float = 0.0
    dropped: int = 0


class CaptureLink:
    """`python -m client.capture`, while ``wanted`` says so.

    ``heard`` gets the events that concern sessions: started, segment, stopped, clock, trigger. ``gone`` is called when
    the process has ended. ``tmpfs`` is where it may put plain segments.
    """

    def __init__(
        self,
        device: str,
        tmpfs: Path,
        wanted: Callable[[], Geometry | None],
        heard: Callable[[dict[str, Any]], None],
        gone: Callable[[], None],
        log_file: Path,
    ) -> None:
        self._device = device
        self._tmpfs = tmpfs
        self._prefix = f"{tmpfs.name}-"
        self._wanted = wanted
        self._heard_by = heard
        self._gone_by = gone
        self.child = Child("capture", "client.capture", self._arguments, log_file, heard=self._heard, gone=self._gone)
        self.camera: Camera | None = None
        #: Why there is none, or empty: a `Said` where that can be. It may name the recording's path: for no log.
        self.why_lost = ""
        self.rate = Rate()
        self.pairs_ring: str | None = None
        self._pairs: PairRing | None = None
        self._preview: PairRing | None = None
        self._awaited: dict[str, asyncio.Future[dict[str, Any]]] = {}

    def clear(self) -> None:
        """Take away the pictures that a process which is gone has left in memory."""
        unlink_rings(self._prefix)

    async def record(self, session: str) -> dict[str, Any]:
        """Begin to record; what capture says of the start. Raises CameraMissing, NoAnswer, McoeError."""
        return await self._ask("started", {"do": "record", "session": session})

    async def stop(self) -> dict[str, Any]:
        """End the recording; returns when its last segment was announced."""
        return await self._ask("stopped", {"do": "stop"})

    async def save_last(self, session: str, seconds: float) -> dict[str, Any]:
        """Write what is remembered; returns when its last segment was announced."""
        return await self._ask("stopped", {"do": "save_last", "session": session, "seconds": seconds})

    def fit(self, geometry: Geometry) -> None:
        """Make pictures with this geometry from now on."""
        self.child.say({"do": "fit", "geometry": asdict(geometry)})

    def preview(self) -> Preview | None:
        """The newest picture of the whole sensor."""
        newest = self._preview.newest() if self._preview is not None else None
        return None if newest is None else Preview(newest.number, newest.frame, newest.event)

    def pairs_since(self, number: int) -> list[Pair]:
        """The pictures after this number."""
        return list(self._pairs.since(number)[0]) if self._pairs is not None else []

    def newest_number(self) -> int:
        """The number of the newest pictures; -1 before the first."""
        newest = self._pairs.newest() if self._pairs is not None else None
        return -1 if newest is None else newest.number

    def _arguments(self) -> list[str] | None:
        geometry = self._wanted()
        if geometry is None:
            return None
        self.clear()
        return [
            "--device", self._device, "--rings", self._prefix, "--tmpfs", str(self._tmpfs),
            "--geometry", json.dumps(asdict(geometry)),
        ]  # fmt: skip

    async def _ask(self, answer: str, command: dict[str, Any]) -> dict[str, Any]:
        if self.camera is None or not self.camera.seen:
            raise CameraMissing("no camera is there; plug it in, and it is found by itself")
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._awaited[answer] = future
        try:
            if not self.child.say(command):
                says = "the camera's process is just being started again; try again in a moment"
                raise CameraMissing(Said("camera.restarting", says))
            return await asyncio.wait_for(future, ANSWER_S)
        except TimeoutError as fault:
            says = "the camera's process does not answer; try again, or unplug the camera for once"
            raise NoAnswer(Said("camera.no_answer", says)) from fault
        finally:
            if self._awaited.get(answer) is future:
                del self._awaited[answer]

    def _heard(self, event: dict[str, Any]) -> None:
        match event["is"]:
            case "ready":
                self._attach(event)
            case "lost" | "found" | "ended":
                self.why_lost = Said.of_event(event)
                if self.camera is not None:
                    self.camera = Camera(self.camera.model, event["is"] == "found", self.camera.usb3)
            case "rate":
                known = {name: event[name] for name in Rate.__dataclass_fields__ if event.get(name) is not None}
                self.rate = Rate(**known)
            case "refused":
                self._fail(McoeError(Said.of_event(event)))
        self._heard_by(event)
        future = self._awaited.pop(event["is"], None)
        if future is not None and not future.done():
            future.set_result(event)

    def _attach(self, event: dict[str, Any]) -> None:
        said, rings = event["camera"], event["rings"]
        self.camera, self.why_lost = Camera(str(said["model"]), True, said["usb3"]), ""
        self._pairs, self._preview = PairRing.attach(rings["pairs"]), PairRing.attach(rings["preview"])
        self.pairs_ring = str(rings["pairs"])

    def _fail(self, fault: McoeError) -> None:
        for future in self._awaited.values():
            if not future.done():
                future.set_exception(fault)

    def _gone(self) -> None:
        self.rate, self.pairs_ring = Rate(), None
        if self.camera is not None:
            self.camera = Camera(self.camera.model, False, self.camera.usb3)
        for ring in (self._pairs, self._preview):
            if ring is not None:
                ring.close()
        self._pairs = self._preview = None
        self.clear()
        says = "the camera's process has ended; it is started again by itself"
        self._fail(CameraMissing(Said("camera.restarting", says)))
        self._gone_by()
