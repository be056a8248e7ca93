"""The audit trail of what was refused: one row for each kind, reason and client in a minute, with their number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from sqlalchemy import select

from server.registry.store import Store, utc_now
from server.registry.tables import AuditEvent, Client

RefusalKind = Literal["request refused", "reply refused", "check-in refused", "key in two places"]
#: Rows of these kinds are made by whoever asks, so they are kept for the retention time only.
REFUSAL_KINDS: tuple[RefusalKind, ...] = get_args(RefusalKind)


@dataclass(frozen=True)
class Refusal:
    """Something that was not done, for a reason that is one of few and names nobody.

    ``public_key`` (PEM) is the one that the request named, whoever sent it; None when it named none.
    """

    kind: RefusalKind
    reason: str
    public_key: str | None = None


class RefusalStore(Store):
    """The registry's rows of what was refused."""

    def record_refusals(self, counted: Mapping[Refusal, int], experiments: Collection[str]) -> None:
        """Write what was counted. What names no client's key goes to the trail of each of these experiments."""
        if not counted:
            return
        keys = {refusal.public_key for refusal in counted} - {None}
        query = select(Client.public_key, Client.id, Client.experiment).where(Client.public_key.in_(keys))
        with self._writing() as session:
            holders = {key: (client, experiment) for key, client, experiment in session.execute(query)}
            summed: Counter[tuple[str, str, str | None, str]] = Counter()
            for refusal, count in counted.items():
                holder = holders.get(refusal.public_key)
                for client, experiment in [holder] if holder else [(None, name) for name in experiments]:
                    summed[refusal.kind, refusal.reason, client, experiment] += count
            now = utc_now()
            for (kind, reason, client, experiment), count in summed.items():
                detail = f"{reason} ({count} times)" if count > 1 else reason
                session.add(
                    AuditEvent(experiment=experiment, time=now, kind=kind, client_id=client, detail=detail)
                )
