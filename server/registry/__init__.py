"""The registry: what happened in every round, in SQL. Every method is one transaction."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from mcoe_model.protocol import CheckIn
from mcoe_model.router_statistics import RouterStatistics
from server.acceptance import Accepted, Rejected
from server.aggregation.rule import Contribution
from server.registry.tables import Client, Evaluation, Member, Model, Reply, Round, RouterRow

OPEN, CLOSED, PUBLISHED, ABANDONED = "open", "closed", "published", "abandoned"


@dataclass(frozen=True)
class RoundRow:
    """One round as stored."""

    id: int
    number: int
    attempt: int
    state: str
    base_sha256: str
    published_sha256: str | None
    norm_bound: float | None
    settings: dict[str, Any]
    reason: str | None
    cohort: tuple[str, ...]


@dataclass(frozen=True)
class Transfer:
    """Bytes of one exchange: the train message down, the reply up (tensors only)."""

    down: int
    up: int


def utc_now() -> datetime.datetime:
    """The time that rows carry."""
    return datetime.datetime.now(datetime.UTC)


class Registry:
    """One experiment's view of the registry database."""

    def __init__(self, engine: Engine, experiment: str) -> None:
        self.engine = engine
        self.experiment = experiment

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with Session(self.engine) as session, session.begin():
            yield session

    # -- clients ----------------------------------------------------------------------------------------------

    def saw(self, check_in: CheckIn) -> None:
        """Record that a client checked in."""
        with self._transaction() as session:
            client = session.get(Client, check_in.client_id)
            if client is None:
                client = Client(id=check_in.client_id, first_seen=utc_now())
                session.add(client)
            client.last_seen = utc_now()
            client.examples = check_in.examples
            client.client_version = check_in.client_version

    # -- models -----------------------------------------------------------------------------------------------

    def add_first_model(self, sha256: str, generation: str) -> None:
        """Record version 1, whose artifact exists. A repeat changes nothing."""
        with self._transaction() as session:
            if self._newest(session) is None:
                session.add(self._model(1, sha256, None, generation))

    def newest_model(self) -> str | None:
        """The SHA-256 of the experiment's newest model, or None before the first."""
        with self._transaction() as session:
            newest = self._newest(session)
            return newest.sha256 if newest else None

    def _newest(self, session: Session) -> Model | None:
        query = select(Model).where(Model.experiment == self.experiment).order_by(Model.version.desc()).limit(1)
        return session.scalars(query).first()

    def _model(self, version: int, sha256: str, parent: str | None, generation: str) -> Model:
        return Model(
            experiment=self.experiment,
            version=version,
            sha256=sha256,
            parent_sha256=parent,
            generation=generation,
            state="released",
            created=utc_now(),
        )

    # -- rounds -----------------------------------------------------------------------------------------------

    def open_round(
        self, base_sha256: str, cohort: Sequence[str], settings: dict[str, Any], norm_bound: float | None
    ) -> RoundRow:
        """Open the next round: the number after the last published one, one more attempt if that was tried before."""
        with self._transaction() as session:
            number = self._last_published(session) + 1
            tried = session.scalar(
                select(func.count()).where(Round.experiment == self.experiment, Round.number == number)
            )
            opened = Round(
                experiment=self.experiment,
                number=number,
                attempt=(tried or 0) + 1,
                state=OPEN,
                base_sha256=base_sha256,
                settings=settings,
                norm_bound=norm_bound,
                opened=utc_now(),
            )
            session.add(opened)
            session.flush()
            session.add_all(Member(round_id=opened.id, client_id=client) for client in sorted(cohort))
            session.flush()
            return self._row(session, opened)

    def unfinished_round(self) -> RoundRow | None:
        """The round that is open or closed but not published, if any."""
        with self._transaction() as session:
            query = select(Round).where(Round.experiment == self.experiment, Round.state.in_([OPEN, CLOSED]))
            found = session.scalars(query).first()
            return self._row(session, found) if found else None

    def rounds(self) -> list[RoundRow]:
        """Every round of the experiment, oldest first."""
        with self._transaction() as session:
            query = select(Round).where(Round.experiment == self.experiment).order_by(Round.id)
            return [self._row(session, found) for found in session.scalars(query)]

    def last_published(self) -> int:
        """The number of the last published round, 0 before the first."""
        with self._transaction() as session:
            return self._last_published(session)

    def failed_attempts(self) -> int:
        """How often the next round was tried and abandoned."""
        with self._transaction() as session:
            number = self._last_published(session) + 1
            query = select(func.count()).where(
                Round.experiment == self.experiment, Round.number == number, Round.state == ABANDONED
            )
            return session.scalar(query) or 0

    def _last_published(self, session: Session) -> int:
        query = select(func.max(Round.number)).where(Round.experiment == self.experiment, Round.state == PUBLISHED)
        return session.scalar(query) or 0

    def _row(self, session: Session, found: Round) -> RoundRow:
        query = select(Member.client_id).where(Member.round_id == found.id).order_by(Member.client_id)
        return RoundRow(
            found.id,
            found.number,
            found.attempt,
            found.state,
            found.base_sha256,
            found.published_sha256,
            found.norm_bound,
            found.settings,
            found.reason,
            tuple(session.scalars(query)),
        )

    def is_open(self, round_id: int) -> bool:
        """Whether a round still takes replies."""
        with self._transaction() as session:
            return session.get_one(Round, round_id).state == OPEN

    def close_round(self, round_id: int) -> None:
        """Fix the set of accepted updates."""
        with self._transaction() as session:
            found = session.get_one(Round, round_id)
            found.state, found.closed = CLOSED, utc_now()

    def abandon_round(self, round_id: int, reason: str) -> None:
        """End a round without a model."""
        with self._transaction() as session:
            found = session.get_one(Round, round_id)
            found.state, found.closed, found.reason = ABANDONED, utc_now(), reason

    def publish_round(self, round_id: int, sha256: str, generation: str) -> None:
        """Record the round's model, whose artifact exists, and that the round is done: one transaction."""
        with self._transaction() as session:
            found = session.get_one(Round, round_id)
            newest = self._newest(session)
            session.add(self._model(newest.version + 1 if newest else 1, sha256, found.base_sha256, generation))
            found.state, found.published_sha256 = PUBLISHED, sha256

    # -- replies ----------------------------------------------------------------------------------------------

    def verdict(self, round_id: int, client_id: str) -> bool | None:
        """Whether this client's reply was accepted in this round; None when there is none yet."""
        with self._transaction() as session:
            reply = session.get(Reply, (round_id, client_id))
            return None if reply is None else reply.accepted

    def holds_update(self, round_id: int, update_id: str) -> bool:
        """Whether an update with this id was accepted in this round."""
        with self._transaction() as session:
            query = select(Reply.client_id).where(Reply.round_id == round_id, Reply.update_id == update_id)
            return session.scalars(query).first() is not None

    def record_reply(self, round_id: int, client_id: str, verdict: Accepted | Rejected, transfer: Transfer) -> None:
        """Store a verdict, and the router statistics of an accepted reply, in one transaction."""
        with self._transaction() as session:
            row = Reply(
                round_id=round_id,
                client_id=client_id,
                accepted=isinstance(verdict, Accepted),
                bytes_down=transfer.down,
                bytes_up=transfer.up,
                received=utc_now(),
            )
            if isinstance(verdict, Rejected):
                row.reason = verdict.reason
            else:
                report = verdict.report
                row.update_id, row.norm = verdict.meta.update_id, verdict.norm
                row.examples, row.seconds = report.examples, report.seconds
                row.loss_before, row.loss_after = report.loss_before, report.loss_after
                session.add_all(
                    RouterRow(
                        round_id=round_id,
                        client_id=client_id,
                        expert=expert,
                        examples=report.router.examples,
                        top_k=report.router.top_k,
                        routed=routed,
                        gate_mass=mass,
                    )
                    for expert, (routed, mass) in enumerate(
                        zip(report.router.routed, report.router.gate_mass, strict=True)
                    )
                )
            session.add(row)

    def replies(self, round_id: int) -> list[Reply]:
        """Every verdict of a round, by client id."""
        with Session(self.engine, expire_on_commit=False) as session:
            query = select(Reply).where(Reply.round_id == round_id).order_by(Reply.client_id)
            return list(session.scalars(query))

    def contributions(self, round_id: int) -> list[Contribution]:
        """The accepted updates of a round, in update-id order."""
        router = self.router_statistics(round_id)
        accepted = [reply for reply in self.replies(round_id) if reply.accepted]
        found = [
            Contribution(reply.update_id, reply.client_id, reply.examples, router[reply.client_id])
            for reply in accepted
            if reply.update_id is not None and reply.examples is not None
        ]
        return sorted(found, key=lambda contribution: contribution.update_id)

    def router_statistics(self, round_id: int) -> dict[str, RouterStatistics]:
        """Router statistics by client id, for the accepted replies of a round."""
        with self._transaction() as session:
            query = select(RouterRow).where(RouterRow.round_id == round_id)
            rows = list(session.scalars(query.order_by(RouterRow.client_id, RouterRow.expert)))
            by_client: dict[str, list[RouterRow]] = {}
            for row in rows:
                by_client.setdefault(row.client_id, []).append(row)
            return {
                client: RouterStatistics(
                    found[0].examples,
                    found[0].top_k,
                    tuple(row.routed for row in found),
                    tuple(row.gate_mass for row in found),
                )
                for client, found in by_client.items()
            }

    def median_norm(self, rounds: int) -> float | None:
        """The median norm of the accepted updates of the last published rounds, or None before the first."""
        with self._transaction() as session:
            last = self._last_published(session)
            query = (
                select(Reply.norm)
                .join(Round, Round.id == Reply.round_id)
                .where(Round.experiment == self.experiment, Round.state == PUBLISHED, Round.number > last - rounds)
                .where(Reply.accepted)
            )
            norms = [norm for norm in session.scalars(query) if norm is not None]
            return statistics.median(norms) if norms else None

    # -- evaluations ------------------------------------------------------------------------------------------

    def record_evaluation(self, model_sha256: str, evaluation_set: str, scores: dict[str, Any]) -> None:
        """Store what a model scored on a named set; a repeat replaces it."""
        with self._transaction() as session:
            session.merge(Evaluation(model_sha256=model_sha256, evaluation_set=evaluation_set, scores=scores))

    def evaluation(self, model_sha256: str, evaluation_set: str) -> dict[str, Any] | None:
        """What a model scored on a named set, or None."""
        with self._transaction() as session:
            found = session.get(Evaluation, (model_sha256, evaluation_set))
            return found.scores if found else None
