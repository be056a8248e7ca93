"""The Flower ClientApp: three messages, `query` (check in), `train` and `evaluate`.

The same app serves wearables and simulations.

What differs between them is where the clips are, which ``open_store`` answers for a Flower context, and whether updates
are kept until the server has acknowledged them and offered models are run: a wearable has an outbox and considers
offers, a simulated client does neither.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from client.assess import assess
from client.learner import ClipStore, Learned, check_in, learn
from client.offers import Offers
from client.outbox import Outbox
from client.running import NOTHING_RUNS
from client.told import ToldFile
from mcoe_model.errors import McoeError, for_log
from mcoe_model.health import Health
from mcoe_model.protocol import EvaluateTask, News, Offer, ProtocolError, TrainTask, update_id
from mcoe_model.tensors import STYPE, Payload, PayloadReader, pack, unpack

log = logging.getLogger("mcoe")

#: Error code of a reply that names the kind of fault for which the client could not do its task. Flower's own are below
#: 100.
CANNOT_DO = 100

#: Gets a message, its context, and what answers it.
Mod = Callable[[Message, Context, Callable[[Message, Context], Message]], Message]


def make_client_app(
    open_store: Callable[[Context], ClipStore],
    outbox: Outbox | None = None,
    offers: Offers | None = None,
    told: ToldFile | None = None,
    health: Callable[[], Health] | None = None,
    mods: Sequence[Mod] = (),
) -> ClientApp:
    """The ClientApp over the clip store that ``open_store`` finds for a node. Its check-ins tell of ``health``.

    ``mods`` see every message and its answer.
    """
    app, payloads = ClientApp(mods=list(mods)), PayloadReader()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        try:
            _hear(message, outbox, told)
            if offers and "offer" in message.content:
                offers.hear(Offer.from_record(dict(message.content["offer"])))
        except ProtocolError as fault:  # the check-in tells the server which protocol this program speaks
            log.warning("the server's question cannot be read, perhaps this program is too old: %s", fault)
        except McoeError as fault:
            return _cannot(message, fault)
        try:
            running = replace(offers.running.read(), runs=offers.runs) if offers else NOTHING_RUNS
            record = check_in(open_store(context), outbox.ids() if outbox else (), running).to_record()
        except McoeError as fault:
            return _cannot(message, fault)
        content = RecordDict({"check-in": ConfigRecord(record)})  # type: ignore[arg-type]
        if health:
            content["health"] = ConfigRecord(health().to_record())  # type: ignore[arg-type]
        return Message(content, reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        try:
            _hear(message, outbox, told)
            task = TrainTask.from_record(message.content["task"])
            store = open_store(context)
            if offers and store.model()[1].generation.id != task.generation:
                offers.consider(Offer(task.base_sha256))  # fetched before it is trained
                store = open_store(context)
            learned = _learned(message, task, store, payloads, outbox)
        except (McoeError, ProtocolError, KeyError, ValueError) as fault:
            return _cannot(message, fault)
        if outbox:
            outbox.sent.add(learned.meta.update_id)
        content = RecordDict(
            {
                "update": ArrayRecord({"tensors": _array(pack(learned.update))}),
                "meta": ConfigRecord(learned.meta.to_record()),  # type: ignore[arg-type]
                "report": MetricRecord(learned.report.to_record()),  # type: ignore[arg-type]
            }
        )
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        try:
            _hear(message, outbox, told)
            task = EvaluateTask.from_record(message.content["task"])
            payload, parent = (
                Payload.of(unpack(message.content.array_records[name]["tensors"].data)) for name in ("model", "parent")
            )
            report = assess(open_store(context), task, payload, parent).to_record()
        except (McoeError, ProtocolError, KeyError, ValueError) as fault:
            return _cannot(message, fault)
        return Message(RecordDict({"report": ConfigRecord(report)}), reply_to=message)  # type: ignore[arg-type]

    return app


def _cannot(message: Message, fault: Exception) -> Message:
    """The answer that a task cannot be done. Nobody is told more than its kind, and nor is the log."""
    log.warning("a task cannot be done: %s", for_log(fault))
    return Message(Error(CANNOT_DO, type(fault).__name__), reply_to=message)


def _learned(
    message: Message, task: TrainTask, store: ClipStore, payloads: PayloadReader, outbox: Outbox | None
) -> Learned:
    """The update that the outbox holds for this task already, else a new one, which is kept before it is sent.

    One of an earlier base that is still welcome does too, as long as the clips are those that it was made of.
    """
    if outbox:
        bases = (task.base_sha256, *task.welcome)
        outbox.retain(bases)
        for base in bases:
            kept = outbox.find(update_id(store.client_id, base, store.clip_names()), task.round_number)
            if kept:
                log.info("round %d: sending the update that is kept", task.round_number)
                return kept
    learned = learn(store, task, payloads.read(message.content.array_records["model"]["tensors"].data))
    if outbox:
        outbox.put(learned)
        log.info("round %d: trained on %d clips", task.round_number, learned.report.examples)
    return learned


def _hear(message: Message, outbox: Outbox | None, told: ToldFile | None) -> None:
    if message.has_content() and "news" in message.content:
        news = News.from_record(dict(message.content["news"]))
        if outbox:
            outbox.hear(news)
        if told:
            told.hear(news)


def _array(packed: bytes) -> Array:
    return Array(dtype="uint8", shape=(len(packed),), stype=STYPE, data=packed)
