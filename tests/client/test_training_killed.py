"""A client that is killed in a round, or loses power, answers the next question with the same update, trained once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from killed_training import DEADLY, KEY, MOMENTS, answer, live_until

from client.outbox import Outbox


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the update that a client makes which nobody kills."""
    return answer(tmp_path_factory.mktemp("undisturbed"))[0]


@pytest.mark.parametrize("number", DEADLY)
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_it_sends_the_same_update(
    moment: str, number: int, undisturbed: str, tmp_path: Path
) -> None:
    child = os.fork()  # not started afresh: imports take longer than all the rest
    if not child:
        try:
            live_until(tmp_path, moment, number)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -number
    kept = moment == "when it is kept"
    assert len(Outbox(tmp_path, KEY).ids()) == kept
    assert answer(tmp_path) == (undisturbed, 0 if kept else 1)
    assert answer(tmp_path) == (undisturbed, 0), "a task that is asked twice is learned once"
    assert len(Outbox(tmp_path, KEY).ids()) == 1


def test_an_update_that_a_power_cut_spoilt_is_trained_again_to_the_same_bits(undisturbed: str, tmp_path: Path) -> None:
    answer(tmp_path)
    [file] = tmp_path.glob("*.sealed")
    file.write_bytes(file.read_bytes()[:-100])
    assert answer(tmp_path) == (undisturbed, 1)
    assert answer(tmp_path) == (undisturbed, 0)
