"""The process that owns the camera: pictures for recognition, recordings when asked, and the last seconds in memory.

    python -m client.capture --device TEXT --rings PREFIX --tmpfs FOLDER --geometry JSON

It holds nothing that matters for long: full memory or a broken file ends it from inside dv-processing, and the main
process starts it again. Commands are lines of JSON, each with ``do``:

- ``record`` (``session``), ``stop``; ``save_last`` (``session``, ``seconds``) records what is remembered, and stops.
- ``fit`` (``geometry``): make pictures with this geometry from now on. ``quit``.

Events are lines of JSON, each with ``is``:

- ``ready`` (``camera``, ``rings``): the camera is open, and pictures come in rings of these names.
- ``lost`` (``why``, see `reason`): no camera, or no more, or one that says that it runs and gives nothing, or one that
  cannot be used, after which the process ends; ``found``: the same one is back, and gives something. ``ended``: a
  recording that was played is over.
- ``started`` (``session`` and a moment: ``camera_us``, ``utc_us``, ``monotonic_ns``), ``segment`` (see PlainSegment;
  its reader removes it), ``stopped`` (``session``, ``partial``, ``why``, ``in_sync``).
- ``clock`` (a moment, and ``stepped``: UTC was set, and a segment was cut); ``trigger`` (``camera_us``): a signal at
  the camera's input; ``rate``: each second, see Checks; ``refused`` (``do``, ``why`` as for ``lost``).
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from client.cameras.source import CameraSource, Portion, find_again, open_source, parse_device
from client.child_process import Say, begin, commands
from client.clock_map import CameraClock, WallClock
from client.live_pictures import LivePictures
from client.portions import span_us
from client.recordings import Recordings
from client.remembered import Remembered
from client.said import Said, reason
from mcoe_model.data.geometry import Geometry
from mcoe_model.errors import CameraMissing, McoeError, SettingsError, for_log

#: Rest when the camera has nothing to give.
_REST_S = 0.002
#: Each of these, the rates are said and the clocks looked at; and a camera that was lost is looked for.
_TICK_NS = 1_000_000_000
#: The clocks are said this often, and whenever one was set.
_CLOCK_TICKS = 10
#: Frames and events that are further apart than this, for so many ticks, were not seen together.
_SKEW_US, _SKEW_TICKS = 250_000, 3
#: A live camera that runs, as it says, and gives nothing for so many ticks is lost: a still eye has frames, too.
#: Ticks, not time: while this process was set aside, nobody looked.
_SILENT_TICKS = 5
#: The kinds of a signal at the camera's input (dv-processing's TriggerType); others are the camera's own.
_SIGNALS = (1, 2, 3)


class Capture:
    """The camera and all that is made of what it gives. ``step`` is called again and again until `quit` is asked."""

    def __init__(
        self, device: str, rings: str, folder: Path, geometry: Geometry, say: Say, wall: WallClock | None = None
    ) -> None:
        self.quit = False
        self._device = device
        self._live = parse_device(device).kind != "recording"
        self._say = say
        self._wall = wall or WallClock()
        self._clock = CameraClock()
        self._remembered = Remembered()
        self._recordings = Recordings(folder, say)
        # A new name each time: who still reads the ring of a process that died reads that one.
        self._pictures = LivePictures(f"{rings}{os.getpid()}-", geometry, time.monotonic_ns())
        self._source: CameraSource | None = None
        self._lost: CameraSource | None = None
        self._missing, self._over = False, False
        self._tick_ns, self._ticks, self._skewed_ticks, self._silent_ticks, self._refused = 0, 0, 0, 0, 0

    def step(self, command: dict[str, Any] | None) -> bool:
        """Do what is asked, if anything, and take what the camera has. Returns whether there was anything to do.

        Raises McoeError for a camera that cannot be used, whatever comes.
        """
        if command is not None:
            self._obey(command)
        before_ns = time.monotonic_ns()
        if before_ns - self._tick_ns >= _TICK_NS:
            self._tick_ns = before_ns
            self._tick(before_ns)
        busy = self._recordings.write_on()
        if self._source is None:
            return busy
        portion = self._source.read()
        if portion is not None:
            self._take(portion, time.monotonic_ns())
        elif not self._source.running():
            says = "the camera gives no more; plug it in again, and it is found by itself"
            self._gone(before_ns, Said("camera.lost", says))
        elif (camera_us := self._clock.camera_us(before_ns)) is not None:
            self._pictures.still(camera_us, before_ns)
        return busy or portion is not None

    def close(self) -> None:
        """Finish what is being recorded and let the camera go."""
        self._recordings.finish()
        if self._source is not None:
            self._source.close()
        self._pictures.close()

    def _obey(self, command: dict[str, Any]) -> None:
        do = command.get("do")
        try:
            match do:
                case "record":
                    self._record(command.get("session"))
                case "save_last":
                    self._save_last(command.get("session"), float(command.get("seconds", 15.0)))
                case "stop":
                    self._recordings.stop()
                case "fit":
                    self._fit(command.get("geometry"))
                case "quit":
                    self.quit = True
                case _:
                    raise SettingsError(["there is no such command"])
        except (McoeError, TypeError, ValueError) as fault:
            why = reason(fault) if isinstance(fault, McoeError) else {"why": str(fault)}
            self._say({"is": "refused", "do": do} | why)

    def _record(self, session: object) -> None:
        self._recordings.begin(session, self._moment(time.monotonic_ns()), in_sync=self._in_sync)

    def _save_last(self, session: object, seconds: float) -> None:
        since_ns = time.monotonic_ns() - round(1e9 * seconds)
        moment = self._moment(since_ns)
        self._recordings.save(session, moment, self._remembered.since(moment["camera_us"]), in_sync=self._in_sync)

    def _moment(self, at_ns: int) -> dict[str, int]:
        """What the three clocks said at a time of the monotonic one. Raises CameraMissing."""
        camera_us = self._clock.camera_us(at_ns)
        if self._source is None or camera_us is None:
            says = "the camera gives nothing; plug it in, and it is found by itself"
            raise CameraMissing(Said("camera.gives_nothing", says))
        return {"camera_us": camera_us, "utc_us": self._wall.utc_us(at_ns), "monotonic_ns": at_ns}

    @property
    def _in_sync(self) -> bool:
        return self._skewed_ticks < _SKEW_TICKS

    def _fit(self, geometry: object) -> None:
        if not isinstance(geometry, dict):
            raise SettingsError(["fit needs a geometry"])
        if self._recordings.recording:
            raise SettingsError(["the camera cannot be fitted while it records; stop the recording first"])
        self._pictures.restart(Geometry(**geometry))

    def _take(self, portion: Portion, arrived_ns: int) -> None:
        if span_us(portion) is not None:  # more than what was refused
            self._silent_ticks = 0
            self._found_again()
        self._clock.observe(portion, arrived_ns)
        self._refused += portion.refused
        self._pictures.add(portion, arrived_ns)
        self._remembered.add(portion, arrived_ns)
        self._recordings.add(portion)
        if portion.triggers is not None:
            for signalled in portion.triggers:
                if signalled["type"] in _SIGNALS:
                    self._say({"is": "trigger", "camera_us": int(signalled["timestamp"])})

    def _gone(self, now_ns: int, why: Said) -> None:
        """The camera gives no more: its recording is over, or it was lost, which ``why`` tells the wearer."""
        assert self._source is not None
        source, self._source = self._source, None
        self._over = source.ended  # a source that is closed does not know
        source.close()
        if self._over:
            self._pictures.end(now_ns)
            self._recordings.stop()
            self._say({"is": "ended"})
            return
        again, self._lost = self._lost is not None, source
        self._recordings.stop("camera lost")
        self._remembered.forget()
        self._pictures.restart()
        self._clock, self._skewed_ticks = CameraClock(), 0
        if not again:
            self._say({"is": "lost"} | reason(CameraMissing(why)))

    def _tick(self, now_ns: int) -> None:
        self._ticks += 1
        if self._source is None and not self._over:
            self._look_for_camera()
        if self._source is None:
            return
        self._silent_ticks += 1
        if self._live and "frames" in self._source.info.streams and self._silent_ticks > _SILENT_TICKS:
            says = "the camera is there but gives nothing; unplug it and plug it in again, and it is found by itself"
            self._gone(now_ns, Said("camera.silent", says))
            return
        stepped = self._wall.stepped()
        if stepped:
            self._recordings.cut()
        known = self._clock.camera_us(now_ns) is not None
        if known and (stepped or self._ticks % _CLOCK_TICKS == 2):
            self._say({"is": "clock", **self._moment(now_ns), "stepped": stepped})
        skew_us = self._clock.skew_us
        apart = skew_us is not None and abs(skew_us) > _SKEW_US
        self._skewed_ticks = self._skewed_ticks + 1 if apart else 0
        if not self._in_sync:
            self._recordings.out_of_sync()
        self._recordings.tick()
        self._say(
            {"is": "rate"}
            | asdict(self._pictures.checks(now_ns))
            | {
                "dropped": self._refused + self._recordings.refused,
                "skew_us": skew_us,
                "in_sync": self._in_sync,
                "remembered_s": round(self._remembered.seconds(now_ns), 3),
                "remembered_bytes": self._remembered.bytes,
            }
        )

    def _look_for_camera(self) -> None:
        """Open the camera and say so, or once that it is not there; or open the same one again."""
        self._silent_ticks = 0
        if self._lost is not None:
            self._source = find_again(self._device, self._lost.info)
            return
        try:
            self._source = open_source(self._device)
        except CameraMissing as fault:
            if not self._missing:
                self._say({"is": "lost"} | reason(fault))
                print(fault, file=sys.stderr)  # the words of a camera that is not there name no path
            self._missing = True
            return
        self._missing = False
        rings = {"pairs": self._pictures.pairs.name, "preview": self._pictures.preview.name}
        self._say({"is": "ready", "camera": _described(self._source), "rings": rings})

    def _found_again(self) -> None:
        """The camera gives something: if it was lost, it is back now. That it could be opened would not say so."""
        if self._lost is not None and self._source is not None:
            self._lost, self._ticks = None, 0  # its clock is told soon, as at the start
            self._say({"is": "found", "camera": _described(self._source)})


def _described(source: CameraSource) -> dict[str, Any]:
    """What is said of a camera; its serial is nobody's business."""
    info = source.info
    return {"model": info.model, "streams": sorted(info.streams), "usb3": info.usb3}


def main() -> None:
    """Run until asked to quit, or until the parent has gone."""
    parser = argparse.ArgumentParser(description="The wearable's camera process; the main process starts it.")
    parser.add_argument("--device", required=True)
    parser.add_argument("--rings", required=True, metavar="PREFIX")
    parser.add_argument("--tmpfs", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--geometry", required=True, metavar="JSON")
    asked = parser.parse_args()
    say, waiting = begin(), commands()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    capture: Capture | None = None
    try:
        geometry = Geometry(**json.loads(asked.geometry))
        capture = Capture(asked.device, asked.rings, asked.tmpfs, geometry, say)
        signal.signal(signal.SIGTERM, lambda *_: waiting.put({"do": "quit"}))
        while not capture.quit:
            try:
                command = waiting.get_nowait()
            except queue.Empty:
                command = None
            if not capture.step(command) and command is None:
                time.sleep(_REST_S)
    except McoeError as fault:
        say({"is": "lost"} | reason(fault))
        print(for_log(fault), file=sys.stderr)
        sys.exit(fault.exit_code)
    finally:
        if capture is not None:
            capture.close()


if __name__ == "__main__":
    main()
