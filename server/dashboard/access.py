"""Who may see the dashboard: whoever shows its token, on a name of this machine.

The token is shown as ``?token=`` once and then kept in a cookie; programs show it as ``Authorization: Bearer``. Forms
carry a second token that is derived from it, so that no other page can send them.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "mcoe-dashboard"
#: What may be asked without the token.
PUBLIC = frozenset({"/health"})
#: Names under which a browser reaches loopback. Any other name in ``Host`` is a web page that had it point here.
HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})

#: Nothing comes from outside, nothing is kept by the browser, and no other page may frame or address ours.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_REFUSED = "401: open the address that `mcoe-server start` printed; the token is in dashboard.token in its folder.\n"


def dashboard_token(path: Path) -> str:
    """The token in this file, which is made, readable for its owner alone, when it is not there."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    token = secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    return token


def form_token(token: str) -> str:
    """What forms carry: only who knows the token can make it, and it does not give the token away."""
    return hmac.new(token.encode(), b"form", hashlib.sha256).hexdigest()


class Guard:
    """Middleware that lets nothing pass without the token and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app = app
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        answer = self._refusal(scope)
        await (answer or self.app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer when the request may not pass to the app."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if headers.get("host", "").rsplit(":", 1)[0] not in HOSTS and headers.get("host") not in HOSTS:
            return PlainTextResponse("400: this is not the dashboard's address\n", 400)
        if scope["path"] in PUBLIC:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if self._is_token(dict(query).get("token")):
            return self._remember(scope, query)
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if self._is_token(_cookie(headers)) or self._is_token(bearer):
            return None
        return PlainTextResponse(_REFUSED, 401, {"WWW-Authenticate": "Bearer"})

    def _remember(self, scope: Scope, query: list[tuple[str, str]]) -> Response | None:
        """A page takes the token out of its address into a cookie; what a program asks for is answered at once."""
        if "/api/" in scope["path"] or scope["path"].endswith("/metrics"):
            return None
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        path = "/" + scope["path"].lstrip("/\\")  # never the name of another host
        answer = RedirectResponse(path + (f"?{rest}" if rest else ""), 303)
        answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
        return answer

    def _is_token(self, shown: str | None) -> bool:
        return shown is not None and hmac.compare_digest(shown.encode(), self.token.encode())


def _cookie(headers: Mapping[str, str]) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return found.value if found else None
