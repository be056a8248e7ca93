"""Who is there: nodes that are online, asked who they are, and the check-ins that they answered with."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from mcoe_model.protocol import CheckIn, OutboxNews, ProtocolError


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
    agree. Without it, a node is who it says, as in a simulation. ``news`` says what became of a check-in's updates.
    """

    grid: Grid
    saw: Callable[[CheckIn], None]
    identify: Callable[[int], str | None] | None = None
    news: Callable[[CheckIn], OutboxNews] = lambda check_in: OutboxNews()
    again_s: float = math.inf
    lost_s: float = math.inf
    clients: dict[str, Present] = field(default_factory=dict)
    _asked: dict[int, float] = field(default_factory=dict)
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
        self.clients = {client: present for client, present in self.clients.items() if present.node in online}
        lost = {node for node, when in self._asked.items() if now - when >= self.lost_s}
        self._questions = {q: node for q, node in self._questions.items() if node in online and node not in lost}
        due = [node for node in sorted(online) if now - self._asked.get(node, -math.inf) >= self.again_s]
        new = [node for node in sorted(online) if node not in self._asked]
        for node in sorted({*due, *new} - set(self._questions.values())):
            self._ask(node, now)
        for question in list(self._questions):
            for answer in self.grid.pull_messages([question]):
                self._hear(self._questions.pop(question), answer)

    def forget(self, client: str) -> None:
        """A client did not get its message or lost its reply: it is there again when it answers the next question."""
        present = self.clients.pop(client, None)
        if present is not None:
            self._asked.pop(present.node, None)

    def _ask(self, node: int, now: float) -> None:
        self._asked[node] = now
        if self.identify and self.identify(node) is None:
            self.clients = {client: present for client, present in self.clients.items() if present.node != node}
            return
        before = next((present.check_in for present in self.clients.values() if present.node == node), None)
        news = self.news(before) if before else OutboxNews()
        content = RecordDict({"news": ConfigRecord(news.to_record())})  # type: ignore[arg-type]
        message = Message(content, dst_node_id=node, message_type=MessageType.QUERY)
        for message_id in self.grid.push_messages([message]):
            self._questions[message_id] = node

    def _hear(self, node: int, answer: Message) -> None:
        try:
            if not answer.has_content():
                raise ProtocolError(answer.error.reason)
            said = CheckIn.from_record(record(answer, "check-in"))
        except ProtocolError:
            return  # a node that does not say who it is takes no part
        if self.identify and self.identify(node) != said.client_id:
            return
        taken = self.clients.get(said.client_id)
        if taken is None or taken.node == node:
            self.saw(said)
            self.clients[said.client_id] = Present(node, said)


def record(message: Message, name: str) -> Any:
    """A record of a message. Raises ProtocolError when there is none."""
    if name not in message.content:
        raise ProtocolError(f"the message holds no record {name!r}")
    return message.content[name]
