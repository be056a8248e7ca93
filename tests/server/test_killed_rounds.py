"""A server that is killed at any moment goes on with the same round and ends with the same bits."""

from __future__ import annotations

import multiprocessing
import signal
from pathlib import Path

import pytest
from killed_round import MOMENTS, MOMENTS_OF_OPTIMISER, play
from migrated import migrated_file

from server.aggregation.optimiser import OptimiserName

# Processes are forked from a server that never loaded the tests: clean, and quick to start.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["server.app", "server.rounds", "server.registry.database"])


def run(folder: Path, moment: str | None, optimiser: OptimiserName = "none") -> int | None:
    migrated_file(folder / "registry.sqlite")
    process = CONTEXT.Process(target=play, args=(folder, moment, optimiser))
    process.start()
    process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What comes out of a process that nobody kills."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run(folder, None) == 0
    return (folder / "result").read_text()


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed_ends_with_the_same_bits(moment: str, undisturbed: str, tmp_path: Path) -> None:
    assert run(tmp_path, moment) == -signal.SIGKILL
    assert not (tmp_path / "result").exists()
    assert run(tmp_path, None) == 0
    assert (tmp_path / "result").read_text() == undisturbed
    assert list((tmp_path / "spool").glob("round-*")) == []


def test_killed_again_and_again_ends_with_the_same_bits(undisturbed: str, tmp_path: Path) -> None:
    for moment in ("opened", "between update and row", "while aggregating", "between artifact and row"):
        assert run(tmp_path, moment) == -signal.SIGKILL
    assert run(tmp_path, None) == 0
    assert (tmp_path / "result").read_text() == undisturbed


@pytest.fixture(scope="module")
def undisturbed_optimiser(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What comes out where the server has an optimiser and nobody kills it."""
    folder = tmp_path_factory.mktemp("undisturbed-optimiser")
    assert run(folder, None, "fedadam") == 0
    return (folder / "result").read_text()


@pytest.mark.parametrize("moment", MOMENTS_OF_OPTIMISER)
def test_moments_survive_a_kill(moment: str, undisturbed_optimiser: str, tmp_path: Path) -> None:
    assert run(tmp_path, moment, "fedadam") == -signal.SIGKILL
    assert run(tmp_path, None, "fedadam") == 0
    assert (tmp_path / "result").read_text() == undisturbed_optimiser
