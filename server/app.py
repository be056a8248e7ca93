"""The coordinator: carries the round engine's messages over a Flower grid, the real one or a simulated one.

Replies are pulled one at a time, so that memory does not grow with the cohort, and judged as they come. A client that
answers with an error, or with something that is no reply of ours, costs its own contribution only. A message that
Flower lost is sent again when its client is there again; a client that has trained already answers from its outbox.
"""

from __future__ import annotations

import datetime
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

from mcoe_model.errors import RoundFailed, TooFewSubjects
from mcoe_model.protocol import MAX_CHECK_IN_S
from mcoe_model.tensors import unpack
from server.acceptance import Accepted, Rejected, Reply
from server.check_ins import STILL_THERE
from server.cohort import choose_cohort, cohort_size
from server.opening import Opening
from server.presence import Presence, packed, record
from server.registry import utc_now
from server.registry.replies import NO_REPLY
from server.rounds import RoundEngine, RoundInProgress
from server.superlink.messages import is_lost

#: A client whose message or reply was lost this often in a round is not asked in it again.
LOSSES = 20
#: Seconds between two looks at who of an open round's cohort has left the fleet.
LOOK_S = 1.0
#: A round of a run with an end that is abandoned this often in a row ends the run.
ATTEMPTS = 3
#: In a run without an end the pause doubles with every attempt that is abandoned, up to so many seconds.
REST_S = 3600.0


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
    """No round is open, for this reason."""

    reason: str


Event = RoundOpened | ReplyJudged | RoundEnded | Waiting


@dataclass(frozen=True)
class Policy:
    """When rounds open and close. The defaults are a simulation's, whose clients are all there from the start.

    - ``rounds``: end after so many published ones; 0 goes on for ever.
    - ``cohort``: whom a round needs: all, a number or a share of those present.
    - ``over_select``: so many times more are asked, and the round closes as soon as enough were accepted.
    - ``fair``: prefer clients that have not been asked for long; a simulation draws uniformly.
    - ``opening``: when rounds open.
    - ``deadline_s``: a round closes after so many seconds without those who have not answered.
    - ``pause_s``: seconds between the end of a round and the opening of the next; more after failed attempts.
    - ``max_in_flight``: train messages that are outstanding at a time; each takes server memory until it is answered.
    - ``poll_s``: seconds between two looks when there was nothing.
    """

    rounds: int
    cohort: str = "all"
    over_select: float = 1.0
    fair: bool = False
    opening: Opening = Opening()  # noqa: RUF009 (it is frozen)
    deadline_s: float = math.inf
    pause_s: float = 0.0
    max_in_flight: int = 64
    poll_s: float = 0.5


@dataclass
class Coordinator:
    """Runs rounds of one experiment. Start it again after a crash: it goes on with the same round.

    ``obstacle`` says before a round opens why it must not, for what is no business of a round's, such as a full disk;
    ``undecided``, why the newest model is not decided, once it has taken it as far as it goes (`server.trials`).
    ``under_way`` remembers the train messages of a round, by name, that wait for a reply: the client of each by its
    message id.
    """

    presence: Presence
    engine: RoundEngine
    policy: Policy
    seed: int
    watch: Callable[[Event], None]
    obstacle: Callable[[], str | None] = lambda: None
    stopped: threading.Event = field(default_factory=threading.Event)
    under_way: Callable[[str], MutableMapping[str, str]] = lambda name: {}
    undecided: Callable[[], str | None] = lambda: None
    _late: list[str] = field(default_factory=list)
    _rested: float = -math.inf

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
                self.engine.no_reply(current, client, NO_REPLY)
            sha256 = self.engine.finish(current)
            self.watch(RoundEnded(number, sha256))
            current = None
            failed = registry.failed_attempts()
            if self.policy.rounds and failed >= ATTEMPTS:
                reason = registry.rounds()[-1].reason
                raise RoundFailed(f"round {number} was abandoned {ATTEMPTS} times in a row; the last time, {reason}")
            if self.policy.pause_s:
                self.stopped.wait(self.policy.pause_s)
            self._rested = time.monotonic() + rest(self.policy.pause_s, failed)

    def _open(self) -> RoundInProgress | None:
        """Open the next round when it is time and enough clients are present; None when stopped."""
        said = None
        while not self.stopped.is_set():
            self.presence.refresh()
            reason = self.undecided()
            # Who has not answered yet may still come: only a fleet without an end opens without it.
            if reason is None and (not self.policy.rounds or not self.presence.unanswered):
                ready, idle, absent = self._present()
                too_few = self.policy.opening.too_few(ready, idle, absent)
                if too_few and self.policy.rounds:
                    raise TooFewSubjects("no client with labelled clips checked in; nothing can be learned")
                reason = self._not_yet() or self._resting() or too_few or self.obstacle()
                if reason is None:
                    return self._open_with(ready)
            if reason is not None and reason != said:
                said = reason
                self.engine.registry.say_waiting(reason)
                self.watch(Waiting(reason))
            self.stopped.wait(self.policy.poll_s)
        return None

    def _present(self) -> tuple[list[str], list[str], list[str]]:
        """The clients that are there with something to learn, those that are there without, and those that are not."""
        enrolled = self.engine.registry.enrolled()  # some may have left since they checked in
        here = {client: present for client, present in self.presence.clients.items() if client in enrolled}
        most = self.policy.opening.same_data_rounds
        learned = self.engine.registry.nothing_new(most) if most else frozenset()
        able = {c for c, p in here.items() if p.check_in.examples and self.presence.may_train(c)}
        if every_s := self.presence.check_ins.every_s:  # who sleeps comes while the round is open
            heard_s = STILL_THERE * every_s
            if self.engine.settings.first_k:  # the round waits for the first ones only, whenever the others come
                heard_s = max(heard_s, min(self.policy.deadline_s, MAX_CHECK_IN_S))
            able |= self.engine.registry.able_since(utc_now() - datetime.timedelta(seconds=heard_s))
        ready = self.engine.eligible(able - learned)
        absent = self.engine.eligible(enrolled - here.keys() - set(ready))
        return ready, sorted(here.keys() - set(ready)), absent

    def _not_yet(self) -> str | None:
        """Why it is not time for a round."""
        opening, registry = self.policy.opening, self.engine.registry
        if opening.when == "ready":
            return None
        return opening.not_yet(utc_now(), registry.last_opened(), registry.round_requested())

    def _resting(self) -> str | None:
        """Why a round that failed is not tried again yet; on command it is."""
        registry = self.engine.registry
        if time.monotonic() >= self._rested or registry.round_requested():
            return None
        number, failed = registry.last_published() + 1, registry.failed_attempts()
        seconds = rest(self.policy.pause_s, failed)
        return (
            f"attempt {failed} at round {number} was abandoned (see: mcoe-server rounds list); the next one begins "
            f"{seconds:.0f} seconds later, or with: mcoe-server rounds open"
        )

    def _open_with(self, clients: Sequence[str]) -> RoundInProgress:
        """Open the next round with a cohort of these."""
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

    def _exchange(self, current: RoundInProgress) -> None:
        """Send the task to everybody of the cohort who is or comes there, and judge replies one by one."""
        waiting = set(self.engine.waiting_for(current))
        self.watch(RoundOpened(current.row.number, len(current.row.cohort), len(waiting)))
        model = packed(current.payload)
        been_open = max(0.0, (utc_now() - current.row.opened).total_seconds())  # in an earlier process
        ends, look = time.monotonic() + self.policy.deadline_s - been_open, time.monotonic() + LOOK_S
        enough = current.settings.first_k or math.ceil(round(len(current.row.cohort) / self.policy.over_select, 9))
        accepted = self.engine.registry.accepted(current.row.id)
        sent = self.under_way(current.row.spool_name)
        lost: Counter[str] = Counter()
        while waiting and accepted < enough and time.monotonic() < ends and not self.stopped.is_set():
            self.presence.refresh()
            there = (waiting - set(sent.values())) & self.presence.clients.keys()
            able = sorted(filter(self.presence.may_train, there))
            for client in able[: max(0, self.policy.max_in_flight - len(sent))]:
                sent.update(dict.fromkeys(self._send(current, client, model), client))
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
                    self.presence.acknowledge(client)
            self._discard_late()
            if not arrived:
                self.stopped.wait(self.policy.poll_s)
            if accepted >= enough or time.monotonic() > look:
                look = time.monotonic() + LOOK_S
                # Who left the fleet is not awaited, and what it sent counts no more.
                waiting &= set(self.engine.waiting_for(current))
                accepted = self.engine.registry.accepted(current.row.id)
                for message_id in [sent_id for sent_id, client in sent.items() if client not in waiting]:
                    del sent[message_id]
                    self._late.append(message_id)
        if self.presence.check_ins.every_s:
            self.presence.refresh()  # aggregation takes a while, and those who sent want to leave
        self._late += sent
        if not self.stopped.is_set():
            sent.clear()  # the file of those under way names clients

    def _discard_late(self) -> None:
        """Look for one reply to a round that is closed: nobody else takes it out of the SuperLink's memory.

        What counts of it is in its client's outbox, and comes again where it is welcome.
        """
        if self._late:
            message_id = self._late.pop(0)
            if not list(self.presence.grid.pull_messages([message_id])):
                self._late.append(message_id)

    def _send(self, current: RoundInProgress, client: str, model: ArrayRecord) -> list[str]:
        present = self.presence.clients[client]
        news = self.presence.tell(present)
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


def rest(pause_s: float, failed: int) -> float:
    """Seconds that a round waits which was abandoned so often in a row, after the pause between any two rounds."""
    return min(REST_S, pause_s * 2 ** min(failed, 30)) if failed else 0.0
