"""What a client does with an evaluate task, on the real network: counts, and nothing for tensors it cannot trust."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from toy_store import BASE_SHA256, ToyStore, base, payload, task

from client.app import CANNOT_DO, make_client_app
from client.assess import assess
from client.learner import learn
from mcoe_model.errors import DataMissing, ModelInvalid
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.learning.weights import tensors_of
from mcoe_model.model_file import Tensors, tensors_sha256
from mcoe_model.protocol import EvaluateReport, EvaluateTask
from mcoe_model.tensors import STYPE, Payload, pack
from server.superlink.messages import SERVER_NODE_ID, assign_message_id, identify_process


def trained() -> Tensors:
    """The base after training on the clips of client-a."""
    store = ToyStore("client-a", 12)
    recipe = FineTuneSettings(epochs=30, batch_size=4, learning_rate=3e-3)
    learn(store, task(fine_tune=recipe), Payload.of(payload()))
    made = tensors_of(store.resident)
    return {name: made[name] for name in payload()}


def asks(new: Tensors, parent: Tensors, **changes: object) -> EvaluateTask:
    hashes = (tensors_sha256(new), tensors_sha256(parent))
    usual = EvaluateTask("a" * 64, *hashes, base()[1].generation.id, "head")
    return EvaluateTask(**vars(usual) | changes)


def test_what_was_learned_is_recognised_more_often_than_before() -> None:
    new, old = trained(), payload()
    store = ToyStore("client-a", 12)
    report = assess(store, asks(new, old), Payload.of(new), Payload.of(old))
    assert (report.client_id, report.model_sha256, report.examples) == ("client-a", "a" * 64, 12)
    assert report.correct > report.parent_correct + 2
    swapped = assess(store, asks(old, new), Payload.of(old), Payload.of(new))
    assert (swapped.correct, swapped.parent_correct) == (report.parent_correct, report.correct)


def test_tensors_that_are_not_the_ones_named_are_not_judged() -> None:
    store, tensors = ToyStore("client-a", 4), payload()
    other = {name: np.asarray(value + 1, value.dtype) for name, value in tensors.items()}
    for new, old in ((other, tensors), (tensors, other), ({}, tensors)):
        with pytest.raises(ModelInvalid, match="not the ones"):
            assess(store, asks(tensors, tensors), Payload.of(new), Payload.of(old))
    with pytest.raises(ModelInvalid, match="generation"):
        assess(store, asks(tensors, tensors, generation="f" * 16), Payload.of(tensors), Payload.of(tensors))
    with pytest.raises(DataMissing, match="no labelled clips"):
        assess(ToyStore("client-a", 0), asks(tensors, tensors), Payload.of(tensors), Payload.of(tensors))


def ask(content: RecordDict) -> Message:
    identify_process(run_id=1, node_id=SERVER_NODE_ID)
    message = Message(content, dst_node_id=1000, message_type=MessageType.EVALUATE, group_id="1")
    assign_message_id(message, "1")
    app = make_client_app(lambda context: ToyStore("client-a", 6))
    return app(message, Context(1, 1000, {}, RecordDict(), {}))


def content(**instead: object) -> RecordDict:
    data = pack(payload())
    record = ArrayRecord({"tensors": Array(dtype="uint8", shape=(len(data),), stype=STYPE, data=data)})
    asked = ConfigRecord(asks(payload(), payload()).to_record())  # type: ignore[arg-type]
    return RecordDict({"model": record, "parent": record, "task": asked} | instead)  # type: ignore[arg-type]


def test_an_evaluate_message_is_answered_with_counts_and_nothing_else() -> None:
    answer = ask(content())
    assert list(answer.content) == ["report"]
    report = EvaluateReport.from_record(dict(answer.content["report"]))  # type: ignore[arg-type]
    assert report == EvaluateReport("client-a", "a" * 64, 6, report.correct, report.correct)
    assert BASE_SHA256 not in str(answer.content)


@pytest.mark.parametrize("asked", [ConfigRecord({}), ConfigRecord({"model_sha256": "a"})])
def test_what_cannot_be_done_is_said_in_one_line(asked: ConfigRecord) -> None:
    for broken in (content(task=asked), RecordDict({"task": asked}), RecordDict()):
        answer = ask(broken)
        assert answer.has_error() and answer.error.code == CANNOT_DO and "\n" not in answer.error.reason
