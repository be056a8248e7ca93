"""What a client is told of the updates that it keeps: Flower delivers a message at most once, the outbox makes it once.

An update stays in its client's outbox until the server says what became of it, with the next message of any kind. One
that was accepted is named as such, unless its round was abandoned: it is in no model, and the next attempt may ask for
it. One that is still kept although the client's reply in the newest round was rejected will never be taken, and is
dropped, as is every one of a client that runs a model of an older generation. Every other one may still be asked for,
also one that came too late for its round: the next train task says which bases are still welcome, and the client lets
go of the others.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from mcoe_model.protocol import CheckIn, News
from server.registry import Registry
from server.registry.replies import NO_REPLY
from server.registry.tables import ABANDONED, Reply, Round


def news_for(registry: Registry, check_in: CheckIn) -> News:
    """What became of the updates that this check-in lists, and of the newest one that was accepted since."""
    mine = select(Reply.update_id).join(Round, Round.id == Reply.round_id)
    mine = mine.where(Round.experiment == registry.experiment, Reply.client_id == check_in.client_id)
    taken = Reply.accepted & (Round.state != ABANDONED)
    with Session(registry.engine) as session:
        listed = set(session.scalars(mine.where(taken, Reply.update_id.in_(check_in.outbox))))
        by_round = mine.add_columns(Reply.accepted, Reply.reason, Round.state).order_by(Round.id.desc())
        newest = session.execute(by_round.limit(1)).first()
    accepted = [identifier for identifier in check_in.outbox if identifier in listed]
    if newest and newest.accepted and newest.state != ABANDONED and newest.update_id not in listed:
        accepted.append(newest.update_id)
    useless = newest is not None and not newest.accepted and newest.reason != NO_REPLY
    useless = useless or registry.is_outdated(check_in.runs)
    return News(
        tuple(accepted), tuple(identifier for identifier in check_in.outbox if useless and identifier not in listed)
    )
