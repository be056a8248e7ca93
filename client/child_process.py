"""What every child of the wearable's main process begins with: its lines in and out, and nothing of it on a disk."""

from __future__ import annotations

import ctypes
import json
import os
import queue
import resource
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from mcoe_model.workers import end_with_parent

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4

Say = Callable[[dict[str, Any]], None]


def begin() -> Say:
    """End with the parent, leave no core dump, and return what says an event, one line of JSON, to the parent."""
    end_with_parent()
    no_core_dump()
    out = apart_from_prints()

    def say(event: dict[str, Any]) -> None:
        out.write(json.dumps(event, allow_nan=False).encode() + b"\n")
        out.flush()

    return say


def apart_from_prints() -> BinaryIO:
    """Standard output for the parent alone: what libraries print goes to standard error, the log, from now on."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return out


def no_core_dump() -> None:
    """A process that aborts must not write what it has in memory to a disk: pictures, keys. See core(5), prctl(2)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # a core pattern that is a program ignores the limit


def killed_with_parent() -> None:
    """The kernel kills this process when the thread that started it ends: also while it stands still. See prctl(2)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def commands() -> queue.SimpleQueue[dict[str, Any]]:
    """The parent's commands as they come; ``{"do": "quit"}`` when it closes its end. What is no object is dropped."""
    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            try:
                command = json.loads(line)
            except ValueError:
                continue
            if isinstance(command, dict):
                waiting.put(command)
        waiting.put({"do": "quit"})

    threading.Thread(target=listen, daemon=True).start()
    return waiting
