"""The coordinator: carries the round engine's messages over a Flower grid, the real one or a simulated one.

Replies are pulled one at a time, so that memory does not grow with the cohort, and judged as they come. A client that
answers with an error, or with something that is no reply of ours, costs its own contribution only. A message that
Flower lost is sent again when its client is there again; a client that has trained already answers from its outbox.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

from mcoe_model.errors import RoundFailed, TooFewSubjects
from mcoe_model.tensors import STYPE, pack, unpack
from server.acceptance import Accepted, Rejected, Reply
from server.cohort import choose_cohort, cohort_size
from server.presence import Presence, record
from server.rounds import RoundEngine, RoundInProgress
from server.superlink.messages import is_lost

#: A client whose message or reply was lost this often in a round is not asked in it again.
LOSSES = 20
#: A round of a run with an end that is abandoned this often in a row ends the run.
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


@dataclass(frozen=True)
class Waiting:
    """No round can open: ``present`` clients with clips are there, ``needed`` are needed."""

    present: int
    needed: int


Event = RoundOpened | ReplyJudged | RoundEnded | Waiting


@dataclass(frozen=True)
class Policy:
    """When rounds open and close. The defaults are a simulation's, whose clients are all there from the start.

    - ``rounds``: end after so many published ones; 0 goes on for ever.
    - ``cohort``: whom a round needs: all, a number or a share of those present.
    - ``over_select``: so many times more are asked, and the round closes as soon as enough were accepted.
    - ``fair``: prefer clients that have not been asked for long; a simulation draws uniformly.
    - ``min_clients``: a round opens when so many clients with clips are present.
    - ``deadline_s``: a round closes after so many seconds without those who have not answered.
    - ``pause_s``: seconds between the end of a round and the opening of the next.
    - ``max_in_flight``: train messages that are outstanding at a time; each takes server memory until it is answered.
    - ``poll_s``: seconds between two looks when there was nothing.
    """

    rounds: int
    cohort: str = "all"
    over_select: float = 1.0
    fair: bool = False
    min_clients: int = 1
    deadline_s: float = math.inf
    pause_s: float = 0.0
    max_in_flight: int = 64
    poll_s: float = 0.5


@dataclass
class Coordinator:
    """Runs rounds of one experiment. Start it again after a crash: it goes on with the same round.

    ``may_open`` is asked before a round opens, for what is no business of a round's, such as a full disk.
    """

    presence: Presence
    engine: RoundEngine
    policy: Policy
    seed: int
    watch: Callable[[Event], None]
    may_open: Callable[[], bool] = lambda: True
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Until every round is published, or ``stopped`` is set: an open round then stays open.

        A run with an end raises RoundFailed when a round is abandoned three times, TooFewSubjects when nobody is there.
        """
        registry = self.engine.registry
        current = self.engine.resume()
        while not self.policy.rounds or registry.last_published() < self.policy.rounds:
            if current is None:
                current = self._open()
            if current is None:
                return
            self._exchange(current)
            if self.stopped.is_set():
                return
            number = current.row.number
            for client in self.engine.waiting_for(current):
                self.engine.no_reply(current, client, "no reply")
            sha256 = self.engine.finish(current)
            self.watch(RoundEnded(number, sha256))
            current = None
            if self.policy.rounds and registry.failed_attempts() >= ATTEMPTS:
                reason = registry.rounds()[-1].reason
                raise RoundFailed(f"round {number} was abandoned {ATTEMPTS} times in a row; the last time, {reason}")
            if self.policy.pause_s:
                self.stopped.wait(self.policy.pause_s)

    def _open(self) -> RoundInProgress | None:
        """Open the next round as soon as enough clients are present; None when stopped."""
        said = -1
        while not self.stopped.is_set():
            self.presence.refresh()
            here = self.presence.clients.items()
            clients = sorted(c for c, p in here if p.check_in.examples and self.engine.may_take_part(c))
            # Who has not answered yet may still come: only a fleet without an end opens without it.
            settled = bool(self.policy.pause_s) or not self.presence.unanswered
            if settled and len(clients) >= self.policy.min_clients and self.may_open():
                registry = self.engine.registry
                needed = cohort_size(self.policy.cohort, len(clients))
                cohort = choose_cohort(
                    clients,
                    min(len(clients), math.ceil(round(needed * self.policy.over_select, 9))),
                    seed=self.seed,
                    round_number=registry.last_published() + 1,
                    attempt=registry.failed_attempts(),
                    waited=registry.waited() if self.policy.fair else None,
                )
                return self.engine.open(cohort)
            if settled and self.policy.rounds:
                raise TooFewSubjects("no client with labelled clips checked in; nothing can be learned")
            if settled and len(clients) != said:
                said = len(clients)
                self.watch(Waiting(said, self.policy.min_clients))
            self.stopped.wait(self.policy.poll_s)
        return None

    def _exchange(self, current: RoundInProgress) -> None:
        """Send the task to everybody of the cohort who is or comes there, and judge replies one by one."""
        waiting = set(self.engine.waiting_for(current))
        self.watch(RoundOpened(current.row.number, len(current.row.cohort), len(waiting)))
        model = ArrayRecord({"tensors": _array(pack(current.payload))})
        ends = time.monotonic() + self.policy.deadline_s
        enough = math.ceil(round(len(current.row.cohort) / self.policy.over_select, 9))
        accepted = sum(reply.accepted for reply in self.engine.registry.replies(current.row.id))
        sent: dict[str, str] = {}
        lost: Counter[str] = Counter()
        while waiting and accepted < enough and time.monotonic() < ends and not self.stopped.is_set():
            self.presence.refresh()
            for client in sorted(waiting - set(sent.values()))[: self.policy.max_in_flight - len(sent)]:
                if client in self.presence.clients:
                    sent |= dict.fromkeys(self._send(current, client, model), client)
            gone = not sent and not self.presence.unanswered and math.isinf(self.policy.deadline_s)
            if gone:
                return  # nobody else can come
            arrived = False
            for message_id in list(sent):
                if accepted >= enough:
                    break
                for reply in self.presence.grid.pull_messages([message_id]):
                    arrived = True
                    client = sent.pop(message_id)
                    if reply.has_error() and is_lost(reply.error) and lost[client] < LOSSES:
                        lost[client] += 1
                        self.presence.forget(client)
                        continue
                    waiting.discard(client)
                    verdict = self._judge(current, client, reply)
                    accepted += isinstance(verdict, Accepted)
                    self.watch(ReplyJudged(current.row.number, client, verdict))
            if not arrived:
                self.stopped.wait(self.policy.poll_s)

    def _send(self, current: RoundInProgress, client: str, model: ArrayRecord) -> list[str]:
        present = self.presence.clients[client]
        news = self.presence.news(present.check_in)
        content = RecordDict(
            {
                "model": model,
                "task": ConfigRecord(current.task.to_record()),  # type: ignore[arg-type]
                "news": ConfigRecord(news.to_record()),  # type: ignore[arg-type]
            }
        )
        group = str(current.row.number)
        message = Message(content, dst_node_id=present.node, message_type=MessageType.TRAIN, group_id=group)
        return list(self.presence.grid.push_messages([message]))

    def _judge(self, current: RoundInProgress, client: str, message: Message) -> Accepted | Rejected:
        if message.has_error():
            reason = f"client error: {message.error.reason or 'no reason given'}"
            self.engine.no_reply(current, client, reason)
            return Rejected(reason)
        try:
            update = unpack(record(message, "update")["tensors"].data)
            reply = Reply(client, update, dict(record(message, "meta")), dict(record(message, "report")))
        except Exception as fault:  # whatever a client sends must not end the others' round
            reason = f"reply cannot be read: {fault}"
            self.engine.no_reply(current, client, reason)
            return Rejected(reason)
        return self.engine.receive(current, reply)


def _array(packed: bytes) -> Array:
    return Array(dtype="uint8", shape=(len(packed),), stype=STYPE, data=packed)
