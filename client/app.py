"""The Flower ClientApp: two messages, `query` (check in) and `train`. The same app serves wearables and simulations.

What differs between them is where the clips are, which ``open_store`` answers for a Flower context, and whether updates
are kept until the server has acknowledged them: a wearable has an outbox, a simulated client has none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from client.learner import ClipStore, Learned, check_in, learn
from client.outbox import Outbox
from mcoe_model.errors import McoeError
from mcoe_model.protocol import OutboxNews, ProtocolError, TrainTask, update_id
from mcoe_model.tensors import STYPE, pack, unpack

log = logging.getLogger("mcoe")

#: Error code of a reply that says in one line why the client could not do its task. Flower's own are below 100.
CANNOT_DO = 100


def make_client_app(open_store: Callable[[Context], ClipStore], outbox: Outbox | None = None) -> ClientApp:
    """The ClientApp over the clip store that ``open_store`` finds for a node."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        try:
            _hear(message, outbox)
            record = check_in(open_store(context), outbox.ids() if outbox else ()).to_record()
        except (McoeError, ProtocolError) as fault:
            return Message(Error(CANNOT_DO, f"{type(fault).__name__}: {fault}"), reply_to=message)
        return Message(RecordDict({"check-in": ConfigRecord(record)}), reply_to=message)  # type: ignore[arg-type]

    @app.train()
    def train(message: Message, context: Context) -> Message:
        try:
            _hear(message, outbox)
            task = TrainTask.from_record(message.content["task"])
            learned = _learned(message, task, open_store(context), outbox)
        except (McoeError, ProtocolError, KeyError, ValueError) as fault:
            return Message(Error(CANNOT_DO, f"{type(fault).__name__}: {fault}"), reply_to=message)
        content = RecordDict(
            {
                "update": ArrayRecord({"tensors": _array(pack(learned.update))}),
                "meta": ConfigRecord(learned.meta.to_record()),  # type: ignore[arg-type]
                "report": MetricRecord(learned.report.to_record()),  # type: ignore[arg-type]
            }
        )
        return Message(content, reply_to=message)

    return app


def _learned(message: Message, task: TrainTask, store: ClipStore, outbox: Outbox | None) -> Learned:
    """The update that the outbox holds for this task already, else a new one, which is kept before it is sent."""
    if outbox:
        kept = outbox.find(update_id(store.client_id, task.base_sha256, store.clip_names()), task.round_number)
        if kept:
            log.info("round %d: sending the update that is kept", task.round_number)
            return kept
    learned = learn(store, task, unpack(message.content.array_records["model"]["tensors"].data))
    if outbox:
        outbox.put(learned)
        log.info("round %d: trained on %d clips", task.round_number, learned.report.examples)
    return learned


def _hear(message: Message, outbox: Outbox | None) -> None:
    if outbox and message.has_content() and "news" in message.content:
        outbox.hear(OutboxNews.from_record(dict(message.content["news"])))


def _array(packed: bytes) -> Array:
    return Array(dtype="uint8", shape=(len(packed),), stype=STYPE, data=packed)
