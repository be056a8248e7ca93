"""Processes that end with the one that started them, also when that one was killed before they could look."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

#: A child that takes its time before it asks who its parent is, and a parent that dies meanwhile.
CHILD = """
import time
from mcoe_model.workers import end_with_parent
time.sleep({wait})
end_with_parent()
time.sleep(600)
"""
PARENT = """
import os, signal, subprocess, sys, time
from mcoe_model.workers import child_environment
print(subprocess.Popen([sys.executable, "-c", {child!r}], env=child_environment()).pid, flush=True)
time.sleep({lives})
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("wait", "lives"), [(1.0, 0.0), (0.0, 2.0)], ids=["killed before the look", "killed later"])
def test_a_child_ends_with_its_parent(wait: float, lives: float) -> None:
    code = PARENT.format(child=CHILD.format(wait=wait), lives=lives)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = Path("/proc", parent.stdout.readline().strip())
    ends = time.monotonic() + 120
    while child.exists():
        assert time.monotonic() < ends, "nobody would ever end it"
        time.sleep(0.05)
