"""The capture process, run for real, as the main process runs it."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from client.ring import PairRing, unlink_rings
from mcoe_model.data.geometry import Geometry

#: Generous: the machine may be busy with other things.
PATIENCE_S = 180.0


class CaptureProcess:
    """Commands to it, and its events in the order in which they came."""

    def __init__(self, device: str, folder: Path, prefix: str) -> None:
        arguments = ["--device", device, "--rings", prefix, "--tmpfs", str(folder)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "client.capture", *arguments, "--geometry", json.dumps(asdict(Geometry()))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.heard: list[dict[str, Any]] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def say(self, do: str, **more: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self.process.stdin.flush()

    def wait_for(self, what: str, fits: Callable[[dict[str, Any]], bool] = lambda event: True) -> dict[str, Any]:
        """The next event of this kind that fits, of those that come from now on."""
        until = time.monotonic() + PATIENCE_S
        while True:
            event = self._next(until)
            if event is None:
                assert self.process.stderr is not None
                raise AssertionError(f"no {what}; {self.heard[-3:]}; {self.process.stderr.read()}")
            if event["is"] == what and fits(event):
                return event

    def all(self, what: str) -> list[dict[str, Any]]:
        """Those of this kind that were heard so far."""
        return [event for event in self.heard if event["is"] == what]

    def end(self) -> int:
        """Ask it to quit; its exit code, after all that it said is heard."""
        self.say("quit")
        return self.ended()

    def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        code = self.process.wait(PATIENCE_S)
        while self._next(time.monotonic() + PATIENCE_S) is not None:
            pass
        return code

    def ring(self, which: str = "pairs") -> PairRing:
        """What `ready` named."""
        (ready,) = self.all("ready")
        return PairRing.attach(ready["rings"][which])

    def _next(self, until: float) -> dict[str, Any] | None:
        line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
        if line is None:
            self._lines.put(None)
            return None
        event: dict[str, Any] = json.loads(line)
        self.heard.append(event)
        return event

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)


@contextmanager
def capturing(device: str, folder: Path) -> Iterator[CaptureProcess]:
    """A capture process, which is killed if it has not ended when the test has."""
    prefix = f"mcoe-test-{os.getpid()}-"
    capture = CaptureProcess(device, folder, prefix)
    try:
        yield capture
    finally:
        capture.process.kill()
        capture.process.wait()
        for pipe in (capture.process.stdin, capture.process.stdout, capture.process.stderr):
            assert pipe is not None
            pipe.close()
        unlink_rings(prefix)


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    until = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.02)
