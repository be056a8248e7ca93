"""The registry: what happened in every round, in SQL. Every method is one transaction."""

from __future__ import annotations

from server.registry.check_ins import CheckInStore
from server.registry.clients import ClientRow
from server.registry.health import HealthStore, day_of
from server.registry.members import MemberStore
from server.registry.models import ModelRow, ModelState
from server.registry.openings import WaitingFor
from server.registry.privacy import Budget, Forgetting, PendingUpdate, PrivacyStore, Pruned, Receipt
from server.registry.questions import QuestionStore, Rejection, RoundCost
from server.registry.refusals import Refusal, RefusalStore
from server.registry.replies import Transfer
from server.registry.rounds import RoundRow
from server.registry.store import EventRow, utc_now
from server.registry.tables import ABANDONED, CLOSED, OPEN, PUBLISHED
from server.registry.trials import Trial, TrialStore, TrialSummary


class Registry(MemberStore, CheckInStore, HealthStore, TrialStore, QuestionStore, PrivacyStore, RefusalStore):
    """One experiment's view of the registry database."""


__all__ = [
    "ABANDONED",
    "CLOSED",
    "OPEN",
    "PUBLISHED",
    "Budget",
    "ClientRow",
    "EventRow",
    "Forgetting",
    "ModelRow",
    "ModelState",
    "PendingUpdate",
    "Pruned",
    "Receipt",
    "Refusal",
    "Registry",
    "Rejection",
    "RoundCost",
    "RoundRow",
    "Transfer",
    "Trial",
    "TrialSummary",
    "WaitingFor",
    "day_of",
    "utc_now",
]
