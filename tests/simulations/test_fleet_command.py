"""What the command behind `make fleet` does once its story is told; the story is in the integration tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

#: The command, whose story is told at once. When it ends it has a word to say.
COMMAND = """
import signal
from simulations import fleet_of_wearables as command

class Story:
    def __init__(self, settings, folder, display):
        self.folder = folder
    def run(self):
        (self.folder / "log").write_text("what happened")
    def end(self):
        assert (self.folder / "log").exists()
        print("ended", flush=True)

signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests in the background ignores it
command.Story, command.summary, command.lines = Story, lambda *_: {}, lambda _: ["told"]
command.app()
"""


def test_what_is_kept_stays_until_it_is_ended_and_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, "--keep"], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while (line := process.stdout.readline()) != "Everything runs; Ctrl-C ends it.\n":
            assert line
        assert process.poll() is None and len(list(tmp_path.iterdir())) == 1
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "ended\n" and process.wait() == 0
    assert list(tmp_path.iterdir()) == []
