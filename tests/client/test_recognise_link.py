"""What the main process keeps of what was recognised: half an hour, in memory that does not grow."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from client.recognise_link import RecogniseLink
from mcoe_model.names import EMOTIONS

HALF_AN_HOUR = 18_000


@pytest.fixture
def link(tmp_path: Path) -> RecogniseLink:
    return RecogniseLink(lambda: None, lambda: None, tmp_path / "recognise.log")


def seen(emotion: int, model: str = "a") -> dict[str, Any]:
    probabilities = [float(place == emotion) for place in range(len(EMOTIONS))]
    says = {"emotion": EMOTIONS[emotion], "latency_ms": 0.0, "fps": 30.0, "skipped": 0}
    return {"is": "seen", "probabilities": probabilities, "model": model, **says}


def test_a_part_of_the_time_is_told_by_its_newest_model(link: RecogniseLink) -> None:
    link._heard(seen(0))
    from_ns = time.monotonic_ns()
    assert link.prediction(from_ns, from_ns + 10**9) is None
    for emotion, model in ((1, "a"), (2, "b"), (2, "b"), (3, "b"), (3, "b")):
        link._heard(seen(emotion, model))
    found = link.prediction(from_ns, time.monotonic_ns())
    assert found is not None and found.model_sha256 == "b"
    assert found.probabilities == (0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 0.0)
    link.forget()
    assert link.prediction(0, time.monotonic_ns()) is None


def test_the_oldest_goes_and_memory_does_not_grow(link: RecogniseLink) -> None:
    for _ in range(100):
        link._heard(seen(0))
    since_ns = time.monotonic_ns()
    tracemalloc.start()
    try:
        for _ in range(HALF_AN_HOUR):
            link._heard(seen(1))
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert link.prediction(0, since_ns) is None, "half an hour ago"
    found = link.prediction(since_ns, time.monotonic_ns())
    assert found is not None and found.probabilities[1] == 1.0
    assert grown < 1_000_000, f"{grown} bytes for what is recognised in half an hour"
