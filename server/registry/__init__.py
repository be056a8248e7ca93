"""The registry: what happened in every round, in SQL. Every method is one transaction."""

from __future__ import annotations

from server.registry.fleet import ClientRow, FleetStore
from server.registry.models import ModelRow, ModelState
from server.registry.privacy import Budget, PendingUpdate, PrivacyStore, Pruned, Receipt
from server.registry.questions import QuestionStore, Rejection, RoundCost
from server.registry.replies import Transfer
from server.registry.rounds import RoundRow, RoundStore
from server.registry.store import EventRow, utc_now
from server.registry.tables import ABANDONED, CLOSED, OPEN, PUBLISHED


class Registry(FleetStore, RoundStore, QuestionStore, PrivacyStore):
    """One experiment's view of the registry database."""


__all__ = [
    "ABANDONED",
    "CLOSED",
    "OPEN",
    "PUBLISHED",
    "Budget",
    "ClientRow",
    "EventRow",
    "ModelRow",
    "ModelState",
    "PendingUpdate",
    "Pruned",
    "Receipt",
    "Registry",
    "Rejection",
    "RoundCost",
    "RoundRow",
    "Transfer",
    "utc_now",
]
