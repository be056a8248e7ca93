"""What one address may ask of the public port: so many requests a minute, and bodies of so many bytes."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Seconds over which requests are counted.
WINDOW_S = 60.0


@dataclass
class RateLimit:
    """At most ``per_minute`` requests of an address in the minute that its first one begins."""

    per_minute: int
    _counted: dict[str, tuple[float, int]] = field(default_factory=dict)
    _tidied: float = field(default_factory=time.monotonic)

    def allows(self, address: str) -> bool:
        now = time.monotonic()
        if now - self._tidied >= WINDOW_S:
            self._counted = {a: seen for a, seen in self._counted.items() if now - seen[0] < WINDOW_S}
            self._tidied = now
        begin, count = self._counted.get(address, (now, 0))
        if now - begin >= WINDOW_S:
            begin, count = now, 0
        self._counted[address] = begin, count + 1
        return count < self.per_minute


def limited(app: ASGIApp, limit: RateLimit, max_body: int) -> ASGIApp:
    """An application behind a limit: 429 for too many requests, 413 for a body of more than ``max_body`` bytes.

    One that says itself that it is too long is refused unread. Any other is counted while it passes; the application is
    told that its caller has gone once there is too much.
    """
    too_long = f"a request may have {max_body} bytes"

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if not limit.allows(client[0] if client else ""):
            await refuse(send, 429, "too many requests; try again in a minute")
            return
        if _declared(scope) > max_body:
            await refuse(send, 413, too_long)
            return
        counted, began, refused = 0, False, False

        async def receive_counted() -> Message:
            nonlocal counted, refused
            message = await receive()
            counted += len(message.get("body", b""))
            if counted <= max_body:
                return message
            if not refused and not began:
                refused = True
                await refuse(send, 413, too_long)
            return {"type": "http.disconnect"}

        async def send_unless_refused(message: Message) -> None:
            nonlocal began
            if not refused:
                began = True
                await send(message)

        try:
            await app(scope, receive_counted, send_unless_refused)
        except Exception:
            # A caller that has gone is told to Flower as a disconnect, and each of its middlewares says so in an
            # exception of its own making. Its answer was 413 then; without that answer nothing is swallowed.
            if not refused:
                raise

    return front


def _declared(scope: Scope) -> int:
    """The length that a request says its body has; 0 when it says none."""
    said = next((value for name, value in scope.get("headers", ()) if name.lower() == b"content-length"), b"")
    return int(said[:20]) if said.isdigit() else 0


async def refuse(send: Send, status: int, reason: str) -> None:
    """Answer with a status and one line of JSON, and close the connection."""
    content = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
