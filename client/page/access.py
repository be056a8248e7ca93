"""Nothing of the page is shown to whoever is not paired, and nothing is done on behalf of another web page."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

from fastapi import Response
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from client.page.pairing import Pairing
from client.page.words import Words, chosen_language

#: What may be asked before pairing.
PUBLIC = frozenset({"/pair", "/api/pair", "/api/language", "/health"})
#: Bytes of a form at most.
MOST_BYTES = 65_536
#: Nothing comes from outside, nothing is kept by the browser, and no other page may frame or address ours.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Middleware: the device's own names only, paired phones only, own forms only, and headers on every answer."""

    def __init__(self, app: ASGIApp, pairing: Pairing, name: str, tls: bool, language: str) -> None:
        self.app = app
        self._language = language
        self._pairing, self._tls = pairing, tls
        self._names = {name, "localhost"} if tls else {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer = self._refusal(scope)
        await (answer or self.app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer when the request may not pass to the page."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host, path = headers.get("host", ""), scope["path"]
        if not self._is_ours(host, scope):
            words = Words(chosen_language(None, headers.get("accept-language", ""), self._language))
            return PlainTextResponse(f"400: {words('common.no_address')}\n", 400)
        own = f"{'https' if self._tls else 'http'}://{host}"
        acts = scope["method"] not in ("GET", "HEAD") or path.startswith("/api/")
        foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        if acts and (foreign or headers.get("origin", own) != own):
            return PlainTextResponse("403: another page asked for this\n", 403)
        size = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not size.isdecimal() or int(size) > MOST_BYTES:
            return PlainTextResponse("413: more than a form of this page holds\n", 413)
        if path in PUBLIC or path.startswith("/static/") or self._pairing.knows(cookie(headers, self._tls)):
            return None
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse("/pair", 303)
        return JSONResponse({"fault": "unpaired", "detail": "401: pair this phone first"}, 401)

    def _is_ours(self, host: str, scope: Scope) -> bool:
        """Whether ``Host`` is a name of ours, or the very address that was connected to: never a name led to it."""
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if name.lower() in self._names:
            return True
        try:
            asked = ipaddress.ip_address(name.strip("[]"))
            return scope.get("server") is not None and asked == ipaddress.ip_address(scope["server"][0])
        except ValueError:
            return False


def cookie_name(tls: bool) -> str:
    """With the prefix, browsers take the cookie over TLS from this very host alone."""
    return "__Host-mcoe" if tls else "mcoe"


def cookie(headers: Mapping[str, str], tls: bool) -> str | None:
    """The token that a request shows."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(cookie_name(tls))
    except CookieError:
        return None
    return found.value if found else None


def remember(answer: Response, token: str, tls: bool) -> None:
    """Have the phone keep its token for as long as browsers keep anything."""
    answer.set_cookie(
        cookie_name(tls), token, max_age=400 * 86400, secure=tls, httponly=True, samesite="strict", path="/"
    )
