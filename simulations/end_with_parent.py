"""Run a command and end it, with every process below it, when standard input is closed: `end_with_parent COMMAND`.

A parent that holds the other end of that pipe closes it when it is done, and the system does when the parent is killed.
Flower puts its processes into sessions of their own and Ray starts servers, so nothing else would end them then.
Whoever loses its parent below this process becomes its child (`PR_SET_CHILD_SUBREAPER`, prctl(2)), however young it is.
"""

from __future__ import annotations

import ctypes
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

_PR_SET_CHILD_SUBREAPER = 36
#: Seconds between two looks at which processes there are.
LOOK = 0.5
#: Seconds that processes have to end by themselves once they were asked to.
GRACE = 5.0


def main(command: list[str]) -> int:
    """Returns the command's exit status, negative for a signal."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    running = psutil.Popen(command, stdin=subprocess.DEVNULL)
    keeper, family = psutil.Process(), {running}
    closed: list[object] = []
    while running.poll() is None and not closed:
        closed, _, _ = select.select([sys.stdin], [], [], LOOK)
        _collect(keeper, running)
    for ask in (psutil.Process.terminate, psutil.Process.kill):
        family.update(keeper.children(recursive=True))
        for process in _living(family):
            with suppress(psutil.NoSuchProcess):
                ask(process)
        deadline = time.monotonic() + GRACE
        while _living(family) and time.monotonic() < deadline:
            running.poll()
            time.sleep(0.05)
    return int(running.wait())


def _collect(keeper: psutil.Process, running: psutil.Process) -> None:
    """Take notice of the orphans that have ended, as the first process of a system does."""
    for process in keeper.children():
        if process.pid != running.pid:
            with suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)


def _living(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended. A zombie has: where nobody collects it, it would be there for ever."""
    living = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
    return living


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
