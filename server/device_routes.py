"""What a wearable asks of the server beside Flower: the authority's certificate, enrolment, models, and to be let go.

    GET  /v1/device/authority        the authorities' certificates, an invitation's first; open
    POST /v1/device/enrol            {"token", "consents"}: the key that signs, for one invitation signed
    GET  /v1/device/model            which model is the newest released one                        signed
    GET  /v1/device/models/SHA256    its bytes, from any offset (Range)                            signed
    POST /v1/device/withdraw         take part no longer; may be repeated                          signed
    POST /v1/device/forget           delete what is kept; answers the receipt, once more if asked  signed

Who has withdrawn may still ask to be forgotten. A wearable that was reported lost is answered 410 when it asks for
models; to be let go it may not ask, since whoever has it is not its wearer.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from mcoe_model.consent import read_consents
from mcoe_model.errors import DecisionNeeded, EnrolmentRefused, McoeError
from mcoe_model.protocol import ProtocolError
from mcoe_model.signed_request import KEY, ClockWrong, RequestRefused, Verifier, named_key
from server.certificates import authorities
from server.experiments import DeviceLost, Experiments
from server.fleet import Fleet
from server.refusals import Note
from server.registry.privacy import Forgetting
from server.registry.refusals import Refusal
from server.registry.tables import ENROLLED
from server.superlink.limits import RateLimit

PREFIX = "/v1/device/"
#: Bytes of the largest body that anybody may send here.
MAX_BODY = 16_384
#: Requests per address and minute.
PER_MINUTE = 60

log = logging.getLogger("mcoe")

Handler = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")
OfKey = Callable[[str], tuple[Fleet, str]]


class _Refused(Exception):
    """A request that is refused with this status and reason.

    ``noted`` is the reason as the audit trail has it, where what the sender is told holds words of its own.
    """

    def __init__(self, status: int, reason: str, noted: str | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.noted = noted


def device_routes(
    experiments: Experiments, certificates: Path, used: Path, note: Note, *, enrolment: bool, forgetting: Forgetting
) -> Starlette:
    """The routes as an application. Every refusal is one line of JSON: {"error": ...}.

    ``used`` is a file that remembers which signatures were used. ``enrolment`` is whether an open invitation opens the
    route that enrols; without one it is closed. ``forgetting`` is what becomes of the models that a wearer who is
    forgotten had a part in. ``note`` is told of every refusal.
    """
    verifier, limit = Verifier(used), RateLimit(PER_MINUTE)

    async def enrol(request: Request) -> Response:
        closed = _Refused(403, "this server enrols nobody at the moment; ask its operator")
        if not enrolment:
            raise closed
        body = await _body(request)
        expected = await run_in_threadpool(experiments.expect_somebody)

        def admit(key: str) -> None:
            if not expected and not experiments.is_member(key):  # which may ask again when it did not hear the answer
                raise RequestRefused("nobody is expected")

        try:
            key = await run_in_threadpool(signing_key, request, body, admit)
        except RequestRefused:
            if expected:
                raise
            raise closed from None
        try:
            asked = json.loads(body)
            token = asked["token"]
            if not isinstance(token, str) or not token.isascii():
                raise TypeError
            consents = read_consents(asked.get("consents", []))
        except ProtocolError as fault:
            raise _Refused(400, str(fault), "consents that cannot be read") from fault
        except (ValueError, KeyError, TypeError, RecursionError) as fault:
            raise _Refused(400, "enrolment needs an invitation's token") from fault
        return JSONResponse({"client_id": await run_in_threadpool(experiments.enrol, token, key, consents)})

    async def newest(request: Request) -> Response:
        fleet, _ = await signer(request)
        return JSONResponse({"sha256": await run_in_threadpool(fleet.registry.newest_model)})

    async def model(request: Request) -> Response:
        fleet, _ = await signer(request)
        sha256 = request.path_params["sha256"]
        mine = bool(re.fullmatch("[0-9a-f]{64}", sha256)) and await run_in_threadpool(fleet.registry.has_model, sha256)
        path = fleet.artifacts.path(sha256)
        if not mine or not path.is_file():
            raise _Refused(404, "there is no such model")
        return FileResponse(path, media_type="application/octet-stream")

    async def withdraw(request: Request) -> Response:
        fleet, client = await signer(request, experiments.of_leaver)
        if (await run_in_threadpool(fleet.registry.client, client)).state == ENROLLED:  # else its answer was lost
            await run_in_threadpool(fleet.withdraw, client)
        return JSONResponse({"client_id": client, "state": "withdrawn"})

    async def forget(request: Request) -> Response:
        found = await run_in_threadpool(known, request, await _body(request), of_forgetter)
        if isinstance(found, dict):
            return JSONResponse(found)
        fleet, client = found
        receipt = await run_in_threadpool(fleet.forget, client, forgetting)
        return JSONResponse(receipt.plain())

    def of_forgetter(key: str) -> tuple[Fleet, str] | dict[str, Any]:
        """Who asks to be forgotten; of who was, and did not hear it, the receipt."""
        try:
            return experiments.of_leaver(key)
        except EnrolmentRefused:
            receipt = experiments.receipt_for(key)
            if receipt is None:
                raise
            return receipt

    async def signer(request: Request, of_key: OfKey = experiments.of_key) -> tuple[Fleet, str]:
        return await run_in_threadpool(known, request, await _body(request), of_key)

    def known(request: Request, body: bytes, of_key: Callable[[str], T]) -> T:
        found: list[T] = []
        signing_key(request, body, lambda key: found.append(of_key(key)))
        return found[0]

    def signing_key(request: Request, body: bytes, admit: Callable[[str], None]) -> str:
        now = datetime.datetime.now(datetime.UTC)
        return verifier.verify(request.headers, request.method, request.scope["path"], body, now, admit)

    async def open_authority(request: Request) -> Response:
        return PlainTextResponse(authorities(certificates))

    def guarded(handler: Handler) -> Handler:
        async def handle(request: Request) -> Response:
            if not limit.allows(request.client.host if request.client else ""):
                return refuse(request, 429, "too many requests; try again in a minute")
            try:
                return await handler(request)
            except ClockWrong as fault:
                return refuse(request, 401, str(fault), "signed by a clock that is wrong")
            except RequestRefused as fault:
                return refuse(request, 401, str(fault))
            except _Refused as fault:
                return refuse(request, fault.status, str(fault), fault.noted)
            except DeviceLost as fault:
                return refuse(request, 410, str(fault))
            except EnrolmentRefused as fault:
                return refuse(request, 403, str(fault))
            except DecisionNeeded as fault:  # its text names the client
                return refuse(request, 403, str(fault), "the operator has to decide what becomes of models")
            except (McoeError, OSError, httpx.HTTPError) as fault:  # its text may name paths of the server
                log.warning("%s could not be done: %s", request.scope["path"], fault)
                return _answer(503, "the server could not finish this; try again")

        return handle

    def refuse(request: Request, status: int, reason: str, noted: str | None = None) -> Response:
        note(Refusal("request refused", noted or reason, named_key(request.headers.get(KEY))))
        return _answer(status, reason)

    async def refuse_route(request: Request, fault: Exception) -> Response:
        assert isinstance(fault, HTTPException)
        return refuse(request, fault.status_code, fault.detail)

    listed: list[tuple[str, str, Handler]] = [
        ("GET", "authority", open_authority),
        ("POST", "enrol", enrol),
        ("GET", "model", newest),
        ("GET", "models/{sha256}", model),
        ("POST", "withdraw", withdraw),
        ("POST", "forget", forget),
    ]
    routes = [Route(PREFIX + path, guarded(h), methods=[method]) for method, path, h in listed]
    return Starlette(routes=routes, exception_handlers={HTTPException: refuse_route})


async def _body(request: Request) -> bytes:
    """The body, of which no more is read when it is too long. Raises _Refused."""
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY:
            raise _Refused(413, f"a request may have {MAX_BODY} bytes")
    return content


def _answer(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status_code=status)
