"""The Flower ClientApp: two messages, `query` (check in) and `train`. The same app serves wearables and simulations.

What differs between them is where the clips are: ``open_store`` answers that for a Flower context.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from client.learner import ClipStore, check_in, learn
from mcoe_model.errors import McoeError
from mcoe_model.npy import decode, encode
from mcoe_model.protocol import ProtocolError, TrainTask

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
            arrays = message.content["model"]
            payload = {name: decode(array.data) for name, array in arrays.items()}  # type: ignore[union-attr]
            learned = learn(open_store(context), task, payload)
        except (McoeError, ProtocolError, KeyError, ValueError) as fault:
            return Message(Error(CANNOT_DO, f"{type(fault).__name__}: {fault}"), reply_to=message)
        content = RecordDict(
            {
                "update": ArrayRecord({name: _array(value) for name, value in learned.update.items()}),
                "meta": ConfigRecord(learned.meta.to_record()),  # type: ignore[arg-type]
                "report": MetricRecord(learned.report.to_record()),  # type: ignore[arg-type]
            }
        )
        return Message(content, reply_to=message)

    return app


def _array(value: NDArray[Any]) -> Array:
    return Array(dtype=value.dtype.name, shape=value.shape, stype="numpy.ndarray", data=encode(value))
