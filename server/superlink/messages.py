"""Flower's messages as bytes, and what its objects need to be made outside its own processes."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, Error, Message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

#: The node id that Flower gives to the server.
SERVER_NODE_ID = 1
#: Error codes by which Flower says that a message did not arrive or its reply is lost: the client may be asked again.
LOST = frozenset({ErrorCode.NODE_UNAVAILABLE, ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE})


def is_lost(error: Error) -> bool:
    """Whether an error tells of the courier and not of the client: Flower's own losses, or an actor of Ray's that died.

    Ray's actors die with the process that started them, whose last act may be to report them.
    """
    reason = error.reason or ""
    return error.code in LOST or (reason.startswith("<class 'ray.exceptions.") and "RayTaskError" not in reason[:60])


def identify_process(*, run_id: int, node_id: int) -> None:
    """Say who this process is; Flower needs it before any Message can be made."""
    TaskIdentity.task_id = 0
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = node_id


def assign_message_id(message: Message, message_id: str) -> None:
    """Give a message its id, as a SuperLink does when it takes one."""
    message.metadata.__dict__["_message_id"] = message_id


def message_to_bytes(message: Message) -> bytes:
    """A message as bytes; meanwhile no other thread may read it.

    Flower's own protocol buffer, preceded by its length, then the values of its arrays one after the other, each
    preceded by its length: Flower copies values four times into a protocol buffer.
    """
    records = dict(message.content.array_records) if message.has_content() else {}
    values = [array.data for record in records.values() for array in record.values()]
    for name, record in records.items():
        message.content[name] = ArrayRecord({key: _with_data(array, b"") for key, array in record.items()})
    try:
        parts = [bytes(message_to_proto(message).SerializeToString()), *values]
    finally:
        for name, record in records.items():
            message.content[name] = record
    return b"".join(piece for part in parts for piece in (len(part).to_bytes(8, "little"), part))


def message_from_bytes(content: bytes) -> Message:
    """The message of `message_to_bytes`."""
    parts, begin = [], 0
    while begin < len(content):
        end = begin + 8 + int.from_bytes(content[begin : begin + 8], "little")
        parts.append(content[begin + 8 : end])
        begin = end
    message = message_from_proto(ProtoMessage.FromString(parts[0]))
    values = iter(parts[1:])
    if message.has_content():
        for name, record in list(message.content.array_records.items()):
            message.content[name] = ArrayRecord({key: _with_data(array, next(values)) for key, array in record.items()})
    return message


def _with_data(array: Array, data: bytes) -> Array:
    return Array(dtype=array.dtype, shape=tuple(array.shape), stype=array.stype, data=data)


def empty_run(run_id: int) -> Run:
    """A run that is nothing but its id."""
    return Run.create_empty(run_id)


__all__ = ["SERVER_NODE_ID", "Run"]
