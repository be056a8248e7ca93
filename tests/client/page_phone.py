"""A phone beside a wearable that stands still: what a browser would send, without one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from fastapi.testclient import TestClient
from standing_wearable import PASSPHRASE, RECOVERY, StandingWearable

from client.page.app import make_page
from client.page.pairing import Pairing
from client.page.settings import PageSettings

NAME = "mcoe-abcd.local"

_keys = iter(range(10**6))


@contextmanager
def a_phone(folder: Path, wearable: StandingWearable) -> Iterator[TestClient]:
    """One that is not paired yet."""
    app = make_page(wearable, PageSettings(folder), NAME, asyncio.Event())
    with TestClient(app, f"https://{NAME}", follow_redirects=False) as client:
        yield client


def pair(phone: TestClient, folder: Path) -> TestClient:
    """Tell the wearable its code."""
    assert post(phone, "/api/pair", {"code": Pairing(folder).code()}).status_code == 200
    return phone


def set_up(phone: TestClient) -> TestClient:
    """A first visit, with every consent."""
    form = {"kinds": ["capture", "labels", "learning", "updates", "export"], "version": "demo-3"}
    assert post(phone, "/api/set-up", form | {"passphrase": PASSPHRASE}).json() == {"recovery": RECOVERY}
    return phone


def post(phone: TestClient, path: str, form: object = None, key: str | None = None, **headers: str) -> httpx.Response:
    """Send a form, with a key of its own unless one is given."""
    sent = {"Idempotency-Key": key or f"{next(_keys):032}"} | headers
    return phone.post(path, json=form or {}, headers=sent)
