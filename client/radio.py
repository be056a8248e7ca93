"""When a wearable need not be connected: its radio sleeps until the server wants to hear of it, or has to hear."""

from __future__ import annotations

import time

from client.outbox import Outbox
from client.told import ToldFile

#: Seconds after its last answer in which a client waits for a task: the SuperNode looks for one every three seconds,
#: and a server throws away the answer of a node that left before it was fetched.
LINGER_S = 10.0
#: The same as long as the server has not said what became of an update that was sent: it may still be on its way.
SENT_S = 600.0


class Radio:
    """Decides from what the server said and from the outbox. Without a next check-in it never sleeps."""

    def __init__(self, told: ToldFile, outbox: Outbox) -> None:
        self._told = told
        self._outbox = outbox
        self._kept: frozenset[str] = frozenset()

    def may_sleep(self, idle_s: float) -> bool:
        """Whether to leave, ``idle_s`` seconds after the last answer; what is in the outbox then is nothing new."""
        if idle_s < (SENT_S if self._outbox.sent else LINGER_S) or not self._until_due():
            return False
        self._kept = frozenset(self._outbox.ids())
        self._outbox.sent.clear()
        return True

    def seconds_left(self) -> float:
        """Seconds until the next check-in; 0 when it is due, and when the outbox has something new to send."""
        return 0.0 if set(self._outbox.ids()) - self._kept else self._until_due()

    def _until_due(self) -> float:
        return max(0.0, self._told.read().next_check_in - time.time())
