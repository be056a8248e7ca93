"""A member of the fleet that lies: with every task it answers in another bad way. `python lying_client.py DIR NAME`."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from client.enrolment import ClientPaths, read_membership
from client.node import Connection, Node
from mcoe_model.protocol import CheckIn, TrainReport, TrainTask, UpdateMeta, update_id
from mcoe_model.router_statistics import RouterStatistics
from mcoe_model.tensors import STYPE, pack, unpack
from mcoe_model.update import manifest, specs_of

EXPERTS, CLIPS = 8, 4
Parts = tuple[dict[str, Any], UpdateMeta, dict[str, Any]]


def honest(task: TrainTask, payload: dict[str, Any], name: str) -> Parts:
    """A reply without fault, but for having learned nothing."""
    update = {key: np.zeros(spec.shape, np.float32) for key, spec in manifest(
        specs_of(payload), task.train_mode, range(EXPERTS)).items()}  # fmt: skip
    meta = UpdateMeta(
        update_id(name, task.base_sha256, ["lie"]), name, task.round_number, task.base_sha256, task.generation,
        task.train_mode, tuple(range(EXPERTS)),
    )  # fmt: skip
    router = RouterStatistics(CLIPS, 2, (1,) * EXPERTS, (CLIPS / EXPERTS,) * EXPERTS)
    return update, meta, TrainReport(CLIPS, 1.0, 1.0, 1.0, router).to_record()


def spoil(value: Callable[[Any], Any]) -> Callable[[Parts], Parts]:
    """The same reply with its first tensor changed."""

    def change(parts: Parts) -> Parts:
        update, meta, report = parts
        first = sorted(update)[0]
        return {**update, first: value(update[first])}, meta, report

    return change


LIES: list[Callable[[Parts], Parts]] = [
    spoil(lambda tensor: np.full_like(tensor, np.nan)),
    spoil(lambda tensor: np.full_like(tensor, np.inf)),
    spoil(lambda tensor: np.full_like(tensor, 1e30)),
    spoil(lambda tensor: tensor[:1]),
    spoil(lambda tensor: tensor.astype(np.float64)),
    lambda parts: ({**parts[0], "stowaway": np.zeros(3, np.float32)}, *parts[1:]),
    lambda parts: (dict(sorted(parts[0].items())[1:]), *parts[1:]),
    lambda parts: (parts[0], replace(parts[1], client_id="first"), parts[2]),
    lambda parts: (parts[0], replace(parts[1], base_sha256="0" * 64), parts[2]),
    lambda parts: (parts[0], replace(parts[1], round_number=parts[1].round_number - 1), parts[2]),
    lambda parts: (parts[0], replace(parts[1], generation="0" * 16), parts[2]),
    lambda parts: (*parts[:2], parts[2] | {"examples": 10**6}),
    lambda parts: (*parts[:2], parts[2] | {"examples": -60}),
    lambda parts: (*parts[:2], parts[2] | {"router-routed": [9] * EXPERTS}),
    lambda parts: (*parts[:2], parts[2] | {"stowaway": 1.0}),
]


def main(folder: Path) -> None:
    paths = ClientPaths(folder)
    membership = read_membership(paths)
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        record = CheckIn(membership.client_id, 10).to_record()
        return Message(RecordDict({"check-in": ConfigRecord(record)}), reply_to=message)  # type: ignore[arg-type]

    @app.train()
    def train(message: Message, context: Context) -> Message:
        task = TrainTask.from_record(dict(message.content["task"]))  # type: ignore[arg-type]
        payload = unpack(message.content.array_records["model"]["tensors"].data)
        turn = task.round_number % (len(LIES) + 3)
        if turn == len(LIES):
            raise RuntimeError("a wearer's name")
        if turn == len(LIES) + 1:
            return Message(Error(100, "no"), reply_to=message)
        update, meta, report = LIES[turn % len(LIES)](honest(task, payload, membership.client_id))
        data = b"\0" * 1000 if turn == len(LIES) + 2 else pack(update)
        content = {
            "update": ArrayRecord({"tensors": Array(dtype="uint8", shape=(len(data),), stype=STYPE, data=data)}),
            "meta": ConfigRecord(meta.to_record()),  # type: ignore[arg-type]
            "report": MetricRecord(report),
        }
        return Message(RecordDict(content), reply_to=message)  # type: ignore[arg-type]

    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    Node(Connection(membership.address, paths.authority, paths.key, paths.folder), app, stopped).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
