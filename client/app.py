"""The Flower ClientApp: two messages, `query` (check in) and `train`. The same app serves wearables and simulations.

What differs between them is where the clips are: ``open_store`` answers that for a Flower context.
"""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from client.learner import ClipStore, check_in, learn
from mcoe_model.errors import McoeError
from mcoe_model.protocol import ProtocolError, TrainTask
from mcoe_model.tensors import STYPE, pack, unpack

#: Error code of a reply that says in one line why the client could not do its task. Flower's own are below 100.
CANNOT_DO = 100


def make_client_app(open_store: Callable[[Context], ClipStore]) -> ClientApp:
    """The ClientApp over the clip store that ``open_store`` finds for a node."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        record = check_in(open_store(context)).to_record()
        return Message(RecordDict({"check-in": ConfigRecord(record)}), reply_to=message)  # type: ignore[arg-type]

    @app.train()
    def train(message: Message, context: Context) -> Message:
        try:
            task = TrainTask.from_record(message.content["task"])
            payload = unpack(message.content.array_records["model"]["tensors"].data)
            learned = learn(open_store(context), task, payload)
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


def _array(packed: bytes) -> Array:
    return Array(dtype="uint8", shape=(len(packed),), stype=STYPE, data=packed)
