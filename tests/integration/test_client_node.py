"""A wearable's node over a real SuperLink: messages that never come whole, tasks that come before their message."""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bare_link import Link
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flwr.app import Array, ArrayRecord, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.superlink.grid import http_grid
from real_fleet import Process, wait_for

from client.node import Connection, Node
from client.outbox import Outbox
from client.radio import Radio
from client.supernode import SteadyHeartbeat
from client.told import ToldFile
from server.superlink.run import RunGrid

CLIENT = """
import signal, sys, threading
from pathlib import Path

from flwr.app import ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from client.node import Connection, Node

stopped, app = threading.Event(), ClientApp()

@app.query()
def answer(message, context):
    print("answered")
    return Message(RecordDict({"said": message.content["said"]}), reply_to=message)

signal.signal(signal.SIGTERM, lambda *_: stopped.set())
folder = Path(sys.argv[3])
Node(Connection(sys.argv[1], Path(sys.argv[2]), folder / "key", folder), app, stopped).run()
"""


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    made = Link(tmp_path_factory.mktemp("link"))
    yield made
    made.process.end()


@contextmanager
def node(link: Link, folder: Path, *paths: Path) -> Iterator[Process]:
    """A node that answers with what it was told. ``paths``: where it finds further modules."""
    key = link.keys["a"].private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    (folder / "key").write_bytes(key)
    authority = link.paths.certificates / "ca.crt"
    with pytest.MonkeyPatch.context() as patch:
        for path in paths:
            patch.setenv("PYTHONPATH", str(path), prepend=os.pathsep)
        process = Process(folder / "node.log", sys.executable, "-c", CLIENT, link.public, authority, folder)
    try:
        yield process
    finally:
        process.end()


def send(grid: RunGrid, node: int, said: bytes) -> str:
    array = Array(dtype="uint8", shape=(len(said),), stype="test", data=said)
    content = RecordDict({"said": ArrayRecord({"bytes": array})})
    (message_id,) = grid.push_messages([Message(content, dst_node_id=node, message_type=MessageType.QUERY)])
    return str(message_id)


def answer(grid: RunGrid, message_id: str, seconds: float) -> bytes:
    found: list[Message] = []

    def looked() -> bool:
        found.extend(grid.pull_messages([message_id]))
        return bool(found)

    wait_for(looked, seconds, "an answer")
    assert found[0].has_content(), found[0].error
    return bytes(found[0].content.array_records["said"]["bytes"].data)


def online(grid: RunGrid) -> int:
    wait_for(lambda: len(list(grid.get_node_ids())) == 1, 60, "the node")
    (found,) = grid.get_node_ids()
    return found


def test_a_message_whose_sender_was_killed_while_it_sent_holds_up_no_other(
    link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise Killed

    with node(link, tmp_path), link.grid() as grid:
        there = online(grid)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(http_grid, "push_objects", die)
            send(grid, there, b"half of it")
        for said in (b"first", b"second", b"third"):
            assert answer(grid, send(grid, there, said), seconds=120) == said


def test_a_task_that_is_there_before_its_message_is_answered(link: Link, tmp_path: Path) -> None:
    with node(link, tmp_path, Path(__file__).parent / "slow"), link.grid() as grid:
        there = online(grid)
        for said in (b"first", b"second"):
            assert answer(grid, send(grid, there, said), seconds=120) == said


def test_a_message_whose_run_ends_before_it_is_confirmed_holds_up_none_of_the_next_run(
    link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCOE_RUN_ENDED", str(tmp_path))
    with node(link, tmp_path, Path(__file__).parent / "ended") as process:
        with link.grid() as grid:
            send(grid, online(grid), b"of a run that ends")
            wait_for(lambda: "answered" in process.said(), 60, "the executor's answer")
        (tmp_path / "ended").touch()
        with link.grid() as grid:
            there = online(grid)
            for said in (b"first", b"second"):  # each waits for the answer: nothing else would push it
                assert answer(grid, send(grid, there, said), seconds=30) == said


def test_heartbeats_go_on_whatever_is_answered_to_one() -> None:
    beats, beaten = itertools.count(), threading.Event()

    def beat() -> bool:
        if next(beats) == 0:
            raise RuntimeError("the server does not know this node")
        beaten.set()
        return True

    heartbeat = SteadyHeartbeat(beat)
    heartbeat.start()
    assert beaten.wait(30) and heartbeat.is_running
    heartbeat.stop()


def test_a_gate_that_closes_ends_the_attempt_to_reach_a_server_that_does_not_answer(
    link: Link, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mcoe")
    (tmp_path / "key").write_bytes(link.keys["a"].private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    closed, stopped = ["a recording runs"], threading.Event()
    radio = Radio(ToldFile(tmp_path / "told.json"), Outbox(tmp_path / "outbox", bytes(32)), lambda: closed)
    nowhere = Connection("127.0.0.1:1", link.paths.certificates / "ca.crt", tmp_path / "key", tmp_path)

    def started() -> list[int]:
        return [one.args[0] for one in caplog.records if one.msg.startswith("SuperNode started")]

    def sleeps() -> int:
        return sum(one.getMessage().startswith("not reached; again in") for one in caplog.records)

    runs = threading.Thread(target=Node(nowhere, ClientApp(), stopped, radio=radio).run)
    runs.start()
    try:
        wait_for(lambda: sleeps() == 1, 60, "a wearable that waits")
        assert not started(), "nothing is tried before the gate opens"
        closed.clear()
        wait_for(lambda: len(started()) == 1, 60, "an attempt")
        closed.append("a recording runs")
        wait_for(lambda: sleeps() == 2, 60, "its end")
        assert len(started()) == 1 and not Path(f"/proc/{started()[0]}").exists()
    finally:
        stopped.set()
        runs.join()
