"""Whom the server refuses: counted in memory, and written to the audit trail once a minute.

However many requests there are, a minute leaves one row for each kind, reason and client, with their number. What a
killed process had counted since its last row is lost.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from server.registry.refusals import Refusal

#: Seconds between two looks at what was counted.
WRITE_S = 60.0
#: Different refusals that are counted apart between two looks: whoever makes up keys must not fill the memory.
MOST = 1000

Note = Callable[[Refusal], None]


class Refusals:
    """Counts refusals until `take` is called. Threads may share it."""

    def __init__(self) -> None:
        self._counted: Counter[Refusal] = Counter()
        self._counting = threading.Lock()

    def note(self, refusal: Refusal) -> None:
        """Count one. After `MOST` different ones the key is not looked at any more."""
        with self._counting:
            if len(self._counted) >= MOST and refusal not in self._counted:
                refusal = Refusal(refusal.kind, refusal.reason)
            self._counted[refusal] += 1

    def take(self) -> Counter[Refusal]:
        """What was counted since the last call."""
        with self._counting:
            counted, self._counted = self._counted, Counter()
        return counted
