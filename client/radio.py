"""When a wearable need not be connected: its radio sleeps until the server wants to hear of it, or has to hear.

With a gate closed (`client.check_in_gates`) it sleeps whatever the server wants, until the gate opens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from client.outbox import Outbox
from client.told import ToldFile

#: Seconds after its last answer in which a client waits for a task: the SuperNode looks for one every three seconds,
#: and a server throws away the answer of a node that left before it was fetched.
LINGER_S = 10.0
#: The same as long as the server has not said what became of an update that was sent: it may still be on its way.
SENT_S = 600.0
#: Seconds that the radio sleeps at least before new clips wake it: a wearer labels many in a row.
REST_S = 300.0
#: Seconds until closed gates are looked at again, as far as it is said.
_LOOK_S = 60.0


class Radio:
    """Decides from what the server said, from the outbox and the gates. Without a next check-in only a gate closes it.

    ``closed`` says which gates are, in words; ``clips`` names those that await a round.
    """

    def __init__(
        self,
        told: ToldFile,
        outbox: Outbox,
        closed: Callable[[], Collection[str]] = lambda: (),
        clips: Callable[[], Collection[str]] = lambda: (),
    ) -> None:
        self._told = told
        self._outbox = outbox
        self._closed = closed
        self._clips = clips
        self._kept: frozenset[str] = frozenset()
        self._known: frozenset[str] = frozenset()
        self._left = time.monotonic()  # when it last did

    def may_sleep(self, idle_s: float | None) -> bool:
        """Whether to leave, ``idle_s`` seconds after the last answer; what is in the outbox then is nothing new.

        Before the first answer of a connection, ``idle_s`` is None: only a gate that closes ends the attempt.
        """
        if idle_s is None:
            if not self._closed():
                return False
        elif idle_s < (SENT_S if self._outbox.sent else LINGER_S) or not (self._until_due() or self._closed()):
            return False
        self._kept, self._known = frozenset(self._outbox.ids()), frozenset(self._clips())
        self._left = time.monotonic()
        self._outbox.sent.clear()
        return True

    def seconds_left(self) -> float:
        """Seconds until the next check-in; 0 when it is due, and when there is something new to send.

        While a gate is closed it is at least some seconds, whatever is due.
        """
        if self._closed():
            return max(self._until_due(), _LOOK_S)
        return 0.0 if self._has_news() else self._until_due()

    def _has_news(self) -> bool:
        if set(self._outbox.ids()) - self._kept:
            return True
        return time.monotonic() - self._left >= REST_S and bool(set(self._clips()) - self._known)

    def _until_due(self) -> float:
        return max(0.0, self._told.read().next_check_in - time.time())
