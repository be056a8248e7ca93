"""Tells one address outside what happened. It names rounds and models, never clients."""

from __future__ import annotations

import datetime
import logging
import queue
import threading
from dataclasses import asdict, dataclass
from functools import cache
from typing import Literal
from urllib.parse import urlsplit

import httpx

#: Seconds that the address has to connect, and to answer.
TIMEOUT_S = 5.0
#: Events that wait while the address is slow; further ones are dropped.
WAITING = 32

EventName = Literal["round closed", "canary stopped", "alarm"]

log = logging.getLogger("mcoe")


@dataclass(frozen=True)
class WebhookEvent:
    """What happened: in which experiment and round, to which model (SHA-256), when (UTC).

    None where it concerns no round or model.
    """

    event: EventName
    experiment: str
    round: int | None
    model: str | None
    time: datetime.datetime


def notify(url: str, event: WebhookEvent) -> None:
    """Post an event as JSON, field by field, from a thread of its own. Never waits, never fails."""
    _sender(url).offer(event)


class _Sender:
    """Posts to one address what it is offered, in order. The first of several failures in a row is logged."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._failed = False
        self._events: queue.Queue[WebhookEvent] = queue.Queue(WAITING)
        threading.Thread(target=self._run, name="webhook", daemon=True).start()

    def offer(self, event: WebhookEvent) -> None:
        try:
            self._events.put_nowait(event)
        except queue.Full:
            self._fail("it is too slow; an event was dropped")

    def _run(self) -> None:
        while True:
            self._post(self._events.get())

    def _post(self, event: WebhookEvent) -> None:
        said = asdict(event) | {"time": event.time.isoformat()}
        try:
            httpx.post(self._url, json=said, timeout=TIMEOUT_S).raise_for_status()
        except httpx.HTTPStatusError as fault:
            self._fail(f"it answers {fault.response.status_code}")
        except (httpx.HTTPError, httpx.InvalidURL) as fault:
            self._fail(type(fault).__name__)
        else:
            self._failed = False

    def _fail(self, why: str) -> None:
        if not self._failed:
            # Whoever has the whole address can post there: it is for no log.
            log.warning("the webhook at %s does not take events: %s", urlsplit(self._url).hostname, why)
        self._failed = True


@cache
def _sender(url: str) -> _Sender:
    return _Sender(url)
