"""The wearable's process that recognises expressions: `python -m client.recognise [--ring NAME] [--model FILE]`.

It reads picture pairs from a ring that the camera's process writes and never holds that one up: they share memory and
no lock, and this process gives way (nice 5). Commands come as JSON lines on standard input, events leave on standard
output; the log is standard error. It ends with its input, or with the process that started it.

    {"do": "ring", "name": NAME}     the camera's process has begun anew; windows begin anew too
    {"do": "model", "file": FILE, "key": HEX}    exchange the model between two windows; the old one goes on while it is
                                     read, and for good when it is refused; the key opens one that was learned here
    {"do": "quit"}

    {"is": "ready"}
    {"is": "model", "name", "preset", "generation"}     this model recognises from now on
    {"is": "waiting", "for": "model" | "camera" | "pictures", "why"}     nothing is recognised
    {"is": "seen", "number", "emotion", "confidence", "probabilities", "latency_ms", "fps", "skipped", "model"}
                                     at most ten a second; probabilities in the order of EMOTIONS, latency from the
                                     arrival of the window's last event
    {"is": "refused", "do", "why"}
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue

import torch

from client.child_process import Say, begin
from client.live import Live, LiveModel, load_live_model
from client.ring import Arrived, PairRing
from mcoe_model.edge import SPAN, Recognition
from mcoe_model.errors import McoeError
from mcoe_model.workers import one_thread

#: Seconds between two looks into the ring, between two events of what is seen, without a picture until that is said,
#: and over which windows per second are counted.
LOOK_S = 0.001
SAY_S = 0.1
STILL_S = 1.0
RATE_S = 2.0

_WHY = {
    "model": "no model yet: enrol, or mcoe-client model import FILE",
    "camera": "no camera yet",
    "pictures": "no pictures come from the camera",
}


class Recognising:
    """The process's state and loop. ``say`` takes an event."""

    def __init__(self, say: Say, beside: Executor | None = None) -> None:
        self._say = say
        self._live = Live(beside)
        self._ring: PairRing | None = None
        self._last = -1
        self._said: float = 0.0
        self._came = time.monotonic()
        self._waits_for = ""
        self._times: deque[float] = deque()
        #: What the loop does between two windows; False ends it.
        self.orders: SimpleQueue[Callable[[], bool]] = SimpleQueue()

    def run(self) -> None:
        """Recognise until an order says to stop."""
        while True:
            try:
                if not self.orders.get(timeout=0 if self._look() else LOOK_S)():
                    return
            except Empty:
                pass

    def attach(self, name: str) -> bool:
        """Read another ring. One that is not there is refused, and the old one is read on."""
        try:
            ring = PairRing.attach(name)
        except McoeError as fault:
            return self.refuse("ring", str(fault))
        if self._ring is not None:
            self._ring.close()
        newest = ring.newest()
        # What is there already is history for the first window, which ends with the next pair.
        self._ring, self._last = ring, max(-1, newest.number - SPAN) if newest else -1
        self._came, self._waits_for = time.monotonic(), ""
        self._live.restart()
        return True

    def use(self, model: LiveModel) -> bool:
        """Recognise with this model from the next window on."""
        self._live.use(model)
        self._waits_for = ""
        said = {"name": model.name, "preset": model.generation.preset, "generation": model.generation.id}
        self._say({"is": "model", **said})
        return True

    def refuse(self, do: str, why: str) -> bool:
        """Say what is not done."""
        self._say({"is": "refused", "do": do, "why": why})
        return True

    def _look(self) -> bool:
        """Recognise what has come; whether anything had."""
        ring = self._ring
        pairs = ring.since(self._last)[0] if ring else []
        if ring is None or not pairs:
            self._tell_of_waiting()
            return False
        if pairs[-1].number - self._last > ring.slots:
            # The ring has gone round; and the first that are left end no window that is whole.
            self._live.skipped += pairs[0].number - self._last - 1 + min(len(pairs), SPAN)
        self._came, self._last = time.monotonic(), pairs[-1].number
        found = self._live.see(pairs)
        if found is not None:
            self._tell(found, pairs[-1])
            if not ring.since(self._last)[0]:
                self._live.prepare()
        return True

    def _tell(self, found: Recognition, pair: Arrived) -> None:
        now, latency_ns = time.monotonic(), time.monotonic_ns() - pair.arrived_ns
        self._waits_for = ""
        self._times.append(now)
        while now - self._times[0] > RATE_S:
            self._times.popleft()
        if now - self._said < SAY_S:
            return
        self._said = now
        assert self._live.model is not None
        self._say(
            {
                "is": "seen",
                "number": found.number,
                "emotion": found.emotion,
                "confidence": round(found.confidence, 4),
                "probabilities": [round(float(value), 4) for value in found.probabilities],
                "latency_ms": round(latency_ns / 1e6, 2),
                "fps": round(len(self._times) / RATE_S, 1),
                "skipped": self._live.skipped,
                "model": self._live.model.name,
            }
        )

    def _tell_of_waiting(self) -> None:
        waits_for = ""
        if self._live.model is None:
            waits_for = "model"
        elif self._ring is None:
            waits_for = "camera"
        elif time.monotonic() - self._came > STILL_S:
            waits_for = "pictures"
        if waits_for and waits_for != self._waits_for:
            self._say({"is": "waiting", "for": waits_for, "why": _WHY[waits_for]})
        self._waits_for = waits_for


class Models:
    """Reads model files in a thread of its own, so that recognition goes on meanwhile."""

    def __init__(self, recognising: Recognising) -> None:
        self._recognising = recognising
        self._files: SimpleQueue[tuple[Path, bytes | None]] = SimpleQueue()
        threading.Thread(target=self._run, name="models", daemon=True).start()

    def read(self, file: Path, key: bytes | None = None) -> None:
        """Read this one after those before; it is used, or refused, when that is done."""
        self._files.put((file, key))

    def _run(self) -> None:
        while True:
            self._recognising.orders.put(self._read(*self._files.get()))

    def _read(self, file: Path, key: bytes | None) -> Callable[[], bool]:
        try:
            model = load_live_model(file, key)
        except (McoeError, OSError) as fault:
            why = str(fault)
            return lambda: self._recognising.refuse("model", why)
        return lambda: self._recognising.use(model)


def hear(lines: Iterable[str], recognising: Recognising, models: Models) -> None:
    """Pass on the commands of a stream, until it ends."""
    for line in lines:
        try:
            command = json.loads(line)
            do = command["do"]
            if do == "model":
                models.read(Path(command["file"]), bytes.fromhex(command.get("key", "")) or None)
            elif do == "ring":
                recognising.orders.put(partial(recognising.attach, str(command["name"])))
            elif do == "quit":
                break
            else:
                recognising.orders.put(partial(recognising.refuse, str(do), "there is no such command"))
        except (ValueError, KeyError, TypeError):
            recognising.orders.put(partial(recognising.refuse, "", "a command could not be read"))
    recognising.orders.put(lambda: False)


def main() -> None:
    """Recognise until told to quit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ring")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--threads", type=int, choices=(1, 2), default=2)
    asked = parser.parse_args()
    one_thread()
    os.nice(5)
    say = begin()
    beside = ThreadPoolExecutor(1, "beside", torch.set_num_threads, (1,)) if asked.threads > 1 else None
    recognising = Recognising(say, beside)
    models = Models(recognising)
    say({"is": "ready"})
    if asked.model:
        models.read(asked.model)
    if asked.ring:
        recognising.attach(asked.ring)
    threading.Thread(target=hear, args=(sys.stdin, recognising, models), name="commands", daemon=True).start()
    recognising.run()


if __name__ == "__main__":
    main()
