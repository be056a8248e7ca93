"""What a store keeps to: how long recordings stay, how many, and how often the wearer may be asked.

Not in `client.sessions`, since settings have them too, and whoever reads those need not load SQLAlchemy.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RetentionRules:
    """Recordings go at the first of ``days_after_learning`` and ``days_after_recording``.

    ``quota_bytes`` is how much they may take together, ``floor_bytes`` how much of the disk must stay free.
    """

    days_after_learning: int = 7
    days_after_recording: int = 14
    quota_bytes: int = 20_000_000_000
    floor_bytes: int = 1_000_000_000


@dataclass(frozen=True)
class PromptRules:
    """At most ``per_day`` questions, none shown in the quiet time (minutes of the day, which may pass midnight).

    A question that is put off comes again after ``snooze_minutes``, and none waits longer than ``expires_hours``: what
    one felt fades.
    """

    per_day: int = 6
    quiet: tuple[int, int] = (22 * 60, 8 * 60)
    snooze_minutes: int = 30
    expires_hours: int = 12

    def is_quiet(self, minute: int) -> bool:
        """Whether this minute of the day is in the quiet time."""
        start, end = self.quiet
        return start <= minute < end if start <= end else not end <= minute < start


@dataclass(frozen=True)
class StoreRules:
    """All of them; and the version of the consent text that is asked for now."""

    consent_version: str
    retention: RetentionRules = RetentionRules()
    prompts: PromptRules = PromptRules()
