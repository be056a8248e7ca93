"""Run a command and end it, with every process below it, when standard input is closed: `end_with_parent COMMAND`.

A parent that holds the other end of that pipe closes it when it is done, and the system does when the parent is killed.
Flower puts its processes into sessions of their own and Ray starts servers, so nothing else would end them then.
"""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys

import psutil

#: Seconds between two looks at which processes there are.
LOOK = 0.5
#: Seconds a process has to end by itself once it was asked to.
GRACE = 10.0


def main(command: list[str]) -> int:
    """Returns the command's exit status; a command that was ended has the negative number of the signal."""
    running = psutil.Popen(command, stdin=subprocess.DEVNULL)
    family: set[psutil.Process] = {running}
    while running.poll() is None and not select.select([sys.stdin], [], [], LOOK)[0]:
        with contextlib.suppress(psutil.NoSuchProcess):
            family.update(running.children(recursive=True))
    with contextlib.suppress(psutil.NoSuchProcess):
        family.update(running.children(recursive=True))
    _signal(family, "terminate")
    _, alive = psutil.wait_procs(family, timeout=GRACE)
    _signal(set(alive), "kill")
    psutil.wait_procs(alive)
    return int(running.wait())


def _signal(processes: set[psutil.Process], name: str) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            getattr(process, name)()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
