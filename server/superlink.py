"""The one place that touches private modules of Flower. Pinned to flwr==1.41.0; a test fails by name when they move."""

from __future__ import annotations

from flwr.app import Message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

#: The node id that Flower gives to the server.
SERVER_NODE_ID = 1


def identify_process(*, run_id: int, node_id: int) -> None:
    """Say who this process is; Flower needs it before any Message can be made."""
    TaskIdentity.task_id = 0
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = node_id


def assign_message_id(message: Message, message_id: str) -> None:
    """Give a message its id, as a SuperLink does when it takes one."""
    message.metadata.__dict__["_message_id"] = message_id


def message_to_bytes(message: Message) -> bytes:
    """A message as protocol-buffer bytes, as Flower puts it on the wire."""
    return bytes(message_to_proto(message).SerializeToString())


def message_from_bytes(content: bytes) -> Message:
    """The message of `message_to_bytes`."""
    return message_from_proto(ProtoMessage.FromString(content))


def empty_run(run_id: int) -> Run:
    """A run that is nothing but its id."""
    return Run.create_empty(run_id)


__all__ = ["SERVER_NODE_ID", "Run"]
