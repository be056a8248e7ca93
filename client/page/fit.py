"""Fitting the camera to the eye: a live picture with a square on it, checks in words, and ten seconds to try it out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from client.page.context import Key, Page
from client.page.entrance import Form
from client.page.fit_checks import fit_checks
from client.page.pictures import preview_jpeg, replay_bytes
from mcoe_model.data.events import Pair
from mcoe_model.data.geometry import SENSOR, Geometry

#: Seconds that a question for the next picture waits, and how often it looks.
_WAIT_S, _LOOK_S = 2.0, 0.02


class Square(Form):
    """A `Geometry` as the wearer chose it."""

    x: int
    y: int
    side: int
    rotation: float
    eye: Literal["right", "left"]

    def geometry(self) -> Geometry:
        """Raises SettingsError for a square that is not on the sensor."""
        return Geometry(self.x, self.y, self.side, self.rotation, self.eye)


class Watched(Square):
    """The square on a live picture; ``after``: the number of the last picture seen."""

    after: int = -1


def fit_routes(page: Page) -> APIRouter:
    """Fit and try-out screens."""
    routes = APIRouter()

    @routes.get("/fit")
    async def fit(request: Request, first: bool = False) -> Response:
        status = await page.daily(request)
        if isinstance(status, Response):
            return status
        square = {"x": status.geometry.x, "y": status.geometry.y, "side": status.geometry.side,
                  "rotation": status.geometry.rotation, "eye": status.geometry.eye}  # fmt: skip
        return page.show(request, "fit", status, square=square, sensor=SENSOR, first=first)

    @routes.get("/api/preview")
    async def preview(square: Annotated[Watched, Query()]) -> Response:
        """The next picture as JPEG, the frame above the events, and what the checks find for this square."""
        geometry, until = square.geometry(), time.monotonic() + _WAIT_S
        while (found := await page.wearable.preview()) is None or found.number == square.after:
            if time.monotonic() > until or page.stopping.is_set():
                return Response(status_code=204, headers={"X-Checks": "no-frames"})
            await asyncio.sleep(_LOOK_S)
        jpeg = await asyncio.to_thread(preview_jpeg, found)
        checks = await asyncio.to_thread(fit_checks, found.frame, found.event, geometry)
        headers = {"X-Number": str(found.number), "X-Checks": ",".join(checks)}
        return Response(jpeg, media_type="image/jpeg", headers=headers)

    @routes.post("/api/fit")
    async def choose(form: Square, key: Key) -> dict[str, object]:
        geometry = form.geometry()
        return await page.post("fit", key, lambda: page.wearable.fit(geometry))

    @routes.get("/try")
    async def try_screen(request: Request) -> Response:
        status = await page.daily(request)
        return status if isinstance(status, Response) else page.show(request, "try", status)

    @routes.post("/api/try-out")
    async def try_out(key: Key) -> dict[str, object]:
        async def act() -> dict[str, object]:
            found = await page.wearable.try_out()
            return {"pairs": len(found.pairs), "frames": found.frames, "events": found.events}

        return await page.post("try-out", key, act)

    @routes.get("/api/try-out/replay")
    async def replay() -> Response:
        return await replay_response((await page.wearable.tried_out()).pairs)

    @routes.post("/api/try-out/delete")
    async def delete(key: Key) -> dict[str, object]:
        return await page.post("try-out/delete", key, page.wearable.delete_try_out)

    return routes


async def replay_response(pairs: Sequence[Pair]) -> Response:
    """Pairs for the phone to replay."""
    content = await asyncio.to_thread(replay_bytes, pairs)
    return Response(content, media_type="application/octet-stream", headers={"Content-Encoding": "gzip"})
