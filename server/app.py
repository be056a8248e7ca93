"""The coordinator: carries the round engine's messages over a Flower grid, the real one or a simulated one.

Replies are pulled one at a time, so that memory does not grow with the cohort, and judged as they come. A client that
answers with an error, or with something that is no reply of ours, costs its own contribution only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from mcoe_model.errors import RoundFailed, TooFewSubjects
from mcoe_model.protocol import CheckIn, ProtocolError
from mcoe_model.tensors import STYPE, pack, unpack
from server.acceptance import Accepted, Rejected, Reply
from server.cohort import choose_cohort, cohort_size
from server.rounds import RoundEngine, RoundInProgress

#: A round that is abandoned this often in a row ends the run.
ATTEMPTS = 3


@dataclass(frozen=True)
class RoundOpened:
    """A round began, or goes on after a restart: ``waiting`` of ``cohort`` clients have not been heard."""

    number: int
    cohort: int
    waiting: int


@dataclass(frozen=True)
class ReplyJudged:
    """One client of the round was heard."""

    number: int
    client_id: str
    verdict: Accepted | Rejected


@dataclass(frozen=True)
class RoundEnded:
    """A round was published as a model, or abandoned (``sha256`` is None)."""

    number: int
    sha256: str | None


Event = RoundOpened | ReplyJudged | RoundEnded


@dataclass
class Coordinator:
    """Runs rounds of one experiment until ``rounds`` are published. Start it again after a crash: it goes on.

    ``poll`` is the time between two looks for replies when none was there, in seconds.
    """

    grid: Grid
    engine: RoundEngine
    rounds: int
    cohort: str
    seed: int
    watch: Callable[[Event], None]
    poll: float = 0.5

    def run(self) -> None:
        """Raises RoundFailed when the same round is abandoned three times, TooFewSubjects when nobody is there."""
        registry = self.engine.registry
        current = self.engine.resume()
        nodes = self._check_in()
        while registry.last_published() < self.rounds:
            if current is None:
                number = registry.last_published() + 1
                size = cohort_size(self.cohort, len(nodes))
                attempt = registry.failed_attempts()
                cohort = choose_cohort(sorted(nodes), size, seed=self.seed, round_number=number, attempt=attempt)
                current = self.engine.open(cohort)
            waiting = self.engine.waiting_for(current)
            number = current.row.number
            self.watch(RoundOpened(number, len(current.row.cohort), len(waiting)))
            self._exchange(current, {nodes[client]: client for client in waiting if client in nodes})
            for client in self.engine.waiting_for(current):
                self.engine.no_reply(current, client, "no reply")
            sha256 = self.engine.finish(current)
            self.watch(RoundEnded(number, sha256))
            current = None
            if registry.failed_attempts() >= ATTEMPTS:
                reason = registry.rounds()[-1].reason
                raise RoundFailed(f"round {number} was abandoned {ATTEMPTS} times in a row; the last time, {reason}")

    def _check_in(self) -> dict[str, int]:
        """The node of every client that answers, by client id."""
        question = [
            Message(RecordDict(), dst_node_id=node, message_type=MessageType.QUERY) for node in self.grid.get_node_ids()
        ]
        nodes: dict[str, int] = {}
        for answer in self.grid.send_and_receive(question):
            try:
                if not answer.has_content():
                    raise ProtocolError(answer.error.reason)
                client = CheckIn.from_record(_record(answer, "check-in"))
            except ProtocolError:
                continue  # a node that does not say who it is takes no part
            if client.examples and client.client_id not in nodes:
                self.engine.registry.saw(client)
                nodes[client.client_id] = answer.metadata.src_node_id
        if not nodes:
            raise TooFewSubjects("no client with labelled clips checked in; nothing can be learned")
        return nodes

    def _exchange(self, current: RoundInProgress, clients: dict[int, str]) -> None:
        """Send the task to these nodes and judge their replies one by one."""
        sender: dict[str, str] = {}
        arrays = ArrayRecord({"tensors": _array(pack(current.payload))})
        for node, client in clients.items():
            content = RecordDict({"model": arrays, "task": ConfigRecord(current.task.to_record())})  # type: ignore[arg-type]
            message = Message(
                content, dst_node_id=node, message_type=MessageType.TRAIN, group_id=str(current.row.number)
            )
            for message_id in self.grid.push_messages([message]):
                sender[message_id] = client
        while sender:
            arrived = False
            for message_id in list(sender):
                for reply in self.grid.pull_messages([message_id]):
                    arrived = True
                    client = sender.pop(message_id)
                    self.watch(ReplyJudged(current.row.number, client, self._judge(current, client, reply)))
            if not arrived:
                time.sleep(self.poll)

    def _judge(self, current: RoundInProgress, client: str, message: Message) -> Accepted | Rejected:
        if message.has_error():
            reason = f"client error: {message.error.reason or 'no reason given'}"
            self.engine.no_reply(current, client, reason)
            return Rejected(reason)
        try:
            update = unpack(_record(message, "update")["tensors"].data)
            reply = Reply(client, update, dict(_record(message, "meta")), dict(_record(message, "report")))
        except Exception as fault:  # whatever a client sends must not end the others' round
            reason = f"reply cannot be read: {fault}"
            self.engine.no_reply(current, client, reason)
            return Rejected(reason)
        return self.engine.receive(current, reply)


def _record(message: Message, name: str) -> Any:
    if name not in message.content:
        raise ProtocolError(f"the message holds no record {name!r}")
    return message.content[name]


def _array(packed: bytes) -> Array:
    return Array(dtype="uint8", shape=(len(packed),), stype=STYPE, data=packed)
