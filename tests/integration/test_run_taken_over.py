"""A coordinator that is killed while clients train: the next one goes on in the same Flower run and asks nobody again.

Then the adapter alone, over a real SuperLink: runs that can and cannot be taken over, and replies that never end.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bare_link import Link
from flwr.app import Array, ArrayRecord, Message, MessageType, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supernode.fleet_http_connection import http_request_response
from real_fleet import Client, Process, Server, expected_models, make_base, make_data, wait_for

from mcoe_model.errors import ExitCode
from server.lock import hold
from server.superlink.messages import identify_process, is_lost
from server.superlink.run import Held, RunGrid
from server.under_way import UnderWay

CONTENT = b"many bytes" * 1_000_000  # two parts at least


def said(client: Client) -> str:
    assert client.process is not None
    return client.process.said()


def test_the_next_coordinator_goes_on_in_the_same_run_and_asks_nobody_again(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    server = Server(tmp_path / "server", make_base(data, tmp_path / "base.safetensors"))
    server.start("--min-clients", 2, "--pause-s", 600, "--deadline-s", 600, "--train", "head")
    clients = [Client(tmp_path / name, data, f"00{index + 1}", name) for index, name in enumerate(("first", "second"))]
    gate, held = tmp_path / "gate", server.folder / "runs" / "fleet.json"
    try:
        for client in clients:
            client.enrol(server)
            script = Path(__file__).parent / "waiting_client.py"
            log = tmp_path / f"{client.name}.log"
            client.process = Process(log, sys.executable, script, client.folder, gate)
        wait_for(lambda: [said(client).count("trained") for client in clients] == [1, 1], 120, "training")
        before, first = json.loads(held.read_text()), server.child("coordinator")
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: f"Flower run {before['run_id']} goes on" in server.log("coordinator"), 60, "the taking over")
        gate.touch()
        server.wait_for_round(1)

        assert server.child("coordinator") != first
        assert json.loads(held.read_text()) == before
        assert [said(client).count("asked") for client in clients] == [1, 1]
        row = server.published()[0]
        assert row.attempt == 1
        assert row.published_sha256 == expected_models(server.base, clients, tmp_path, 1)[0]
        assert before["token"] not in "".join(path.read_text() for path in server.folder.glob("logs/*"))
        assert stat.S_IMODE(held.stat().st_mode) == 0o600
    finally:
        for process in [*(client.process for client in clients), server.process]:
            if process is not None:
                process.end()
    assert not held.exists()  # a run that ended as it should


# -- the adapter over a real SuperLink ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    made = Link(tmp_path_factory.mktemp("link"))
    yield made
    made.process.end()


class Node:
    """A node that sends the parts of its reply when the test says so."""

    def __init__(self, connection: tuple) -> None:  # type: ignore[type-arg]
        self.id, self._receive, self._send, _, _, _, self._push, _ = connection

    def reply(self, content: bytes = CONTENT, *, arrays: int = 1, message: bool = True) -> list[str]:
        """Claim a message and announce its reply; the ids of the reply's parts, none of which was sent.

        Without ``message``, what is announced as the reply is no message.
        """
        given: list[Message] = []

        def asked() -> bool:
            found = self._receive()
            given.extend([found[0]] if found else [])
            return bool(given)

        wait_for(asked, 30, "the arrival of a message")
        server = (given[0].metadata.run_id, given[0].metadata.src_node_id)
        identify_process(run_id=server[0], node_id=self.id)
        array = Array(dtype="uint8", shape=(len(content),), stype="test", data=content)
        more = {f"more {n}": Array("uint8", (2,), "test", n.to_bytes(2, "little")) for n in range(arrays - 1)}
        reply = Message(RecordDict({"update": ArrayRecord({"tensors": array, **more})}), reply_to=given[0])
        root = reply if message else reply.content
        reply.metadata.__dict__["_message_id"] = root.object_id
        identify_process(run_id=server[0], node_id=server[1])
        self._run = server[0]
        self._parts = {name: part.deflate() for name, part in get_all_nested_objects(reply).items()}
        wanted, self._session = self._send(reply, get_object_tree(root), 0.0)
        return sorted(wanted)

    def push(self, part: str) -> None:
        self._push(self._run, self._session, part, self._parts[part])


@contextmanager
def nodes(link: Link) -> Iterator[tuple[Node, Node]]:
    def connect(name: str):  # type: ignore[no-untyped-def]
        keys = (link.keys[name], link.keys[name].public_key())
        return http_request_response(link.public, False, str(link.paths.certificates / "ca.crt"), keys)

    with connect("a") as a, connect("b") as b:
        yield Node(a), Node(b)


def ask(grid: RunGrid, node: Node) -> str:
    message = Message(RecordDict(), dst_node_id=node.id, message_type=MessageType.QUERY)
    (message_id,) = grid.push_messages([message])
    return str(message_id)


def arrive(grid: RunGrid, message_id: str) -> Message:
    """The reply, however often one has to look."""
    found: list[Message] = []

    def looked() -> bool:
        found.extend(grid.pull_messages([message_id]))
        return bool(found)

    wait_for(looked, 30, "a reply")
    return found[0]


def test_a_reply_whose_sender_died_while_sending_is_lost_and_holds_up_no_other(link: Link) -> None:
    with link.grid(stalled_s=3.0) as grid, nodes(link) as (a, b):
        asked_a, asked_b = ask(grid, a), ask(grid, b)
        for part in a.reply()[:-1]:
            a.push(part)
        for part in b.reply():
            b.push(part)
        assert grid.pull_messages([asked_a]) == []
        (whole,) = grid.pull_messages([asked_b])
        assert whole.content.array_records["update"]["tensors"].data == CONTENT
        lost = arrive(grid, asked_a)
        assert lost.has_error() and is_lost(lost.error)


def test_a_reply_that_comes_in_parts_is_given_once_it_is_whole(link: Link) -> None:
    with link.grid() as grid, nodes(link) as (a, _):
        asked = ask(grid, a)
        for part in a.reply():
            assert grid.pull_messages([asked]) == []
            a.push(part)
        assert arrive(grid, asked).content.array_records["update"]["tensors"].data == CONTENT


def test_a_reply_that_is_no_message_costs_its_sender_alone(link: Link) -> None:
    with link.grid() as grid, nodes(link) as (a, _):
        asked = ask(grid, a)
        for part in a.reply(message=False):
            a.push(part)
        reply = arrive(grid, asked)
        assert reply.has_error() and not is_lost(reply.error)


@pytest.mark.parametrize(
    ("content", "arrays", "reason"), [(CONTENT, 1, "larger than 6000000 bytes"), (b"few", 200, "too many")]
)
def test_the_rest_of_a_reply_that_never_ends_is_not_pulled_and_nothing_of_it_stays(
    link: Link, content: bytes, arrays: int, reason: str
) -> None:
    with link.grid(largest=6_000_000) as grid, nodes(link) as (a, b):
        asked_a, asked_b = ask(grid, a), ask(grid, b)
        parts = a.reply(content, arrays=arrays)
        assert link.kept(parts) == len(parts)
        for part in parts[: 1 if arrays > 1 else len(parts)]:
            a.push(part)
        refused = arrive(grid, asked_a)
        assert refused.has_error() and reason in refused.error.reason and not is_lost(refused.error)
        assert link.kept(parts) == 0
        a.push(parts[-1])  # it goes on sending
        assert link.kept(parts) == 0
        for part in b.reply(b"short"):
            b.push(part)
        assert arrive(grid, asked_b).content.array_records["update"]["tensors"].data == b"short"


def test_a_run_that_nobody_held_in_time_is_left_for_a_new_one_and_that_is_said_once(
    link: Link, caplog: pytest.LogCaptureFixture
) -> None:
    token = "0" * 64
    link.file.parent.mkdir(exist_ok=True)
    link.file.write_text(json.dumps({"run_id": 17, "task_id": 18, "node_id": 1, "token": token}))
    with caplog.at_level(logging.INFO, "mcoe"), link.grid() as grid:
        assert grid.run_id == json.loads(link.file.read_text())["run_id"] != 17
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    assert "Flower run 17 ended" in caplog.text and token not in caplog.text


def test_a_second_coordinator_of_one_experiment_is_refused(link: Link) -> None:
    with hold(link.paths.lock_of("fleet"), "a test runs"):
        command = [sys.executable, "-m", "server.children", "coordinator", str(link.paths.folder), "fleet"]
        second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == ExitCode.SERVER_RUNS
    assert "another coordinator runs fleet" in second.stderr and not link.file.exists()


def test_who_holds_a_run_is_not_printed() -> None:
    assert "secret" not in repr(Held(1, 2, 3, "secret"))


def test_messages_under_way_are_those_of_this_round_in_this_run(tmp_path: Path) -> None:
    file = tmp_path / "sent.json"
    first = UnderWay(file, 1, "round-1-1")
    first.update({"m": "a", "n": "b"})
    del first["m"]
    assert dict(UnderWay(file, 1, "round-1-1")) == {"n": "b"}
    assert dict(UnderWay(file, 2, "round-1-1")) == dict(UnderWay(file, 1, "round-1-2")) == {}
