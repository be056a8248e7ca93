"""A member of the fleet that lies: with every task it answers in another bad way. `python lying_client.py DIR`."""

from __future__ import annotations

import io
import math
import pickle
import signal
import sys
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.app.message.message import remove_content_from_message
from flwr.clientapp import ClientApp
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node as FlowerNode
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from client.enrolment import ClientPaths, read_membership
from client.node import Connection, Node
from mcoe_model.data.see import read_see
from mcoe_model.protocol import CheckIn, TrainReport, TrainTask, UpdateMeta, update_id
from mcoe_model.router_statistics import RouterStatistics
from mcoe_model.tensors import STYPE, pack, unpack
from mcoe_model.update import manifest, specs_of

EXPERTS, CLIPS = 8, 4
EXECUTED = "executed"
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


def others(meta: UpdateMeta) -> str:
    """The id of another client's update, whose clips the liar knows."""
    folder = ClientPaths(Path(sys.argv[1]).parent / "first")
    told = read_membership(folder)
    records = read_see(Path(told.clips)).records
    names = [record.name for record in records if record.subject == told.subject]
    return update_id("first", meta.base_sha256, names)


def spoil(value: Callable[[Any], Any]) -> Callable[[Parts], Parts]:
    """The same reply with its first tensor changed."""

    def change(parts: Parts) -> Parts:
        update, meta, report = parts
        first = sorted(update)[0]
        return {**update, first: value(update[first])}, meta, report

    return change


class Executed:
    """Whoever unpickles this makes a file in the liar's folder."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / EXECUTED

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.file), "w")


def archive() -> bytes:
    """A zip that unpacks to a place outside, and to a gigabyte."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr(f"../../{EXECUTED}", b"")
        written.writestr("model", bytes(1 << 20) * 8)
    return content.getvalue()


def pickled_array(folder: Path) -> bytes:
    """NumPy's own form of an array of objects."""
    content = io.BytesIO()
    np.save(content, np.array([Executed(folder)], object), allow_pickle=True)
    return content.getvalue()


LIES: list[Callable[[Parts], Parts]] = [
    spoil(lambda tensor: np.full_like(tensor, np.nan)),
    spoil(lambda tensor: np.full_like(tensor, np.inf)),
    spoil(lambda tensor: np.full_like(tensor, 1e30)),
    spoil(lambda tensor: tensor[:1]),
    spoil(lambda tensor: tensor.astype(np.float64)),
    lambda parts: ({**parts[0], "stowaway": np.zeros(3, np.float32)}, *parts[1:]),
    lambda parts: (dict(sorted(parts[0].items())[1:]), *parts[1:]),
    lambda parts: ({f"{name}s": tensor for name, tensor in parts[0].items()}, *parts[1:]),
    lambda parts: (parts[0], replace(parts[1], client_id="first"), parts[2]),
    lambda parts: (parts[0], replace(parts[1], base_sha256="0" * 64), parts[2]),
    lambda parts: (parts[0], replace(parts[1], round_number=parts[1].round_number - 1), parts[2]),
    lambda parts: (parts[0], replace(parts[1], generation="0" * 16), parts[2]),
    lambda parts: (*parts[:2], parts[2] | {"examples": 10**6}),
    lambda parts: (*parts[:2], parts[2] | {"examples": 0}),
    lambda parts: (*parts[:2], parts[2] | {"examples": -60}),
    lambda parts: (*parts[:2], parts[2] | {"examples": 10**15}),
    lambda parts: (*parts[:2], parts[2] | {"examples": CLIPS + 0.5}),
    lambda parts: (*parts[:2], parts[2] | {"examples": math.inf}),
    lambda parts: (parts[0], replace(parts[1], update_id=others(parts[1])), parts[2]),
    lambda parts: (*parts[:2], parts[2] | {"router-routed": [*[1] * (EXPERTS - 1), 0]}),
    lambda parts: (*parts[:2], parts[2] | {"router-routed": [4, 4], "router-gate-mass": [2.0, 2.0]}),
    lambda parts: (*parts[:2], parts[2] | {"router-routed": [3, -1, *[1] * (EXPERTS - 2)]}),
    lambda parts: (*parts[:2], parts[2] | {"stowaway": 1.0}),
]


#: Bytes in place of a reply's tensors, and the kind of array that they are said to be.
CONTENTS: list[Callable[[Path], tuple[bytes, str]]] = [
    lambda folder: (b"\0" * 1000, STYPE),
    lambda folder: (pickle.dumps(Executed(folder)), STYPE),
    lambda folder: (pickled_array(folder), "numpy.ndarray"),
    lambda folder: (archive(), STYPE),
]
#: Rounds after which it has told every lie: beside those above an exception, an error, and a second reply.
TURNS = len(LIES) + len(CONTENTS) + 3


def main(folder: Path) -> None:
    paths = ClientPaths(folder)
    membership = read_membership(paths)
    connection = Connection(membership.address, paths.authority, paths.key, paths.folder)
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        record = CheckIn(membership.client_id, 10).to_record()
        return Message(RecordDict({"check-in": ConfigRecord(record)}), reply_to=message)  # type: ignore[arg-type]

    @app.train()
    def train(message: Message, context: Context) -> Message:
        task = TrainTask.from_record(dict(message.content["task"]))  # type: ignore[arg-type]
        payload = unpack(message.content.array_records["model"]["tensors"].data)
        turn = task.round_number % TURNS
        update, meta, report = parts = honest(task, payload, membership.client_id)

        def reply(data: bytes, stype: str = STYPE) -> Message:
            content = {
                "update": ArrayRecord({"tensors": Array(dtype="uint8", shape=(len(data),), stype=stype, data=data)}),
                "meta": ConfigRecord(meta.to_record()),  # type: ignore[arg-type]
                "report": MetricRecord(report),
            }
            return Message(RecordDict(content), reply_to=message)  # type: ignore[arg-type]

        if turn < len(LIES):
            update, meta, report = LIES[turn](parts)
            return reply(pack(update))
        if turn < len(LIES) + len(CONTENTS):
            return reply(*CONTENTS[turn - len(LIES)](folder))
        match TURNS - turn:
            case 3:
                raise RuntimeError("a wearer's name")
            case 2:
                return Message(Error(100, "no"), reply_to=message)
        push_beside(connection, reply(b"first"), context)
        return reply(b"second")

    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    Node(connection, app, stopped).run()


def push_beside(connection: Connection, reply: Message, context: Context) -> None:
    """Push a reply to the server without the SuperNode, which then pushes another one to the same message."""
    key: Any = load_ssh_private_key(connection.key.read_bytes(), None)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    parts = {name: part.deflate() for name, part in get_all_nested_objects(reply).items()}
    node = FlowerNode(node_id=context.node_id)
    interceptors = [RuntimeVersionHttpInterceptor("SuperNode"), NodeAuthHttpInterceptor(key, key.public_key())]
    with FleetHttpClient.from_server_address(
        connection.address, False, str(connection.authority), interceptors
    ) as client:
        pushed = client.PushMessages(
            PushMessagesRequest(
                node=node,
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
            )
        )
        for part in pushed.objects_to_push:
            client.PushObject(
                PushObjectRequest(
                    node=node,
                    run_id=context.run_id,
                    object_id=part,
                    object_content=parts[part],
                    session_id=pushed.session_id,
                )
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
