"""Replies: verdicts, and the router statistics of those that were accepted."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import bindparam, func, insert, select
from sqlalchemy.orm import Session

from mcoe_model.router_statistics import RouterStatistics
from server.acceptance import Accepted, Rejected
from server.aggregation.rule import Contribution
from server.registry.store import Store, utc_now
from server.registry.tables import ENROLLED, OPEN, PUBLISHED, Base, Client, Model, Reply, Round, RouterRow

#: Why a client that did not answer in time has no update in a round. It is no verdict on one that it may still keep.
NO_REPLY = "no reply"

# A reply is recorded by plain statements, made once: that takes half the time of mapped objects.
_TABLES = Base.metadata.tables
_INSERT_REPLY, _INSERT_ROUTER = insert(_TABLES[Reply.__tablename__]), insert(_TABLES[RouterRow.__tablename__])
_CLIENTS, _ROUNDS = _TABLES[Client.__tablename__].c, _TABLES[Round.__tablename__].c
_STATES = select(
    _ROUNDS.state, select(_CLIENTS.state).where(_CLIENTS.id == bindparam("client_id")).scalar_subquery()
).where(_ROUNDS.id == bindparam("round_id"))


@dataclass(frozen=True)
class Transfer:
    """Bytes of one exchange: the train message down, the reply up (tensors only)."""

    down: int
    up: int


class ReplyStore(Store):
    """The registry's replies."""

    def verdict(self, round_id: int, client_id: str) -> bool | None:
        """Whether this client's reply was accepted in this round; None when there is none yet."""
        with self._reading() as session:
            reply = session.get(Reply, (round_id, client_id))
            return None if reply is None else reply.accepted

    def took_update(self, update_id: str) -> bool:
        """Whether an update with this id went into a published round."""
        query = select(Reply.round_id).join(Round, Round.id == Reply.round_id)
        mine = Round.experiment == self.experiment, Round.state == PUBLISHED
        with self._reading() as session:
            return session.scalars(query.where(*mine, Reply.accepted, Reply.update_id == update_id)).first() is not None

    def record_reply(self, round_id: int, client_id: str, verdict: Accepted | Rejected, transfer: Transfer) -> bool:
        """Store a verdict, and the router statistics of an accepted reply, in one transaction.

        False, with nothing stored, for a client that has left the fleet meanwhile, or a round that is over.
        """
        row: dict[str, object] = {
            "round_id": round_id,
            "client_id": client_id,
            "accepted": isinstance(verdict, Accepted),
            "bytes_down": transfer.down,
            "bytes_up": transfer.up,
            "received": utc_now(),
        }
        router: list[dict[str, object]] = []
        if isinstance(verdict, Rejected):
            row["reason"] = verdict.reason
        else:
            report = verdict.report
            row |= {
                "update_id": verdict.meta.update_id,
                "norm": verdict.norm,
                "examples": report.examples,
                "seconds": report.seconds,
                "loss_before": report.loss_before,
                "loss_after": report.loss_after,
                "staleness": verdict.staleness,
            }
            router = _router_rows(round_id, client_id, report.router)
        with self._writing() as session:
            connection = session.connection()
            states = connection.execute(_STATES, {"round_id": round_id, "client_id": client_id}).first()
            if states is None or tuple(states) != (OPEN, ENROLLED):
                return False
            connection.execute(_INSERT_REPLY, row)
            if router:
                connection.execute(_INSERT_ROUTER, router)
            return True

    def accepted(self, round_id: int) -> int:
        """How many replies of a round are accepted."""
        query = select(func.count()).where(Reply.round_id == round_id, Reply.accepted)
        with self._reading() as session:
            return session.scalar(query) or 0

    def replies(self, round_id: int) -> list[Reply]:
        """Every verdict of a round, by client id."""
        with Session(self.engine, expire_on_commit=False) as session:
            query = select(Reply).where(Reply.round_id == round_id).order_by(Reply.client_id)
            return list(session.scalars(query))

    def contributions(self, round_id: int) -> list[Contribution]:
        """The accepted updates of a round, in update-id order."""
        accepted = select(Reply).where(Reply.round_id == round_id, Reply.accepted).order_by(Reply.update_id)
        with self._reading() as session:
            router = statistics_by_client(session.scalars(select(RouterRow).where(RouterRow.round_id == round_id)))
            return [
                Contribution(
                    reply.update_id,
                    reply.client_id,
                    reply.examples,
                    # A model without experts has no rows here.
                    router.get(reply.client_id) or RouterStatistics(reply.examples, 0, (), ()),
                    reply.staleness or 0,
                )
                for reply in session.scalars(accepted)
                if reply.update_id is not None and reply.examples is not None
            ]

    def router_statistics(self, round_id: int) -> dict[str, RouterStatistics]:
        """Router statistics by client id, for the accepted replies of a round."""
        with self._reading() as session:
            return statistics_by_client(session.scalars(select(RouterRow).where(RouterRow.round_id == round_id)))

    def median_norm(self, rounds: int, generation: str) -> float | None:
        """The median norm of the accepted updates of the last published rounds of a generation, None before one."""
        recent = (
            select(Round.id)
            .where(Round.experiment == self.experiment, Round.state == PUBLISHED)
            .where(Round.published_sha256.in_(select(Model.sha256).where(Model.generation == generation)))
            .order_by(Round.number.desc())
            .limit(rounds)
        )
        query = select(Reply.norm).where(Reply.round_id.in_(recent), Reply.accepted)
        with self._reading() as session:
            norms = [norm for norm in session.scalars(query) if norm is not None]
            return statistics.median(norms) if norms else None


def statistics_by_client(rows: Iterable[RouterRow]) -> dict[str, RouterStatistics]:
    """One round's rows as router statistics by client id."""
    by_client: dict[str, list[RouterRow]] = {}
    for row in sorted(rows, key=lambda row: row.expert):
        by_client.setdefault(row.client_id, []).append(row)
    return {
        client: RouterStatistics(
            found[0].examples,
            found[0].top_k,
            tuple(row.routed for row in found),
            tuple(row.gate_mass for row in found),
        )
        for client, found in sorted(by_client.items())
    }


def _router_rows(round_id: int, client_id: str, router: RouterStatistics) -> list[dict[str, object]]:
    return [
        {
            "round_id": round_id,
            "client_id": client_id,
            "expert": expert,
            "examples": router.examples,
            "top_k": router.top_k,
            "routed": routed,
            "gate_mass": mass,
        }
        for expert, (routed, mass) in enumerate(zip(router.routed, router.gate_mass, strict=True))
    ]
