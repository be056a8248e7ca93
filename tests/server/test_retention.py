"""A server lets go of what has passed the retention time, whether rounds end or not."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from toy_fleet import enlist, toy_engine

from server import children
from server.children import keep_to_retention


def test_an_idle_server_lets_go_daily_and_a_failure_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = toy_engine(tmp_path)
    registry = engine.registry
    stopped, pauses, found = threading.Event(), list[float](), list[int]()
    prune = registry.prune

    def counted(*arguments: Any) -> None:
        found.append(prune(*arguments).check_ins)
        if len(found) == 2:
            raise OSError("the disk was full")

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        enlist(engine, "a")  # a check-in that is too old at once
        return len(pauses) == 5

    monkeypatch.setattr(registry, "prune", counted)
    monkeypatch.setattr(stopped, "wait", wait)
    keep_to_retention(registry, -1, stopped)
    assert found == [1, 1, 1, 1]
    assert pauses == [0.0, children.DAY_S, 60.0, children.DAY_S, children.DAY_S]
