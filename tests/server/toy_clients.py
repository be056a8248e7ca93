"""A ClientApp for the toy fleet: each node behaves as its configuration says. For the tests of the coordinator."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from toy_fleet import expectation, honest_reply

from mcoe_model.model_file import tensors_sha256
from mcoe_model.protocol import CheckIn, TrainTask
from mcoe_model.tensors import STYPE, pack, unpack
from server.acceptance import Reply

app = ClientApp()

ROUTER = "moe.router.weight"


def honest(task: TrainTask, client: str) -> Reply:
    """The reply of an honest client to this task."""
    expected = expectation(
        round_number=task.round_number,
        base_sha256=task.base_sha256,
        generation=task.generation,
        train_mode=task.train_mode,
    )
    return honest_reply(expected, client)


def as_message(reply: Reply, request: Message, **instead: Any) -> Message:
    """The reply as a Flower message, with some records replaced or (None) left out."""
    records = {
        "update": raw(pack(dict(reply.update))),
        "meta": ConfigRecord(reply.meta),  # type: ignore[arg-type]
        "report": MetricRecord(reply.report),  # type: ignore[arg-type]
    } | instead
    present = {name: record for name, record in records.items() if record is not None}
    return Message(RecordDict(present), reply_to=request)


def spoilt(reply: Reply, value: Any) -> Reply:
    return replace(reply, update=reply.update | {ROUTER: value})


def raw(data: bytes) -> ArrayRecord:
    """A reply's tensors in these bytes, whatever they are."""
    return ArrayRecord({"tensors": Array(dtype="uint8", shape=(len(data),), stype=STYPE, data=data)})


def with_header(header: str) -> bytes:
    """Tensors' bytes with this header and no values."""
    return len(header).to_bytes(8, "little") + header.encode()


PETABYTE = with_header('{"a": {"dtype": "F32", "shape": [1125899906842624], "data_offsets": [0, 4503599627370496]}}')
UNCLOSED = with_header('{"a": {"dtype": "F32", "shape": [4, 5')


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.zeros(10_000_000, np.float32))
    return buffer.getvalue()


def raises(reply: Reply, request: Message) -> Message:
    raise RuntimeError("the camera [/] fell off\nand broke\0")


BEHAVIOURS: dict[str, Callable[[Reply, Message], Message]] = {
    "honest": as_message,
    "raises": raises,
    "error": lambda reply, request: Message(Error(7, "not today"), reply_to=request),
    "error without a reason": lambda reply, request: Message(Error(7), reply_to=request),
    "an actor that died": lambda reply, request: Message(
        Error(2, "<class 'ray.exceptions.ActorDiedError'>:<'The actor died'>"), reply_to=request
    ),
    "nothing": lambda reply, request: Message(RecordDict(), reply_to=request),
    "no update": lambda reply, request: as_message(reply, request, update=None),
    "records of other kinds": lambda reply, request: as_message(
        reply, request, update=ConfigRecord({"a": "b"}), meta=MetricRecord({"a": 1.0}), report=ArrayRecord()
    ),
    "garbage records": lambda reply, request: as_message(
        reply, request, meta=ConfigRecord({"update_id": b"\0", "x": [True]}), report=MetricRecord({"examples": [1.5]})
    ),
    "NaN": lambda reply, request: as_message(spoilt(reply, np.full((4, 5), np.nan, np.float32)), request),
    "wrong shape": lambda reply, request: as_message(spoilt(reply, np.zeros((1, 5), np.float32)), request),
    "other dtype": lambda reply, request: as_message(spoilt(reply, np.zeros((4, 5), np.float64)), request),
    "lying count": lambda reply, request: as_message(
        replace(reply, report={**reply.report, "examples": 900_000}), request
    ),
    "no bytes": lambda reply, request: as_message(reply, request, update=raw(b"")),
    "random bytes": lambda reply, request: as_message(reply, request, update=raw(bytes(range(256)))),
    "a torn zip": lambda reply, request: as_message(reply, request, update=raw(b"PK\x03\x04" + b"0" * 100)),
    "an archive": lambda reply, request: as_message(reply, request, update=raw(npz())),
    "a claim of a petabyte": lambda reply, request: as_message(reply, request, update=raw(PETABYTE)),
    "an unclosed header": lambda reply, request: as_message(reply, request, update=raw(UNCLOSED)),
    "a pickle": lambda reply, request: as_message(reply, request, update=raw(b"cos\nsystem\n(S'true'\ntR.")),
    "another name": lambda reply, request: as_message(
        replace(reply, meta={**reply.meta, "client_id": "honest 0"}), request
    ),
    "another's update id": lambda reply, request: as_message(
        replace(reply, meta={**reply.meta, "update_id": honest(task_of(request), "honest 0").meta["update_id"]}),
        request,
    ),
}


def task_of(request: Message) -> TrainTask:
    return TrainTask.from_record(dict(request.content["task"]))  # type: ignore[arg-type]


@app.query()
def query(message: Message, context: Context) -> Message:
    config = context.node_config
    if "check-in" in config:
        return Message(RecordDict({"check-in": ConfigRecord(json.loads(str(config["check-in"])))}), reply_to=message)
    if config["behaviour"] == "silent":
        raise RuntimeError("who am I?")
    record = CheckIn(str(config["client"]), int(config.get("examples", 10))).to_record()
    return Message(RecordDict({"check-in": ConfigRecord(record)}), reply_to=message)  # type: ignore[arg-type]


@app.train()
def train(message: Message, context: Context) -> Message:
    task = task_of(message)
    payload = unpack(message.content.array_records["model"]["tensors"].data)
    assert tensors_sha256(payload) == task.payload_sha256
    client = str(context.node_config["client"])
    log = context.run_config.get("log")
    if log:
        with Path(str(log)).open("a") as file:
            file.write(f"{task.round_number} {client}\n")
    behaviour = str(context.node_config["behaviour"])
    mended = context.node_config.get("mended-from-attempt")
    if mended and Path(str(log)).read_text().split("\n").count(f"{task.round_number} {client}") >= int(str(mended)):
        behaviour = "honest"
    return BEHAVIOURS[behaviour](honest(task, client), message)
