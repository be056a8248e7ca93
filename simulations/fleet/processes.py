"""This project's programs as processes: run to their end or in the background, and awaited by what they bring about."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from mcoe_model.errors import McoeError

BIN = Path(sys.executable).parent
#: A folder that tells of no battery, temperature or network.
NO_SENSORS = Path(__file__).parent
#: How many times as long as alone anything may take on a machine that has other things to do.
BUSY = 3


class ProcessFailed(McoeError):
    """A program ended as it should not, or did not bring about in time what was awaited of it."""


def run(program: str, *arguments: object, fails: bool = False) -> subprocess.CompletedProcess[str]:
    """A command to its end. Raises ProcessFailed when it fails, unless that is expected."""
    command = [str(BIN / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUSY * 120, env=environment())
    if done.returncode != 0 and not fails:
        raise ProcessFailed(f"{' '.join(command)}: {done.stdout}{done.stderr}".strip())
    return done


def environment() -> dict[str, str]:
    """What programs find around them: no sensors, since this machine's battery is no wearable's."""
    return os.environ | {"PYTHONUNBUFFERED": "1", "MCOE_CLIENT_SYSTEM": str(NO_SENSORS)}


def wait_for(condition: Callable[[], bool], seconds: float, what: str, every_s: float = 0.2) -> None:
    """Look until the condition holds. ``seconds``: what that may take where nothing else runs. Raises ProcessFailed."""
    ends = time.monotonic() + BUSY * seconds
    while not condition():
        if time.monotonic() > ends:
            raise ProcessFailed(f"{what} did not happen within {BUSY * seconds:g} s")
        time.sleep(every_s)


def listens(port: int) -> bool:
    """Whether somebody listens at a port of this machine."""
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int, first: int = 10_000, last: int = 32_767) -> int:
    """The first of so many ports in a row that are free now. Linux hands out higher ones to whoever does not care."""
    while True:
        found = random.randrange(first, last + 1 - count)
        try:
            with ExitStack() as stack:
                for port in range(found, found + count):
                    stack.enter_context(closing(socket.socket())).bind(("127.0.0.1", port))
            return found
        except OSError:
            continue


class Process:
    """A program that runs in the background with its output in a file."""

    def __init__(self, log: Path, *command: object, cwd: Path | None = None) -> None:
        self.log = log
        self.command = [str(part) for part in command]
        self.cwd = cwd
        self.start()

    def start(self) -> None:
        """Start it, also again."""
        with self.log.open("ab") as output:
            self.popen = subprocess.Popen(
                self.command, stdout=output, stderr=output, cwd=self.cwd, env=environment()
            )

    def end(self, signal_number: int = signal.SIGTERM, seconds: float = 120) -> int:
        """Its exit code, once it has ended."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal_number)
        return self.popen.wait(BUSY * seconds)

    def said(self) -> str:
        """All of its output."""
        return self.log.read_text()
