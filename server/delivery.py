"""What a client is told of the updates that it keeps: Flower delivers a message at most once, the outbox makes it once.

An update stays in its client's outbox until the server says what became of it, with the next message of any kind. One
that was accepted, in whatever round, is named as such; one that is still kept although the client's reply in the newest
round was rejected will never be taken, and is dropped. Every other one may still be asked for.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from mcoe_model.protocol import CheckIn, OutboxNews
from server.registry import Registry
from server.registry.tables import Reply, Round


def news_for(registry: Registry, check_in: CheckIn) -> OutboxNews:
    """What became of the updates that this check-in lists, in its order."""
    if not check_in.outbox:
        return OutboxNews()
    with Session(registry.engine) as session:
        mine = select(Reply.update_id).where(Reply.client_id == check_in.client_id, Reply.accepted)
        accepted = set(session.scalars(mine.where(Reply.update_id.in_(check_in.outbox))))
        newest = (
            select(Reply.accepted)
            .join(Round, Round.id == Reply.round_id)
            .where(Round.experiment == registry.experiment, Reply.client_id == check_in.client_id)
            .order_by(Round.id.desc())
            .limit(1)
        )
        rejected = session.scalar(newest) is False
    return OutboxNews(
        tuple(identifier for identifier in check_in.outbox if identifier in accepted),
        tuple(identifier for identifier in check_in.outbox if rejected and identifier not in accepted),
    )
