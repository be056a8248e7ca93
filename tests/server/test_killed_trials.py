"""A server that is killed at any moment of a model's trial goes on with the same trial, and comes to the same end."""

from __future__ import annotations

import multiprocessing
import signal
from pathlib import Path

import pytest
from killed_trial import MOMENTS, play
from migrated import migrated_file

# Processes are forked from a server that never loaded the tests: clean, and quick to start.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["server.app", "server.rounds", "server.trials", "server.registry.database"])

GOOD, WORSE = "20 of 20, 18", "10 of 20, 18"


def run(folder: Path, moment: str | None, finds: str) -> int | None:
    migrated_file(folder / "registry.sqlite")
    process = CONTEXT.Process(target=play, args=(folder, moment, finds))
    process.start()
    process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What comes out when nobody kills the process, by what the clients find."""
    found = {}
    for finds in (GOOD, WORSE):
        folder = tmp_path_factory.mktemp("undisturbed")
        assert run(folder, None, finds) == 0
        found[finds] = (folder / "result").read_text()
    return found


def test_the_undisturbed_trials_end_as_they_should(undisturbed: dict[str, str]) -> None:
    assert "model released" in undisturbed[GOOD] and "model canary" in undisturbed[GOOD]
    assert "model held" in undisturbed[WORSE] and "canary" not in undisturbed[WORSE]


@pytest.mark.parametrize(
    ("moment", "finds"),
    [(moment, GOOD) for moment in MOMENTS] + [(moment, WORSE) for moment in ("heard all reports", "decided")],
)
def test_killed_and_started_again_ends_the_same(
    moment: str, finds: str, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    assert run(tmp_path, moment, finds) == -signal.SIGKILL
    assert not (tmp_path / "result").exists()
    assert run(tmp_path, None, finds) == 0
    assert (tmp_path / "result").read_text() == undisturbed[finds]
