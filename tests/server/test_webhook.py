"""What happened in a fleet, posted to an address that the operator names: a real one, which may hang or fail."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import pytest

from server.dashboard.webhook import WAITING, WebhookEvent, notify
from server.registry import utc_now


class Receiver(ThreadingHTTPServer):
    """An address for a webhook: keeps what it is sent, and answers as told."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.code = 200
        self.may_answer = Event()
        self.may_answer.set()
        super().__init__(("127.0.0.1", 0), _Keep)
        self.url = f"http://127.0.0.1:{self.server_port}/hook"
        Thread(target=self.serve_forever, daemon=True).start()

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        for _ in range(2400):
            if len(self.heard) >= count:
                break
            time.sleep(0.05)
        return self.heard


class _Keep(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.may_answer.wait(120)
        self.server.heard.append(json.loads(content))
        self.send_response(self.server.code)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Receiver()
    yield server
    server.may_answer.set()
    server.shutdown()
    server.server_close()


def event(number: int) -> WebhookEvent:
    return WebhookEvent("round closed", "toy", number, "a" * 64, utc_now())


def test_the_webhook_posts_what_happened(receiver: Receiver) -> None:
    said = event(3)
    notify(receiver.url, said)
    assert receiver.wait_for(1) == [
        {"event": "round closed", "experiment": "toy", "round": 3, "model": "a" * 64, "time": said.time.isoformat()}
    ]


def test_a_webhook_that_hangs_holds_nobody_up_and_drops_what_is_too_much(receiver: Receiver) -> None:
    receiver.may_answer.clear()
    for number in range(3 * WAITING):
        notify(receiver.url, event(number))
    assert receiver.heard == []
    receiver.may_answer.set()
    heard = receiver.wait_for(WAITING)
    assert [one["round"] for one in heard[:WAITING]] == list(range(WAITING))
    time.sleep(0.2)
    assert len(heard) <= WAITING + 1


def test_a_webhook_that_fails_is_logged_once(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.code = 500
    for number in range(3):
        notify(receiver.url, event(number))
    receiver.wait_for(3)
    time.sleep(0.1)
    [said] = [one.getMessage() for one in caplog.records if "webhook" in one.getMessage()]
    assert said == "the webhook at 127.0.0.1 does not take events: it answers 500", "its address is a secret"
