"""What the wearer recorded, labelled and agreed to, and how long it is kept. Every method is one transaction."""

from __future__ import annotations

from client.session_rules import PromptRules, RetentionRules, StoreRules
from client.sessions.consents import ConsentAnswer
from client.sessions.history import ClockReading, HistoryStore, Version
from client.sessions.lessons import Lesson, Lessons
from client.sessions.markers import Marker
from client.sessions.prompts import Prompt
from client.sessions.recovery import Recovered, RecoveryStore
from client.sessions.tables import PARTIAL, RECORDING, WHOLE, SessionState
from client.sessions.times import Moment, now
from client.sessions.values import Change, Label, Prediction, Recording, Segment, Source, Span, Training


class Store(HistoryStore, RecoveryStore):
    """One wearer's store."""


__all__ = [
    "PARTIAL",
    "RECORDING",
    "WHOLE",
    "Change",
    "ClockReading",
    "ConsentAnswer",
    "Label",
    "Lesson",
    "Lessons",
    "Marker",
    "Moment",
    "Prediction",
    "Prompt",
    "PromptRules",
    "Recording",
    "Recovered",
    "RetentionRules",
    "Segment",
    "SessionState",
    "Source",
    "Span",
    "Store",
    "StoreRules",
    "Training",
    "Version",
    "now",
]
