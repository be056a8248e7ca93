"""What the public port sees of Flower's fleet routes: who is refused, whose replies nobody asked for, copied keys.

Flower believes what a pushed message says of its sender and of what it answers: a node could push a message as if it
were the server's, to another node. So a message that is no reply of the node that pushes it does not get to Flower.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field

from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from google.protobuf.message import DecodeError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcoe_model.signed_request import named_key
from server.refusals import Note
from server.registry.refusals import Refusal
from server.superlink.limits import refuse

ACTIVATE, PUSH = "/v1/fleet/activate-node", "/v1/fleet/push-messages"
#: What only a node that was let in sends, again and again.
ALIVE = frozenset({"/v1/fleet/send-node-heartbeat", "/v1/fleet/pull-messages"})
#: Seconds after a node was turned away in which what the one before it had sent may still arrive.
GRACE_S = 10.0
#: Seconds for which it is remembered that a node was turned away.
REMEMBERED_S = 600.0
#: Keys, and ids of replies, that are remembered.
MOST = 10_000
#: Why a request was refused, by status; any other status is said as it is.
_REASONS = {
    401: "Flower: not signed by the node's enrolled key, or by a clock that is wrong",
    403: "Flower: its run has ended",
    412: "Flower: it cannot be done now",
    413: "a body that is too long",
    429: "too many requests in a minute",
    500: "Flower: a message of a run that there never was, or a fault of its own",
}
TURNED_AWAY = "Flower: no node of this key is let in: it is not enrolled, or online already"
UNASKED = "a reply to a message that is not there: answered before, given up, or never asked"
FORGED = "a message that is no reply of the node that pushed it"
COPIED = "a node of this key was turned away while another one was online; revoke the client if it is not known why"


@dataclass
class Twins:
    """Tells that two nodes hold one key.

    Flower turns a node away whose key is online. So is the successor of one that was killed, for a minute; but the one
    that was killed sends nothing any more. One that does, later than `GRACE_S`, is another.
    """

    _turned_away: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def turned_away(self, key: str, now: float) -> None:
        """A node of this key was not let in. Of several times, the first counts."""
        if now - self._turned_away.get(key, -REMEMBERED_S) >= REMEMBERED_S:
            self._turned_away.pop(key, None)
            self._turned_away[key] = now
            if len(self._turned_away) > MOST:
                self._turned_away.popitem(last=False)

    def came_or_left(self, key: str) -> None:
        """A node of this key was let in, or said that it leaves."""
        self._turned_away.pop(key, None)

    def alive(self, key: str, now: float) -> bool:
        """A node of this key is online: whether another one was turned away. It is told once."""
        age = now - self._turned_away.get(key, now)
        if GRACE_S <= age < REMEMBERED_S:
            del self._turned_away[key]
            return True
        return False


def watched(app: ASGIApp, note: Note) -> ASGIApp:
    """An application whose refusals of fleet requests are noted, and nodes that hold one key."""
    twins = Twins()

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        path, key = scope["path"], _key(scope)

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered(path, key, message["status"], scope)
            await send(message)

        await app(scope, receive, send_noted)

    def answered(path: str, key: str | None, status: int, scope: Scope) -> None:
        if status >= 400:
            reason = TURNED_AWAY if (path, status) == (ACTIVATE, 412) else _REASONS.get(status, f"status {status}")
            note(Refusal("request refused", scope.get("refusal", reason), key))
            if key and (path, status) == (ACTIVATE, 412):
                twins.turned_away(key, time.monotonic())
        elif key and path in ALIVE:
            if twins.alive(key, time.monotonic()):
                note(Refusal("key in two places", COPIED, key))
        elif key and path in (ACTIVATE, "/v1/fleet/deactivate-node"):
            twins.came_or_left(key)

    return front


def own_replies(app: ASGIApp, note: Note) -> ASGIApp:
    """An application that gets no pushed message but a node's own replies; notes those that Flower does not take.

    A reply that is sent again since its answer was lost is none of those.
    """
    taken: OrderedDict[str, None] = OrderedDict()

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != PUSH:
            await app(scope, receive, send)
            return
        body = await _whole(receive)
        if body is None:  # its sender has gone, or was told that it is too long
            return
        if not _is_own(body):
            scope["refusal"] = FORGED
            await refuse(send, 403, FORGED)
            return
        unread = [{"type": "http.request", "body": body, "more_body": False}]
        status, answer = 0, bytearray()

        async def receive_again() -> Message:
            return unread.pop() if unread else await receive()

        async def send_judged(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            answer.extend(message.get("body", b""))
            if status == 200 and message["type"] == "http.response.body" and not message.get("more_body"):
                judge(bytes(answer))
            await send(message)

        def judge(content: bytes) -> None:
            said = PushMessagesResponse.FromString(content)
            for message_id in said.results:
                if said.objects_to_push:
                    taken[message_id] = None
                    if len(taken) > MOST:
                        taken.popitem(last=False)
                elif message_id not in taken:
                    note(Refusal("reply refused", UNASKED, _key(scope)))

        await app(scope, receive_again, send_judged)

    return front


def _is_own(body: bytes) -> bool:
    """Whether every message is a reply of the node that pushes it; what cannot be read is refused by Flower."""
    try:
        request = PushMessagesRequest.FromString(body)
    except DecodeError:
        return True
    said = [message.metadata for message in request.messages_list]
    return all(one.reply_to_message_id and one.src_node_id == request.node.node_id for one in said)


async def _whole(receive: Receive) -> bytes | None:
    """The body of a request; None when it does not come to its end."""
    content, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        content += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(content)


def _key(scope: Scope) -> str | None:
    """The public key (PEM) that a request names."""
    wanted = FLEET_HTTP_PUBLIC_KEY_HEADER.lower().encode()
    return named_key(next((value for name, value in scope.get("headers", ()) if name.lower() == wanted), None))
