"""The ClientApp: two messages in, a reply that the server can read out, or an error that says why not."""

from __future__ import annotations

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from toy_store import ToyStore, expectation, payload, task

from client.app import CANNOT_DO, make_client_app
from mcoe_model.protocol import CheckIn
from mcoe_model.tensors import STYPE, pack, unpack
from server.acceptance import Accepted, Reply, judge
from server.superlink.messages import (
    SERVER_NODE_ID,
    assign_message_id,
    identify_process,
    message_from_bytes,
    message_to_bytes,
)

APP = make_client_app(lambda context: ToyStore(str(context.node_config["client"]), int(context.node_config["clips"])))


def ask(content: RecordDict, kind: str = MessageType.TRAIN, clips: int = 6) -> Message:
    """Send a message through Flower's bytes to the app and its reply back."""
    identify_process(run_id=1, node_id=SERVER_NODE_ID)
    message = Message(content, dst_node_id=1000, message_type=kind, group_id="1")
    assign_message_id(message, "1")
    context = Context(1, 1000, {"client": "client-a", "clips": clips}, RecordDict(), {})
    return message_from_bytes(message_to_bytes(APP(message_from_bytes(message_to_bytes(message)), context)))


def model() -> ArrayRecord:
    return packed(pack(payload()))


def packed(content: bytes) -> ArrayRecord:
    return ArrayRecord({"tensors": Array(dtype="uint8", shape=(len(content),), stype=STYPE, data=content)})


def request(**changes: object) -> RecordDict:
    return RecordDict({"model": model(), "task": ConfigRecord(task(**changes).to_record())})  # type: ignore[arg-type]


def test_a_query_is_answered_with_a_check_in() -> None:
    reply = ask(RecordDict(), MessageType.QUERY)
    assert CheckIn.from_record(dict(reply.content["check-in"])) == CheckIn("client-a", 6)  # type: ignore[arg-type]


def test_a_task_is_answered_with_a_reply_that_the_server_accepts() -> None:
    message = ask(request())
    assert message.has_content()
    update = unpack(message.content.array_records["update"]["tensors"].data)
    meta, report = message.content.config_records["meta"], message.content.metric_records["report"]
    verdict = judge(Reply("client-a", update, dict(meta), dict(report)), expectation("client-a"))
    assert isinstance(verdict, Accepted), verdict


def test_the_report_holds_numbers_only_and_no_name_of_a_clip() -> None:
    message = ask(request())
    said = str(message.content.config_records) + str(message.content.metric_records)
    assert "clip 0" not in said


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (RecordDict(), "KeyError: 'task'"),
        (RecordDict({"model": model(), "task": ConfigRecord({"round_number": 1})}), "ProtocolError: "),
        (request(protocol_version=99), "ProtocolError: the server speaks protocol 99"),
        (request(generation="f" * 16), "ModelInvalid: the task is for generation"),
        (request(payload_sha256="0" * 64), "ModelInvalid: the tensors received"),
        (
            RecordDict(
                {
                    "model": packed(b"?"),
                    "task": ConfigRecord(task().to_record()),  # type: ignore[arg-type]
                }
            ),
            "ValueError: the tensors cannot be read",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(content: RecordDict, reason: str) -> None:
    reply = ask(content)
    assert reply.has_error()
    assert reply.error.code == CANNOT_DO
    assert reason in reply.error.reason and "\n" not in reply.error.reason


def test_a_client_without_clips_says_so() -> None:
    reply = ask(request(), clips=0)
    assert reply.has_error() and "no labelled clips" in reply.error.reason


def test_our_error_code_is_none_of_flowers() -> None:
    from flwr.common.constant import ErrorCode

    assert CANNOT_DO not in vars(ErrorCode).values()
