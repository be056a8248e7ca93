"""Who is there: nodes that are online, asked who they are, and the check-ins that they answered with."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from mcoe_model.health import Health
from mcoe_model.model_file import Tensors
from mcoe_model.protocol import CheckIn, News, Offer, OtherProtocol, ProtocolError, Standing
from mcoe_model.tensors import STYPE, pack
from server.check_ins import CheckIns


@dataclass(frozen=True)
class Present:
    """A client that has checked in through a node that is still online."""

    node: int
    check_in: CheckIn


@dataclass
class Presence:
    """Keeps track of who is online. ``again_s``: a node that stays online is asked again after this many seconds.

    ``lost_s``: a question without an answer is given up after so many: long enough for a client that trains meanwhile.

    ``identify`` says which client a node is, or None for a node that may not take part; what the node says itself must
    agree. Without it, a node is who it says, as in a simulation. ``saw`` records a check-in with what the client heard
    or is about to hear, and says False of a client that has left meanwhile; ``speaks_other`` records a client whose
    protocol has this other version, ``lied`` one whose node said that it is another. ``note_health`` records what a
    client that was seen says of its health, if it does. ``news`` says what became of a
    check-in's updates, ``offer`` which model a client should run, ``check_ins`` what else it hears.
    """

    grid: Grid
    saw: Callable[[CheckIn, News], bool]
    identify: Callable[[int], str | None] | None = None
    news: Callable[[CheckIn], News] = lambda check_in: News()
    offer: Callable[[str], Offer | None] = lambda client: None
    again_s: float = math.inf
    lost_s: float = math.inf
    check_ins: CheckIns = CheckIns()  # noqa: RUF009 (it is frozen)
    speaks_other: Callable[[str, int], None] = lambda client, version: None
    lied: Callable[[str], None] = lambda client: None
    note_health: Callable[[str, Health], None] = lambda client, health: None
    clients: dict[str, Present] = field(default_factory=dict)
    _asked: dict[int, float] = field(default_factory=dict)
    _told: dict[int, News] = field(default_factory=dict)
    _questions: dict[str, int] = field(default_factory=dict)

    @property
    def unanswered(self) -> int:
        """Questions that wait for an answer."""
        return len(self._questions)

    def refresh(self) -> None:
        """Ask nodes that are new or due, and read the answers that are there. Never waits."""
        online = set(self.grid.get_node_ids())
        now = time.monotonic()
        self._asked = {node: when for node, when in self._asked.items() if node in online}
        self._told = {node: news for node, news in self._told.items() if node in online}
        self.clients = {client: present for client, present in self.clients.items() if present.node in online}
        lost = {node for node, when in self._asked.items() if now - when >= self.lost_s}
        given_up = {question for question, node in self._questions.items() if node in lost}
        due = [node for node in sorted(online) if now - self._asked.get(node, -math.inf) >= self.again_s]
        new = [node for node in sorted(online) if node not in self._asked]
        for node in sorted({*due, *new} - (set(self._questions.values()) - lost)):
            self._ask(node, now)
        for question in list(self._questions):
            for answer in self.grid.pull_messages([question]):
                self._hear(self._questions.pop(question), answer, online)
        # Only now: a wearable that said who it is may have left since.
        self._questions = {q: node for q, node in self._questions.items() if node in online and q not in given_up}

    def forget(self, client: str) -> None:
        """A client did not get its message or lost its reply: it is there again when it answers the next question."""
        present = self.clients.pop(client, None)
        if present is not None:
            self._asked.pop(present.node, None)

    def ask_again(self, client: str) -> None:
        """Ask a client that is there at the next `refresh`, though it is not due, unless it is being asked."""
        node = self.clients[client].node
        if node not in self._questions.values():
            self._asked.pop(node, None)

    def tell(self, present: Present) -> News:
        """What a client that is there hears with its next message."""
        said = present.check_in
        return self._timed(said.client_id, replace(self.news(said), standing=self._standing(said)))

    def may_train(self, client: str) -> bool:
        """Whether a client that is there has a program that is new enough."""
        return self._standing(self.clients[client].check_in) != "too-old"

    def _standing(self, said: CheckIn) -> Standing:
        return self.check_ins.standing(said.client_version)

    def _timed(self, client: str | None, news: News) -> News:
        if client is None:
            return news
        return replace(news, next_check_in_s=self.check_ins.next_s(client, time.time(), random.random()))

    def acknowledge(self, client: str) -> None:
        """A client that leaves between check-ins hears at the next `refresh` what became of its update."""
        if self.check_ins.every_s and client in self.clients:
            self.ask_again(client)

    def _ask(self, node: int, now: float) -> None:
        self._asked[node] = now
        member = self.identify(node) if self.identify else None
        if self.identify and member is None:
            self.clients = {client: present for client, present in self.clients.items() if present.node != node}
            return
        before = next((present for present in self.clients.values() if present.node == node), None)
        client = member or (before.check_in.client_id if before else None)
        self._told[node] = self.tell(before) if before else self._timed(client, News())
        content = RecordDict({"news": ConfigRecord(self._told[node].to_record())})  # type: ignore[arg-type]
        offer = self.offer(client) if client else None
        if offer:
            content["offer"] = ConfigRecord(offer.to_record())  # type: ignore[arg-type]
        message = Message(content, dst_node_id=node, message_type=MessageType.QUERY)
        for message_id in self.grid.push_messages([message]):
            self._questions[message_id] = node

    def _hear(self, node: int, answer: Message, online: set[int]) -> None:
        try:
            if not answer.has_content():
                raise ProtocolError(answer.error.reason)
            said = CheckIn.from_record(record(answer, "check-in"))
        except OtherProtocol as fault:
            member = self.identify(node) if self.identify else None
            if member:
                self.speaks_other(member, fault.version)
            return
        except ProtocolError:
            return  # a node that does not say who it is takes no part
        if self.identify and (member := self.identify(node)) != said.client_id:
            if member:
                self.lied(member)
            return
        taken = self.clients.get(said.client_id)
        if taken is not None and taken.node != node:
            return
        told, standing = self._told.get(node, News()), self._standing(said)
        if not self.saw(said, replace(told, standing=standing)):
            return
        with suppress(ProtocolError):  # an older program says nothing of it, a newer one perhaps something else
            self.note_health(said.client_id, Health.from_record(record(answer, "health")))
        if node in online:
            self.clients[said.client_id] = Present(node, said)
            news = self.tell(self.clients[said.client_id])
            if standing not in ("ok", told.standing):
                self.ask_again(said.client_id)  # it hears at once that it should be updated
            if {*news.accepted, *news.dropped} & set(said.outbox) - {*told.accepted, *told.dropped}:
                self.acknowledge(said.client_id)


def record(message: Message, name: str) -> Any:
    """A record of a message. Raises ProtocolError when there is none."""
    if name not in message.content:
        raise ProtocolError(f"the message holds no record {name!r}")
    return message.content[name]


def packed(tensors: Tensors) -> ArrayRecord:
    """Tensors as a record of one array."""
    data = pack(tensors)
    return ArrayRecord({"tensors": Array(dtype="uint8", shape=(len(data),), stype=STYPE, data=data)})
