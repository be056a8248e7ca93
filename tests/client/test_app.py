"""The ClientApp: two messages in, a reply that the server can read out, or an error that says why not."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from toy_store import BASE_SHA256, ToyStore, expectation, payload, task

from client.app import CANNOT_DO, make_client_app
from client.outbox import Outbox
from client.traffic import Traffic
from mcoe_model.health import Health
from mcoe_model.protocol import CheckIn, UpdateMeta
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


def ask(content: RecordDict, kind: str = MessageType.TRAIN, clips: int = 6, app: ClientApp = APP) -> Message:
    """Send a message through Flower's bytes to the app and its reply back."""
    identify_process(run_id=1, node_id=SERVER_NODE_ID)
    message = Message(content, dst_node_id=1000, message_type=kind, group_id="1")
    assign_message_id(message, "1")
    context = Context(1, 1000, {"client": "client-a", "clips": clips}, RecordDict(), {})
    return message_from_bytes(message_to_bytes(app(message_from_bytes(message_to_bytes(message)), context)))


def model() -> ArrayRecord:
    return packed(pack(payload()))


def packed(content: bytes) -> ArrayRecord:
    return ArrayRecord({"tensors": Array(dtype="uint8", shape=(len(content),), stype=STYPE, data=content)})


def request(**changes: object) -> RecordDict:
    return RecordDict({"model": model(), "task": ConfigRecord(task(**changes).to_record())})  # type: ignore[arg-type]


def test_a_query_is_answered_with_a_check_in() -> None:
    reply = ask(RecordDict(), MessageType.QUERY)
    said = CheckIn.from_record(dict(reply.content["check-in"]))  # type: ignore[arg-type]
    assert (said.client_id, said.examples, said.preset) == ("client-a", 6, "mcoe-tiny")
    assert said.capabilities == ("train-head", "train-full", "evaluate")


def test_a_check_in_tells_of_the_wearables_health_beside_it() -> None:
    health = Health(free_gb=7, labelled=3, error=139)
    app = make_client_app(lambda context: ToyStore("client-a", 6), health=lambda: health)
    reply = ask(RecordDict(), MessageType.QUERY, app=app)
    assert Health.from_record(dict(reply.content["health"])) == health  # type: ignore[arg-type]
    before = ask(RecordDict(), MessageType.QUERY)
    assert dict(reply.content["check-in"]) == dict(before.content["check-in"])  # as an older server reads it
    assert set(before.content) == {"check-in"}


def test_what_messages_hold_is_counted_both_ways(tmp_path: Path) -> None:
    traffic = Traffic(tmp_path / "traffic.json")
    app = make_client_app(lambda context: ToyStore("client-a", 6), mods=[traffic.counted])
    ask(RecordDict(), MessageType.QUERY, app=app)
    check_in = traffic.used().in_day
    assert 200 < check_in < 2000
    asked = request()
    reply = ask(asked, app=app)
    both = asked.array_records["model"].count_bytes() + reply.content.array_records["update"].count_bytes()
    assert both < traffic.used().in_day - check_in < both + 5000


def test_a_question_that_cannot_be_read_is_answered_all_the_same() -> None:
    reply = ask(RecordDict({"news": ConfigRecord({"of": "another protocol"})}), MessageType.QUERY)
    assert CheckIn.from_record(dict(reply.content["check-in"])).client_id == "client-a"  # type: ignore[arg-type]


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
    ("content", "kind"),
    [
        (RecordDict(), "KeyError"),
        (RecordDict({"model": model(), "task": ConfigRecord({"round_number": 1})}), "ProtocolError"),
        (request(protocol_version=99), "ProtocolError"),
        (request(generation="f" * 16), "ModelInvalid"),
        (request(payload_sha256="0" * 64), "ModelInvalid"),
        (
            RecordDict(
                {
                    "model": packed(b"?"),
                    "task": ConfigRecord(task().to_record()),  # type: ignore[arg-type]
                }
            ),
            "ValueError",
        ),
    ],
)
def test_of_what_cannot_be_done_only_the_kind_of_fault_is_told(content: RecordDict, kind: str) -> None:
    reply = ask(content)
    assert reply.has_error()
    assert (reply.error.code, reply.error.reason) == (CANNOT_DO, kind)


def test_the_log_too_tells_no_more_than_the_kind_of_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    reply = ask(request(), clips=0)
    assert reply.has_error() and reply.error.reason == "DataMissing"
    assert "DataMissing, exit code 10" in caplog.text and "no labelled clips" not in caplog.text


def test_our_error_code_is_none_of_flowers() -> None:
    from flwr.common.constant import ErrorCode

    assert CANNOT_DO not in vars(ErrorCode).values()


def kept_app(outbox: Outbox, clips: int = 6) -> ClientApp:
    return make_client_app(lambda context: ToyStore("client-a", clips), outbox)


def meta_of(app: ClientApp, **changes: object) -> UpdateMeta:
    """What the app's answer to a task is an update of."""
    return UpdateMeta.from_record(dict(ask(request(**changes), app=app).content.config_records["meta"]))


NEXT = "c" * 64


def test_an_update_that_came_too_late_answers_a_later_round_without_training(tmp_path: Path) -> None:
    app = kept_app(Outbox(tmp_path, bytes(32)))
    first = meta_of(app)
    again = meta_of(app, round_number=2, base_sha256=NEXT, welcome=(BASE_SHA256,))
    assert (again.update_id, again.base_sha256, again.round_number) == (first.update_id, BASE_SHA256, 2)


def test_the_update_of_the_tasks_own_base_comes_first(tmp_path: Path) -> None:
    app = kept_app(Outbox(tmp_path, bytes(32)))
    meta_of(app)
    newer = meta_of(app, round_number=2, base_sha256=NEXT, welcome=("e" * 64,))
    assert newer.base_sha256 == NEXT
    assert meta_of(app, round_number=2, base_sha256=NEXT, welcome=(BASE_SHA256,)) == newer


def test_an_update_whose_base_is_welcome_no_more_goes(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, bytes(32))
    app = kept_app(outbox)
    old = meta_of(app).update_id
    new = meta_of(app, round_number=2, base_sha256=NEXT)
    assert new.base_sha256 == NEXT
    assert outbox.ids() == (new.update_id,) != (old,)


def test_an_update_of_other_clips_is_not_sent_late(tmp_path: Path) -> None:
    """The wearer may have deleted what it was made of."""
    outbox = Outbox(tmp_path, bytes(32))
    meta_of(kept_app(outbox))
    fewer = meta_of(kept_app(outbox, clips=5), round_number=2, base_sha256=NEXT, welcome=(BASE_SHA256,))
    assert fewer.base_sha256 == NEXT
