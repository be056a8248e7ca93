"""The adapter over Flower's private parts. When Flower moves one, the test that fails is named after it."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path

import flwr
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MessageType, MetricRecord, RecordDict

from server.superlink.messages import (
    SERVER_NODE_ID,
    assign_message_id,
    empty_run,
    identify_process,
    message_from_bytes,
    message_to_bytes,
)

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def server_process() -> None:
    identify_process(run_id=1, node_id=SERVER_NODE_ID)


def test_flower_is_the_version_that_the_adapter_was_written_for() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert f"flwr=={flwr.__version__}" in project["dependencies"]
    assert f"flwr[simulation]=={flwr.__version__}" in project["optional-dependencies"]["ray"]
    assert flwr.__version__ == "1.41.0"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("flwr.common.serde", "message_from_proto"),
        ("flwr.common.serde", "message_to_proto"),
        ("flwr.proto.message_pb2", "Message"),
        ("flwr.app.message", "make_message"),
        ("flwr.supercore.inflatable.inflatable_object", "iterate_object_tree"),
        ("flwr.supercore.inflatable.inflatable_protobuf_utils", "make_pull_object_fn_protobuf"),
        ("flwr.supercore.inflatable.inflatable_utils", "inflate_object_from_contents"),
        ("flwr.supercore.heartbeat", "HeartbeatSender"),
        ("flwr.superlink.grid", "HttpGrid"),
        ("flwr.supernode.fleet_http_client", "FleetHttpClient"),
        ("flwr.supernode.node_auth_http_interceptor", "NodeAuthHttpInterceptor"),
        ("flwr.common.constant", "SYSTEM_TIME_TOLERANCE"),
        ("flwr.common.constant", "TIMESTAMP_TOLERANCE"),
        ("flwr.supercore.constant", "FLEET_HTTP_SIGNATURE_HEADER"),
        ("flwr.supercore.run", "Run"),
        ("flwr.supercore.task_identity", "TaskIdentity"),
    ],
)
def test_flower_still_has(module: str, name: str) -> None:
    assert hasattr(import_module(module), name)


def test_the_server_has_the_node_id_that_flower_gives_it() -> None:
    from flwr.common.constant import SUPERLINK_NODE_ID

    assert SERVER_NODE_ID == SUPERLINK_NODE_ID


def make_message() -> Message:
    content = RecordDict(
        {
            "arrays": ArrayRecord({"b": Array(np.float32([[1, 2, 3], [4, 5, 6]])), "a": Array(np.array(1.5))}),
            "config": ConfigRecord({"text": "ж", "flag": True, "whole": -(2**63), "many": [1, 2], "raw": b"\0"}),
            "metrics": MetricRecord({"loss": 0.1, "counts": [1, 2**63 - 1], "none": []}),
        }
    )
    message = Message(content, dst_node_id=1007, message_type=MessageType.TRAIN, group_id="3", ttl=12.5)
    assign_message_id(message, "17")
    return message


def test_a_message_is_the_same_after_the_journey() -> None:
    message = make_message()
    back = message_from_bytes(message_to_bytes(message))
    assert back.metadata == message.metadata
    assert (back.metadata.message_id, back.metadata.dst_node_id, back.metadata.group_id) == ("17", 1007, "3")
    assert (back.metadata.src_node_id, back.metadata.run_id) == (SERVER_NODE_ID, 1)
    assert (back.metadata.ttl, back.metadata.message_type) == (12.5, MessageType.TRAIN)
    assert back.content["config"] == message.content["config"]
    assert back.content["metrics"] == message.content["metrics"]
    for name, array in message.content.array_records["arrays"].items():
        found = back.content.array_records["arrays"][name]
        assert found.numpy().tobytes() == array.numpy().tobytes()
        assert (found.dtype, found.shape) == (array.dtype, array.shape)


def test_a_reply_finds_its_way_back() -> None:
    request = message_from_bytes(message_to_bytes(make_message()))
    identify_process(run_id=1, node_id=1007)
    reply = message_from_bytes(message_to_bytes(Message(RecordDict(), reply_to=request)))
    assert (reply.metadata.src_node_id, reply.metadata.dst_node_id) == (1007, SERVER_NODE_ID)
    assert reply.metadata.reply_to_message_id == "17"


def test_an_error_reply_keeps_its_code_and_reason() -> None:
    request = message_from_bytes(message_to_bytes(make_message()))
    reply = message_from_bytes(message_to_bytes(Message(Error(7, "not today"), reply_to=request)))
    assert reply.has_error() and not reply.has_content()
    assert (reply.error.code, reply.error.reason) == (7, "not today")


def test_a_run_that_is_nothing_but_its_id() -> None:
    assert empty_run(5).run_id == 5
