"""No request of Flower's fleet routes is taken twice.

What a node signs is the time alone, which Flower takes for five minutes: whoever got hold of a request could send it
again, or another one in its name. Every attempt of a node's is signed anew, so a signature that comes again is a copy.
"""

from __future__ import annotations

import base64
import time
from collections import OrderedDict
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE
from flwr.supercore.constant import FLEET_HTTP_SIGNATURE_HEADER
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.superlink.limits import refuse

PREFIX = "/v1/fleet/"
#: Seconds after which Flower refuses a signature by its time, also one of a clock that is ahead.
GOOD_FOR_S = TIMESTAMP_TOLERANCE + 2 * SYSTEM_TIME_TOLERANCE
REPLAYED = "a signature that was used before"


def once(app: ASGIApp, clock: Callable[[], float] = time.monotonic) -> ASGIApp:
    """An application that gets no fleet request whose signature an earlier one had that was taken.

    What was refused did nothing and is not remembered: only members fill this memory. A restart forgets it.
    """
    used: OrderedDict[int, float] = OrderedDict()

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        mark = _mark(scope) if scope["path"].startswith(PREFIX) else None
        if mark is None:
            await app(scope, receive, send)
            return
        while used and clock() - next(iter(used.values())) > GOOD_FOR_S:
            used.popitem(last=False)
        if mark in used:
            scope["refusal"] = REPLAYED
            await refuse(send, 401, REPLAYED)
            return
        used[mark] = clock()  # before it is answered: a copy may come meanwhile
        taken = False

        async def send_noted(message: Message) -> None:
            nonlocal taken
            taken = taken or message.get("status", 400) < 400
            await send(message)

        try:
            await app(scope, receive, send_noted)
        finally:
            if not taken:
                used.pop(mark, None)

    return front


def _mark(scope: Scope) -> int | None:
    """What tells a signature from all others: its r, since anybody can write the same signature with another s."""
    wanted = FLEET_HTTP_SIGNATURE_HEADER.lower().encode()
    found = next((value for name, value in scope.get("headers", ()) if name.lower() == wanted), None)
    try:
        return decode_dss_signature(base64.b64decode(found or b"", validate=True))[0]
    except ValueError:  # Flower refuses it
        return None
