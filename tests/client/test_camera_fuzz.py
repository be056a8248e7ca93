"""Damaged recordings: data, a refusal in one line, or the end of the process that read them, never anything else.

dv-processing may abort, or go round in circles for ever, in a damaged file. So a process of its own reads each.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import dv_processing as dv
import pytest
from toy_recordings import CONFIG, write_recording

from mcoe_model.data.geometry import SENSOR

#: Reads a list of recordings one after the other, and says what became of each in a line of JSON.
READER = """
import json, sys
from pathlib import Path
import numpy as np
import client.cameras.intake as intake
from client.cameras.recording import Recording
from mcoe_model.errors import McoeError
intake.STUCK_S = 3.0
for path in sys.argv[1:]:
    try:
        camera = Recording(Path(path), pace=None)
    except McoeError as fault:
        print(json.dumps({"refused": str(fault)}), flush=True)
        continue
    events, left_out, last = 0, 0, -1
    while camera.running():
        portion = camera.read()
        if portion is None:
            continue
        left_out += portion.refused
        for frame in portion.frames:
            assert frame.image.shape == (260, 346) and frame.image.dtype == np.uint8
        if portion.events is not None:
            found = portion.events.numpy()
            assert found["timestamp"][0] >= last and (np.diff(found["timestamp"]) >= 0).all()
            assert (found["x"] >= 0).all() and (found["x"] < 346).all()
            assert (found["y"] >= 0).all() and (found["y"] < 260).all()
            events, last = events + len(found), int(found["timestamp"][-1])
    print(json.dumps({"events": events, "left_out": left_out}), flush=True)
"""
#: How a process may end that dv-processing brings down: aborted, a bad access, or stuck.
DEATHS = {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGALRM, -signal.SIGFPE}


def outcomes(paths: list[Path]) -> list[dict[str, object]]:
    """What became of each recording; reading goes on in a new process after one that died."""
    found: list[dict[str, object]] = []
    while len(found) < len(paths):
        rest = [str(path) for path in paths[len(found) :]]
        ended = subprocess.run([sys.executable, "-c", READER, *rest], capture_output=True, text=True, timeout=300)
        found += [json.loads(line) for line in ended.stdout.splitlines()]
        if ended.returncode:
            assert ended.returncode in DEATHS, ended.stderr
            found.append({"died": signal.Signals(-ended.returncode).name})
    return found


@pytest.mark.parametrize("compression", ["LZ4", "NONE"])
def test_whatever_bytes_are_wrong_the_outcome_is_clean(tmp_path: Path, compression: str) -> None:
    whole = tmp_path / "whole.aedat4"
    config = CONFIG("DAVIS346_1", SENSOR, getattr(dv.CompressionType, compression))
    events = len(write_recording(whole, per_packet=100, config=config))
    content, g = whole.read_bytes(), random.Random(compression)
    paths = [whole]
    for number in range(14):
        damaged = bytearray(content)
        # Of header, data and table of contents, each is small in its way: aim at all of them.
        start, stop = g.choice([(0, 1500), (0, len(content)), (len(content) - 5000, len(content))])
        for _ in range(g.choice([1, 4, 32])):
            damaged[g.randrange(start, stop)] = g.randrange(256)
        if number % 5 == 4:
            damaged = damaged[: g.randrange(len(damaged))]
        paths.append(tmp_path / f"{number}.aedat4")
        paths[-1].write_bytes(damaged)
    found = outcomes(paths)
    assert found[0] == {"events": events, "left_out": 0}
    for outcome in found:
        if "refused" in outcome:
            text = str(outcome["refused"])
            assert "\n" not in text and "hpp" not in text
        elif "died" not in outcome:
            assert isinstance(outcome["events"], int) and 0 <= outcome["events"] <= events
    kinds = {kind for outcome in found for kind in outcome}
    assert {"events", "refused"} <= kinds


def test_a_packet_in_which_the_reader_goes_round_in_circles_ends_the_process() -> None:
    """Nothing else could: dv-processing holds Python's lock meanwhile."""
    code = (
        "import ctypes, client.cameras.intake as intake\n"
        "with intake.ended_if_stuck(0.5):\n"
        "    ctypes.PyDLL(None).sleep(600)\n"  # PyDLL holds the lock
    )
    ended = subprocess.run([sys.executable, "-c", code], timeout=300)
    assert ended.returncode == -signal.SIGALRM
