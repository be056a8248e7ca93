"""Keeps the server's processes running: each is started again when it ends, after a pause that grows.

SIGTERM or Ctrl-C ends them all within ten seconds. Their output goes to one log file each, which is cut at a start when
it has grown large.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mcoe_model.workers import child_environment
from server.paths import ServerPaths
from server.superlink import QUIET

#: Seconds before a child is started again, by how often it ended soon after its start.
BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
#: A child that ran for this long had a good start.
GOOD_START_S = 60.0
#: Seconds that a child has to end; then it is killed. What was accepted is on disk either way.
GRACE_S = 3.0
#: A log file is begun anew when it is larger than this, and the old one kept beside it.
LOG_BYTES = 10 << 20


@dataclass(frozen=True)
class ChildSpec:
    """A process of the server: its name, and what `server.children` is told of it besides the data folder."""

    name: str
    kind: str
    arguments: tuple[str, ...] = ()


def children_of(experiments: Sequence[str], *, dashboard: bool) -> list[ChildSpec]:
    """The processes of a server with these experiments, in the order in which they are started."""
    only = len(experiments) == 1
    coordinators = (
        ChildSpec("coordinator" if only else f"coordinator-{name}", "coordinator", (name,)) for name in experiments
    )
    last = [ChildSpec("dashboard", "dashboard")] if dashboard else []
    return [ChildSpec("superlink", "superlink"), *coordinators, *last]


@dataclass
class _Child:
    spec: ChildSpec
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    start_at: float = field(default_factory=time.monotonic)


class Supervisor:
    """The children of one data folder. ``say`` is told when one was started or ended by itself."""

    def __init__(self, paths: ServerPaths, children: Sequence[ChildSpec], say: Callable[[str], None]) -> None:
        self._paths = paths
        self._say = say
        self._children = [_Child(spec) for spec in children]
        self._stopped = threading.Event()

    def run(self) -> None:
        """Until SIGTERM or SIGINT, which only the main thread can take."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopped.set())
        try:
            while not self._stopped.wait(0.1):
                for child in self._children:
                    self._keep(child)
        finally:
            self._end()

    def _keep(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process is not None:
            code = child.process.poll()
            if code is None:
                return
            child.failures = 1 if now - child.started > GOOD_START_S else child.failures + 1
            pause = BACKOFF_S[min(child.failures, len(BACKOFF_S)) - 1]
            child.process, child.start_at = None, now + pause
            self._say(f"{child.spec.name} ended with code {code}; it starts again in {pause:.0f} s "
                      f"(see {self._log(child.spec)})")
        if now >= child.start_at:
            child.process, child.started = self._start(child.spec), now
            self._say(f"{child.spec.name} runs as process {child.process.pid}")

    def _start(self, spec: ChildSpec) -> subprocess.Popen[bytes]:
        log = self._log(spec)
        log.parent.mkdir(exist_ok=True)
        if log.exists() and log.stat().st_size > LOG_BYTES:
            os.replace(log, log.with_suffix(".log.old"))
        environment = child_environment() | QUIET | {"FLWR_HOME": str(self._paths.folder / "flower")}
        command = [sys.executable, "-m", "server.children", spec.kind, str(self._paths.folder), *spec.arguments]
        with log.open("ab") as output:
            return subprocess.Popen(command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL)

    def _log(self, spec: ChildSpec) -> Path:
        return self._paths.logs / f"{spec.name}.log"

    def _end(self) -> None:
        """The SuperLink ends last: meanwhile the coordinator ends its run there."""
        by_name = {child.spec.name: child.process for child in self._children if child.process is not None}
        last = by_name.pop("superlink", None)
        for group in (list(by_name.values()), [last] if last else []):
            for process in group:
                process.send_signal(signal.SIGTERM)
            ends = time.monotonic() + GRACE_S
            for process in group:
                try:
                    process.wait(max(0.0, ends - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
