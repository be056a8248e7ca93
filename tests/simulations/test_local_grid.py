"""The local grid: Flower's grid over one worker process or two, with the same bits from both."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

from mcoe_model.workers import spawn_pool
from simulations.local_grid import CLIENT_APP_RAISED, FIRST_NODE_ID, LocalGrid

#: Generous: the machine may be busy with other things.
PATIENCE_S = 180
NODES = [{"name": f"node {index}"} for index in range(5)]


@pytest.fixture(scope="module")
def one() -> Iterator[ProcessPoolExecutor]:
    with spawn_pool(1) as workers:
        yield workers


@pytest.fixture(scope="module")
def two() -> Iterator[ProcessPoolExecutor]:
    with spawn_pool(2) as workers:
        yield workers


@pytest.fixture(params=["one", "two"])
def workers(request: pytest.FixtureRequest) -> ProcessPoolExecutor:
    found: ProcessPoolExecutor = request.getfixturevalue(request.param)
    return found


def questions(grid: LocalGrid, kind: str = MessageType.TRAIN) -> list[Message]:
    """One message for every node."""
    weight, bias = np.arange(12, dtype=np.float32).reshape(3, 4), np.ones(1, np.float32)
    model = ArrayRecord({"weight": Array(weight), "bias": Array(bias)})
    content = {"model": model, "task": ConfigRecord({"factor": 0.1})}
    return [Message(RecordDict(content), dst_node_id=node, message_type=kind) for node in grid.get_node_ids()]


def ask(grid: LocalGrid, messages: Iterable[Message]) -> dict[int, Message]:
    """The replies by node, pulled as they come."""
    pending = list(grid.push_messages(messages))
    found: dict[int, Message] = {}
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < len(pending):
        assert time.monotonic() < deadline
        for message_id in pending:
            if message_id not in {reply.metadata.reply_to_message_id for reply in found.values()}:
                found |= {reply.metadata.src_node_id: reply for reply in grid.pull_messages([message_id])}
        time.sleep(0.002)
    return found


def test_every_node_answers_for_itself(workers: ProcessPoolExecutor) -> None:
    with closing(LocalGrid("echo_app:app", NODES, {"run": "configuration"}, workers)) as grid:
        messages = questions(grid, MessageType.QUERY)
        found = ask(grid, messages)
    assert sorted(found) == [FIRST_NODE_ID + index for index in range(5)]
    for message, (index, node) in zip(messages, enumerate(sorted(found)), strict=True):
        facts = found[node].content.config_records["facts"]
        assert (facts["node"], facts["name"], facts["run"]) == (node, f"node {index}", "configuration")
        assert found[node].metadata.reply_to_message_id == message.metadata.message_id


def test_sending_and_receiving_gives_the_replies_in_order(workers: ProcessPoolExecutor) -> None:
    with closing(LocalGrid("echo_app:app", NODES, {}, workers)) as grid:
        replies = list(grid.send_and_receive(questions(grid)))
    assert [reply.metadata.src_node_id for reply in replies] == [FIRST_NODE_ID + index for index in range(5)]


def test_workers_are_other_processes(workers: ProcessPoolExecutor) -> None:
    with closing(LocalGrid("echo_app:app", NODES, {}, workers)) as grid:
        replies = ask(grid, questions(grid, MessageType.QUERY)).values()
        places = {reply.content.config_records["facts"]["pid"] for reply in replies}
    assert os.getpid() not in places


def test_one_worker_and_two_give_the_same_bits(one: ProcessPoolExecutor, two: ProcessPoolExecutor) -> None:
    def bits(workers: ProcessPoolExecutor) -> dict[int, dict[str, bytes]]:
        with closing(LocalGrid("echo_app:app", NODES, {}, workers)) as grid:
            return {
                node: {name: array.numpy().tobytes() for name, array in reply.content.array_records["model"].items()}
                for node, reply in ask(grid, questions(grid)).items()
            }

    alone = bits(one)
    assert bits(two) == alone == bits(one)
    assert len({reply["weight"] for reply in alone.values()}) == 5


def test_no_file_of_a_message_is_left(two: ProcessPoolExecutor) -> None:
    with closing(LocalGrid("echo_app:app", NODES, {}, two)) as grid:
        ask(grid, questions(grid))
        folder = Path(grid.mail)
        assert list(folder.iterdir()) == []
    assert not folder.exists()


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        ("echo_app:app", "RuntimeError: this client broke"),
        ("echo_app:none", "AttributeError"),
        ("echo_app:no_app", "echo_app:no_app is not a ClientApp"),
        ("no_such_module:app", "ModuleNotFoundError"),
    ],
)
def test_an_exception_of_a_client_becomes_an_error_reply(
    app: str, reason: str, workers: ProcessPoolExecutor
) -> None:
    with closing(LocalGrid(app, [{"name": "raises"}, {"name": "sound"}], {}, workers)) as grid:
        broken, sound = list(grid.send_and_receive(questions(grid)))
    assert broken.has_error()
    assert broken.error.code == CLIENT_APP_RAISED
    assert reason in broken.error.reason
    assert broken.metadata.src_node_id == FIRST_NODE_ID
    assert sound.has_content() == (app == "echo_app:app")


def test_a_client_that_exits_does_not_end_the_process(workers: ProcessPoolExecutor) -> None:
    with closing(LocalGrid("echo_app:app", [{"name": "exits"}, {"name": "sound"}], {}, workers)) as grid:
        broken, sound = list(grid.send_and_receive(questions(grid)))
    assert broken.has_error() and "SystemExit" in broken.error.reason
    assert sound.has_content()


def test_nothing_is_pulled_before_it_is_there(one: ProcessPoolExecutor, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with closing(LocalGrid("echo_app:app", NODES[:1], {"gate": str(gate)}, one)) as grid:
        ids = list(grid.push_messages(questions(grid)))
        assert list(grid.pull_messages(ids)) == []
        gate.touch()
        deadline = time.monotonic() + PATIENCE_S
        while not (found := list(grid.pull_messages(ids))):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert len(found) == 1


def run_script(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own, which finds the app beside this file."""
    path = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    command = [sys.executable, "-c", path + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)


STOPPED = """
import sys, time
from contextlib import closing
from pathlib import Path
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from mcoe_model.workers import spawn_pool
from simulations.local_grid import LocalGrid

if __name__ == "__main__":
    nodes = [{"name": str(i)} for i in range(40)]
    folder = Path(sys.argv[1])
    with spawn_pool(1) as pool, closing(LocalGrid("echo_app:app", nodes, {"begun": sys.argv[1]}, pool)) as grid:
        content = RecordDict({"model": ArrayRecord(), "task": ConfigRecord({"factor": 1.0})})
        grid.push_messages([Message(content, dst_node_id=node, message_type="train") for node in grid.get_node_ids()])
        while not list(folder.iterdir()):
            time.sleep(0.01)
        raise KeyboardInterrupt
"""


def test_a_run_that_is_stopped_ends_without_asking_the_others(tmp_path: Path) -> None:
    """40 clients of half a second wait when Ctrl-C comes; at most those that a worker has taken are waited for."""
    begun = tmp_path / "begun"
    begun.mkdir()
    done = run_script(STOPPED, str(begun))
    assert "KeyboardInterrupt" in done.stderr
    assert 1 <= len(list(begun.iterdir())) < 20


SHARED = """
import resource, time
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from mcoe_model.workers import spawn_pool
from simulations.local_grid import LocalGrid

if __name__ == "__main__":
    with spawn_pool(1) as pool:
        grid = LocalGrid("echo_app:app", [{"name": str(i)} for i in range(30)], {}, pool)
        model = ArrayRecord({"weight": Array(np.zeros(1_250_000, np.float32))})
        content = {"model": model, "task": ConfigRecord({"factor": 1.0})}
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ids = grid.push_messages(
            [Message(RecordDict(content), dst_node_id=node, message_type="query") for node in grid.get_node_ids()]
        )
        for message_id in ids:
            while not grid.pull_messages([message_id]):
                time.sleep(0.002)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_messages_that_wait_for_a_worker_take_no_memory() -> None:
    """30 messages of 5 MB, of which a worker takes two or three ahead; each is copied a few times on its way."""
    done = run_script(SHARED)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 90
