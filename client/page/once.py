"""A form that is sent twice, because its answer was lost on the way, is done once."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from mcoe_model.errors import DiskFull, Locked

#: Answers are kept so long (seconds) and so many. They are in memory only: one of them is a recovery key.
KEPT_S = 600.0
_MOST = 256
#: Refusals that pass: the same form may be done later, and a phone keeps it until then.
PASSING = (Locked, DiskFull)


class Once:
    """Answers by the key that the phone made for its form."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, tuple[float, asyncio.Task[Any]]] = OrderedDict()

    async def __call__(self, key: str, act: Callable[[], Awaitable[Any]]) -> Any:
        """What ``act`` returned or raised for this key, which is called for the first one only.

        It goes on when the phone that asked is gone. What was refused for a reason that passes is not answered alike.
        """
        now = time.monotonic()
        while self._answers and (now - next(iter(self._answers.values()))[0] > KEPT_S or len(self._answers) >= _MOST):
            self._answers.popitem(last=False)
        if key not in self._answers:
            self._answers[key] = now, asyncio.ensure_future(act())
        asked = self._answers[key]
        try:
            return await asyncio.shield(asked[1])
        except PASSING:
            if self._answers.get(key) is asked:
                del self._answers[key]
            raise
