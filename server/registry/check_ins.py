"""Check-ins: who was heard, when, and with what."""

from __future__ import annotations

import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from mcoe_model.protocol import CheckIn, News
from server.registry.clients import ClientStore
from server.registry.store import utc_now
from server.registry.tables import ENROLLED, CheckInRow, Client
from server.registry.trials import hear_canary


class CheckInStore(ClientStore):
    """The registry's check-ins."""

    def saw(self, check_in: CheckIn, news: News = News()) -> bool:  # noqa: B008 (it is frozen)
        """Record a check-in, what it says of a canary, and what the client hears of its version and its next one.

        A client that nobody enrolled, as in a simulation, is enrolled without a key; so this never says False.
        Raises EnrolmentRefused for a client of another experiment.
        """
        with self._writing() as session:
            client = session.get(Client, check_in.client_id)
            if client is None:
                client = Client(id=check_in.client_id, experiment=self.experiment, state=ENROLLED)
                session.add(client)
            elif client.experiment != self.experiment:
                raise self._elsewhere(client)
            self._saw(session, client, check_in, news)
            return True

    def saw_member(self, check_in: CheckIn, news: News = News()) -> bool:  # noqa: B008 (it is frozen)
        """Record a check-in as `saw`. False, with nothing stored, for a client that has left the fleet meanwhile."""
        with self._writing() as session:
            client = session.get(Client, check_in.client_id)
            if client is None or client.experiment != self.experiment or client.state != ENROLLED:
                return False
            self._saw(session, client, check_in, news)
            return True

    def saw_other_protocol(self, client_id: str, version: int) -> None:
        """Record that a client is there whose program speaks this other protocol: nothing else of it can be read."""
        with self._writing() as session:
            client, now = session.get(Client, client_id), utc_now()
            if client is None or client.experiment != self.experiment:
                return  # it was forgotten meanwhile
            client.first_seen, client.last_seen = client.first_seen or now, now
            client.standing, client.next_check_in = f"protocol {version}"[:32], None

    def able_since(self, since: datetime.datetime) -> frozenset[str]:
        """The enrolled clients that have checked in since then with clips and with a program that may train."""
        query = select(Client.id).where(Client.experiment == self.experiment, Client.state == ENROLLED)
        query = query.where(Client.last_seen >= since, Client.examples > 0)
        with self._reading() as session:
            return frozenset(session.scalars(query.where(Client.standing.in_(("ok", "update-advised")))))

    def _saw(self, session: Session, client: Client, check_in: CheckIn, news: News) -> None:
        now = utc_now()
        client.first_seen = client.first_seen or now
        client.last_seen = now
        if client.examples != check_in.examples:
            client.learned_rounds = 0
        client.examples, client.client_version = check_in.examples, check_in.client_version
        client.preset, client.capabilities = check_in.preset, " ".join(check_in.capabilities)
        client.standing = news.standing or None
        later = datetime.timedelta(seconds=news.next_check_in_s)
        client.next_check_in = now + later if later else None
        session.flush()
        session.add(
            CheckInRow(client_id=client.id, time=now, examples=client.examples, client_version=client.client_version)
        )
        hear_canary(session, self.experiment, check_in)
