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
    """What became of the updates that this check-in lists, and of the newest one that was accepted since."""
    mine = select(Reply.update_id).join(Round, Round.id == Reply.round_id)
    mine = mine.where(Round.experiment == registry.experiment, Reply.client_id == check_in.client_id)
    with Session(registry.engine) as session:
        listed = set(session.scalars(mine.where(Reply.accepted, Reply.update_id.in_(check_in.outbox))))
        newest = session.execute(mine.add_columns(Reply.accepted).order_by(Round.id.desc()).limit(1)).first()
    accepted = [identifier for identifier in check_in.outbox if identifier in listed]
    if newest and newest.accepted and newest.update_id not in listed:
        accepted.append(newest.update_id)
    rejected = newest is not None and not newest.accepted
    return OutboxNews(
        tuple(accepted), tuple(identifier for identifier in check_in.outbox if rejected and identifier not in listed)
    )
