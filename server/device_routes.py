"""What a wearable asks of the server beside Flower: the authority's certificate, enrolment, models, and to be let go.

    GET  /v1/device/authority        the certificate that an invitation's fingerprint names; open
    POST /v1/device/enrol            {"token"}: the key that signs, for one invitation             signed
    GET  /v1/device/model            which model is the newest released one                        signed
    GET  /v1/device/models/SHA256    its bytes, from any offset (Range)                            signed
    POST /v1/device/withdraw         take part no longer                                           signed
    POST /v1/device/forget           delete what is kept of this wearable; answers the receipt     signed
"""

from __future__ import annotations

import datetime
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from mcoe_model.errors import McoeError
from mcoe_model.signed_request import RequestRefused, Verifier
from server.fleet import Fleet

PREFIX = "/v1/device/"
#: Bytes of the largest body that anybody may send here.
MAX_BODY = 16_384
#: Requests per address and minute.
PER_MINUTE = 60

log = logging.getLogger("mcoe")

Handler = Callable[[Request], Awaitable[Response]]


def device_routes(fleet: Fleet, authority: Path, *, enrolment: bool) -> Starlette:
    """The routes as an application. Every refusal is one line of JSON: {"error": ...}."""
    verifier, limit = Verifier(), _Limit()

    async def enrol(request: Request) -> Response:
        if not enrolment:
            return _refuse(403, "this server enrols nobody at the moment; ask its operator")
        body = await _body(request)
        key = signing_key(request, body)
        try:
            token = json.loads(body)["token"]
            if not isinstance(token, str) or not token.isascii():
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            return _refuse(400, "enrolment needs an invitation's token")
        return JSONResponse({"client_id": await run_in_threadpool(fleet.enrol, token, key)})

    async def newest(request: Request) -> Response:
        await signer(request)
        return JSONResponse({"sha256": await run_in_threadpool(fleet.registry.newest_model)})

    async def model(request: Request) -> Response:
        await signer(request)
        sha256 = request.path_params["sha256"]
        path = fleet.artifacts.path(sha256) if re.fullmatch("[0-9a-f]{64}", sha256) else None
        if path is None or not path.is_file():
            return _refuse(404, "there is no such model")
        return FileResponse(path, media_type="application/octet-stream")

    async def withdraw(request: Request) -> Response:
        client = await signer(request)
        await run_in_threadpool(fleet.withdraw, client)
        return JSONResponse({"client_id": client, "state": "withdrawn"})

    async def forget(request: Request) -> Response:
        client = await signer(request)
        return JSONResponse(_plain(await run_in_threadpool(fleet.forget, client)))

    async def signer(request: Request) -> str:
        return await run_in_threadpool(fleet.client_of_key, signing_key(request, await _body(request)))

    def signing_key(request: Request, body: bytes) -> str:
        now = datetime.datetime.now(datetime.UTC)
        return verifier.verify(request.headers, request.method, request.scope["path"], body, now)

    async def open_authority(request: Request) -> Response:
        return PlainTextResponse(authority.read_text())

    def guarded(handler: Handler) -> Handler:
        async def handle(request: Request) -> Response:
            if not limit.allows(request.client.host if request.client else ""):
                return _refuse(429, "too many requests; try again in a minute")
            try:
                return await handler(request)
            except RequestRefused as fault:
                return _refuse(401, str(fault))
            except McoeError as fault:
                return _refuse(403, str(fault))
            except httpx.HTTPError as fault:
                log.warning("the SuperLink did not take a change of members: %s", fault)
                return _refuse(503, "the server could not finish this; try again")

        return handle

    listed: list[tuple[str, str, Handler]] = [
        ("GET", "authority", open_authority),
        ("POST", "enrol", enrol),
        ("GET", "model", newest),
        ("GET", "models/{sha256}", model),
        ("POST", "withdraw", withdraw),
        ("POST", "forget", forget),
    ]
    routes = [Route(PREFIX + path, guarded(h), methods=[method]) for method, path, h in listed]
    return Starlette(routes=routes, exception_handlers={HTTPException: _say_refusal})


@dataclass
class _Limit:
    """At most PER_MINUTE requests of an address in a minute."""

    heard: dict[str, list[float]] = field(default_factory=dict)

    def allows(self, address: str) -> bool:
        now = time.monotonic()
        self.heard = {a: times for a, times in self.heard.items() if times[-1] > now - 60}
        recent = [when for when in self.heard.get(address, []) if when > now - 60]
        if len(recent) >= PER_MINUTE:
            return False
        self.heard[address] = [*recent, now]
        return True


async def _body(request: Request) -> bytes:
    """The body, of which no more is read when it is too long. Raises HTTPException."""
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY:
            raise HTTPException(413, f"a request may have {MAX_BODY} bytes")
    return content


async def _say_refusal(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, HTTPException)
    return _refuse(fault.status_code, fault.detail)


def _refuse(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status_code=status)


def _plain(receipt: Any) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(receipt), default=str))  # type: ignore[no-any-return]
