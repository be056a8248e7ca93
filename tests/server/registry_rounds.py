"""Rounds in a registry as the tests of its contract need them: opened, or published, with replies."""

from __future__ import annotations

import datetime
from dataclasses import replace

from toy_fleet import expectation, honest_reply

from mcoe_model.protocol import CheckIn
from server.acceptance import Accepted, Rejected, judge
from server.registry import Registry, RoundRow, Transfer

HOUR = datetime.timedelta(hours=1)
FIRST = "0" * 64


def accepted(client: str) -> Accepted:
    expected = expectation(cohort=frozenset("abcd"))
    verdict = judge(honest_reply(expected, client), expected)
    assert isinstance(verdict, Accepted)
    return replace(verdict, meta=replace(verdict.meta, update_id=f"{ord(client):032x}"))


def opened(registry: Registry, clients: str, rejected: str = "") -> RoundRow:
    """A round with replies of these clients, from the newest model."""
    registry.add_first_model(FIRST, "generation")
    for client in {*clients, *rejected}:
        registry.saw(CheckIn(client, 10))
    base = registry.newest_model()
    assert base
    row = registry.open_round(base, sorted({*clients, *rejected}), {}, None)
    for client in clients:
        registry.record_reply(row.id, client, accepted(client), Transfer(100, 20))
    for client in rejected:
        registry.record_reply(row.id, client, Rejected(f"no {client}"), Transfer(100, 7))
    return row


def published(registry: Registry, sha256: str, clients: str, rejected: str = "") -> RoundRow:
    row = opened(registry, clients, rejected)
    registry.close_round(row.id)
    registry.publish_round(row.id, sha256, "generation")
    return row
