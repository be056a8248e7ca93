"""What each wearable last said of its health, and the day on which it did."""

from __future__ import annotations

import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from mcoe_model.health import Health
from mcoe_model.protocol import ProtocolError
from server.registry.store import Store, utc_now
from server.registry.tables import ENROLLED, Client, HealthRow


class HealthStore(Store):
    """The newest health of every client."""

    def note_health(self, client_id: str, health: Health) -> None:
        """Keep it in place of what the client said before. Nothing is stored of one that has left meanwhile."""
        with self._writing() as session:
            client = session.get(Client, client_id)
            if client is None or client.experiment != self.experiment or client.state != ENROLLED:
                return
            session.merge(HealthRow(client_id=client_id, day=day_of(utc_now()), said=health.to_record()))

    def enrolled_health(self) -> list[Health]:
        """What every enrolled client last said of its health, if it did."""
        with self._reading() as session:
            enrolled = select(Client.id).where(Client.experiment == self.experiment, Client.state == ENROLLED)
            members = set(session.scalars(enrolled))
            said = health_of(session, self.experiment)
        return [health for client, (health, _) in said.items() if client in members]


def day_of(time: datetime.datetime) -> int:
    """A time's day, counted from 1970, in UTC."""
    return int(time.timestamp() // 86_400)


def health_of(session: Session, experiment: str, client_id: str | None = None) -> dict[str, tuple[Health, int]]:
    """What each client, or one, said and on which day. What another version of this program stored is left out."""
    query = select(HealthRow).join(Client, Client.id == HealthRow.client_id).where(Client.experiment == experiment)
    if client_id is not None:
        query = query.where(Client.id == client_id)
    found = {}
    for row in session.scalars(query):
        try:
            found[row.client_id] = Health.from_record(row.said), row.day
        except ProtocolError:
            continue
    return found
