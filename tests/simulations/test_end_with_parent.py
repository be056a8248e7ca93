"""The keeper ends a whole tree of processes when the pipe to it closes, detached ones too, and not before."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

#: Generous: the machine may be busy with other things.
PATIENCE_S = 120
#: Starts a process in a session of its own, writes both process ids and waits for a file.
TREE = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import signal, time; SIGNAL; time.sleep(600)"], start_new_session=True)
partial = pathlib.Path(sys.argv[1] + ".partial")
partial.write_text(f"{os.getpid()} {child.pid}")
partial.rename(sys.argv[1])
while not pathlib.Path(sys.argv[1] + ".over").exists():
    time.sleep(0.02)
"""
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


def keep(path: Path, signal: str = "pass") -> tuple[subprocess.Popen[bytes], list[psutil.Process]]:
    code = TREE.replace("SIGNAL", signal)
    command = [sys.executable, "-m", "simulations.end_with_parent", sys.executable, "-c", code, str(path)]
    keeper = subprocess.Popen(command, stdin=subprocess.PIPE)
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < deadline and keeper.poll() is None
        time.sleep(0.02)
    return keeper, [psutil.Process(int(pid)) for pid in path.read_text().split()]


def ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("signal", ["pass", DEAF], ids=["obedient", "deaf"])
def test_closing_the_pipe_ends_the_whole_tree(tmp_path, signal):
    keeper, tree = keep(tmp_path / "pids", signal)
    time.sleep(1.5)
    assert keeper.poll() is None and not any(map(ended, tree))
    keeper.stdin.close()
    assert keeper.wait(timeout=PATIENCE_S) != 0
    assert all(map(ended, tree))


def test_a_command_that_ends_by_itself_takes_its_orphans_along(tmp_path):
    keeper, tree = keep(tmp_path / "pids")
    (tmp_path / "pids.over").touch()
    assert keeper.wait(timeout=PATIENCE_S) == 0
    assert all(map(ended, tree))
