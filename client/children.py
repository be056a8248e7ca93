"""A child of the main process: started, listened to, and started again when it ends, after a pause that grows.

A child reads commands as lines of JSON from its standard input and writes what happens to its standard output; its
standard error is its log. It may end at any moment, however: whoever owns it is told, and what it said last counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mcoe_model.errors import McoeError

#: Seconds before a child is started again, by how often it ended soon after its start.
BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
#: A child that ran for this long had a good start.
GOOD_START_S = 60.0
#: Seconds that a child has to end by itself, and then after SIGTERM; after that it is killed.
GRACE_S, TERM_S = 3.0, 1.5
#: A log is begun anew when it is larger than this, and the old one kept beside it.
LOG_BYTES = 10 << 20
#: Bytes of the longest line that a child may write.
_LINE_BYTES = 1 << 20

log = logging.getLogger("mcoe")


def open_log(file: Path) -> BinaryIO:
    """A child's log, to be written on; a large one is put aside first, in place of the last one that was."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and file.stat().st_size > LOG_BYTES:
        os.replace(file, file.with_suffix(".log.old"))
    return file.open("ab")


class Child:
    """`python -m MODULE ARGUMENTS`, kept running by `run`.

    ``heard`` is given every event, ``gone`` is called when the process has ended, before it is started again; both in
    the event loop. ``arguments`` is asked at every start; None: not now, it is asked again until it answers. ``greet``
    gives the first command.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Callable[[], Sequence[str] | None],
        log_file: Path,
        *,
        heard: Callable[[dict[str, Any]], None] = lambda event: None,
        gone: Callable[[], None] = lambda: None,
        greet: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self.name = name
        self._module = module
        self._arguments = arguments
        self._heard = heard
        self._gone = gone
        self._greet = greet
        self._log_file = log_file
        self._process: asyncio.subprocess.Process | None = None
        self._ending = asyncio.Event()
        self._killed = False  # since its arguments were asked for
        self.last_code: int | None = None  # with which it ended last
        self.failed: tuple[float, int] | None = None  # when (monotonic) and with which code it last ended by itself

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return self._process.pid if self._process is not None else None

    def say(self, command: dict[str, Any]) -> bool:
        """Give the process a command; False when there is none that could hear it."""
        process = self._process
        if process is None or process.stdin is None or process.stdin.is_closing():
            return False
        process.stdin.write(json.dumps(command).encode() + b"\n")
        return True

    async def run(self) -> None:
        """Until `end`."""
        failures = 0
        while not self._ending.is_set():
            self._killed = False
            arguments = self._arguments()
            if arguments is None:
                await self._rest(BACKOFF_S[0])
                continue
            started = asyncio.get_running_loop().time()
            code = self.last_code = await self._once(arguments)
            if self._ending.is_set():
                return
            if self._killed:
                log.info("%s was stopped; it starts again when it is wanted", self.name)
                failures = 0
                await self._rest(BACKOFF_S[0])
                continue
            ended = asyncio.get_running_loop().time()
            if code:
                self.failed = ended, code
            long_enough = ended - started > GOOD_START_S
            failures = 1 if long_enough else failures + 1
            pause = BACKOFF_S[min(failures, len(BACKOFF_S)) - 1]
            log.warning("%s ended with code %d; it starts again in %.1f s", self.name, code, pause)
            await self._rest(pause)

    async def end(self) -> None:
        """End the process and start it no more. Returns within `GRACE_S` and `TERM_S`."""
        self._ending.set()
        process = self._process
        if process is None:
            return
        self.say({"do": "quit"})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), GRACE_S)
            return
        with contextlib.suppress(TimeoutError, ProcessLookupError):
            process.terminate()
            await asyncio.wait_for(process.wait(), TERM_S)
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()

    def kill(self) -> None:
        """End the process at once, or as soon as it is made; `run` starts it again when its arguments still say so."""
        self._killed = True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _once(self, arguments: Sequence[str]) -> int:
        """One process from its start to its end; its exit code."""
        with open_log(self._log_file) as output:
            # A session of its own: Ctrl-C reaches the main process alone, which then ends its children in order.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", self._module, *arguments,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=output,
                limit=_LINE_BYTES, start_new_session=True,
            )  # fmt: skip
        process = self._process
        log.info("%s runs as process %d", self.name, process.pid)
        try:
            if not self._ending.is_set() and not self._killed:
                if self._greet is not None:
                    self.say(self._greet())
                await self._listen(process)
                return await process.wait()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            return await process.wait()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            self._process = None
            self._gone()

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Hand on every event until the process closes its output. One that says what it should not is ended."""
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                self._heard(_event(line))
        except (McoeError, ValueError, KeyError, TypeError) as fault:
            log.warning("%s said what cannot be (%s); it is ended", self.name, type(fault).__name__)
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), seconds)


def _event(line: bytes) -> dict[str, Any]:
    """Raises ValueError for what is no JSON object with an ``is``."""
    event = json.loads(line)
    if not isinstance(event, dict) or not isinstance(event.get("is"), str):
        raise ValueError("no event")
    return event
