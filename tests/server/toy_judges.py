"""Toy clients that judge new models, over the local grid in this very process. For the tests of trials."""

from __future__ import annotations

from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from toy_fleet import CARD, enlist, honest_reply, toy_engine

from mcoe_model.model_file import tensors_sha256
from mcoe_model.protocol import REFUSALS, CheckIn, EvaluateReport, EvaluateTask, Offer
from mcoe_model.tensors import unpack
from server.lifecycle import ReleasePolicy
from server.presence import Presence
from server.registry.models import CANDIDATE
from server.rounds import RoundEngine
from server.superlink.messages import SERVER_NODE_ID, identify_process
from server.trials import Trials
from simulations.local_grid import RUN_ID, LocalGrid

app = ClientApp()
#: What each client runs, and how often it was offered a canary. A test begins with both empty.
RUNS: dict[str, str] = {}
OFFERED: dict[str, int] = {}


@app.query()
def query(message: Message, context: Context) -> Message:
    client, how = str(context.node_config["client"]), str(context.node_config.get("offers", "runs"))
    refused = {}
    if "offer" in message.content and how != "ignores":
        offer = Offer.from_record(dict(message.content["offer"]))  # type: ignore[arg-type]
        OFFERED[client] = OFFERED.get(client, 0) + offer.canary
        if how in REFUSALS and offer.canary:
            refused = {"refused": offer.sha256, "refusal": how}
        else:
            RUNS[client] = "" if how == "goes back" and OFFERED[client] > 2 else offer.sha256
    said = CheckIn(client, int(context.node_config.get("examples", 10)), runs=RUNS.get(client, ""), **refused)
    version = str(context.node_config.get("version", said.client_version))
    record = replace(said, client_version=version).to_record()
    return Message(RecordDict({"check-in": ConfigRecord(record)}), reply_to=message)  # type: ignore[arg-type]


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    task = EvaluateTask.from_record(dict(message.content["task"]))  # type: ignore[arg-type]
    for name, sha256 in (("model", task.payload_sha256), ("parent", task.parent_payload_sha256)):
        assert tensors_sha256(unpack(message.content.array_records[name]["tensors"].data)) == sha256
    assert (task.generation, task.train_mode) == (CARD.generation.id, "head")
    client, finds = str(context.node_config["client"]), str(context.node_config.get("finds", "20 of 20, 18"))
    if finds == "error":
        return Message(Error(7, "not\ntoday"), reply_to=message)
    if finds == "raises":
        raise RuntimeError("the camera fell off")
    if finds == "nothing":
        return Message(RecordDict(), reply_to=message)
    if finds == "garbage":
        return Message(RecordDict({"report": ConfigRecord({"examples": "many"})}), reply_to=message)
    correct, examples, parent = (int(part) for part in finds.replace(" of ", ",").split(","))
    report = EvaluateReport(client, task.model_sha256, examples, correct, parent).to_record()
    report |= {"client_id": context.node_config.get("named", client)}  # type: ignore[dict-item]
    report |= {"model_sha256": "f" * 64} if context.node_config.get("another model") else {}
    return Message(RecordDict({"report": ConfigRecord(report)}), reply_to=message)  # type: ignore[arg-type]


class Here:
    """Answers every message at once, in this process."""

    def submit(self, call: Any, letter: Any, *arguments: Any) -> Future[None]:
        kind, parts = letter.__reduce__()
        call(kind(*parts), *arguments)
        identify_process(run_id=RUN_ID, node_id=SERVER_NODE_ID)
        done: Future[None] = Future()
        done.set_result(None)
        return done


def judges(*names: str, **how: Any) -> list[dict[str, Any]]:
    """Clients that all behave alike."""
    return [{"client": name, **how} for name in names]


class Town:
    """A server's registry and engine, its clients, and the trials of new models. Made again, it is a restart."""

    def __init__(self, folder: Path, clients: list[dict[str, Any]], url: str | None = None, **policy: Any) -> None:
        self.engine: RoundEngine = toy_engine(folder, url=url)
        self.engine.new_state = CANDIDATE
        self.registry, self.artifacts = self.engine.registry, self.engine.artifacts
        self.policy = ReleasePolicy(**policy)
        self.live(clients)

    def live(self, clients: list[dict[str, Any]]) -> None:
        """From now on these are the clients that are there."""
        grid = LocalGrid("toy_judges:app", clients, {}, cast(ProcessPoolExecutor, Here()))
        self.presence = Presence(grid, self.registry.saw, offer=self.registry.offer, again_s=0.0)
        self.trials = Trials(self.presence, self.registry, self.artifacts, self.policy, "head")

    def candidate(self, clients: str = "abc") -> str:
        """The model of a round with these clients."""
        enlist(self.engine, *clients)
        current = self.engine.open(tuple(clients))
        for client in clients:
            self.engine.receive(current, honest_reply(current.expectation, client))
        return str(self.engine.finish(current))

    def steps(self, count: int = 1) -> str | None:
        """So many looks of the coordinator; why a model is still undecided after the last."""
        undecided = None
        for _ in range(count):
            self.presence.refresh()
            undecided = self.trials.step()
        return undecided

    def state(self) -> str:
        """The newest version's."""
        return self.registry.models()[-1].state

    def note(self) -> str:
        """What is stored of the newest version's trial."""
        return self.registry.trial_notes()[self.registry.models()[-1].version]
