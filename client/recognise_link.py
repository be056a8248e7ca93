"""The recognising process as the main process sees it: the newest expression, and what was seen over a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from client.children import Child
from client.page.wearable_protocol import Live
from client.sessions import Prediction
from mcoe_model.names import EMOTIONS

#: Seconds after which what was recognised is no longer what is seen now.
STALE_S = 1.0
#: What was recognised that is kept in memory: half an hour at ten in a second.
_KEPT = 18_000


class _Recognised:
    """The newest of what was recognised, in memory that does not grow. Added to in the loop, asked in other threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_ns = np.zeros(_KEPT, np.int64)
        self._probabilities = np.zeros((_KEPT, len(EMOTIONS)), np.float64)
        self._by = np.zeros(_KEPT, np.int64)  # numbers of models
        self._models: dict[str, int] = {}
        self._count = 0

    def add(self, at_ns: int, probabilities: tuple[float, ...], model: str) -> None:
        """Keep it in place of the oldest."""
        with self._lock:
            place = self._count % _KEPT
            self._at_ns[place], self._probabilities[place] = at_ns, probabilities
            self._by[place] = self._models.setdefault(model, len(self._models))
            self._count += 1

    def mean(self, from_ns: int, to_ns: int) -> Prediction | None:
        """The mean of what the newest model recognised between two times; None for nothing."""
        with self._lock:
            at_ns = self._at_ns[: self._count]
            places = np.flatnonzero((from_ns <= at_ns) & (at_ns <= to_ns))
            if not len(places):
                return None
            newest = self._by[places[at_ns[places].argmax()]]
            mean = self._probabilities[places[self._by[places] == newest]].mean(axis=0)
            return Prediction(tuple(mean.tolist()), list(self._models)[newest])

    def clear(self) -> None:
        """Nothing is kept."""
        with self._lock:
            self._probabilities[:] = 0.0
            self._count = 0


class RecogniseLink:
    """`python -m client.recognise`, while there are pictures and a model.

    ``ring`` and ``model`` say which; None: not now. ``key`` opens a model that was learned here.
    """

    def __init__(
        self,
        ring: Callable[[], str | None],
        model: Callable[[], Path | None],
        log_file: Path,
        key: Callable[[], bytes | None] = lambda: None,
    ) -> None:
        self._ring = ring
        self._model = model
        self._key = key
        self.child = Child(
            "recognise", "client.recognise", self._arguments, log_file,
            heard=self._heard, gone=self._gone, greet=lambda: self._ask_for(self._told),
        )  # fmt: skip
        self._told: Path | None = None
        self._live: Live | None = None
        self._seen_at = 0.0
        self._refused, self._waiting = "", ""
        self._seen = _Recognised()

    @property
    def live(self) -> Live | None:
        """What is recognised now."""
        return self._live if time.monotonic() - self._seen_at < STALE_S else None

    @property
    def why_not(self) -> str:
        """Why the newest model is not used, or nothing is recognised, in words; empty when all is well. For no log."""
        return self._refused or self._waiting

    def prediction(self, from_ns: int, to_ns: int) -> Prediction | None:
        """The mean of what the newest model recognised between two times of the monotonic clock; None for nothing."""
        return self._seen.mean(from_ns, to_ns)

    def use_ring(self, name: str) -> None:
        """Read another ring: capture was started again."""
        self.child.say({"do": "ring", "name": name})

    def follow(self) -> None:
        """Recognise with the model that is served now, if that is another than before."""
        model = self._model()
        if model is not None and model != self._told and self.child.say(self._ask_for(model)):
            self._told = model

    def forget(self) -> None:
        """Nothing that was seen is kept."""
        self._seen.clear()
        self._live = None

    def _arguments(self) -> list[str] | None:
        ring, model = self._ring(), self._model()
        self._told = model
        return None if ring is None or model is None else ["--ring", ring]

    def _ask_for(self, model: Path | None) -> dict[str, Any]:
        """The command to recognise with a model. Its key goes through the pipe: arguments anybody can see."""
        key = self._key()
        return {"do": "model", "file": str(model), "key": "" if key is None else key.hex()}

    def _heard(self, event: dict[str, Any]) -> None:
        match event["is"]:
            case "refused":
                self._refused = str(event["why"])
            case "waiting":
                self._waiting = str(event["why"])
            case "model":
                self._refused = self._waiting = ""
            case "seen":
                self._waiting = ""
                self._see(event)

    def _see(self, event: dict[str, Any]) -> None:
        probabilities = tuple(float(value) for value in event["probabilities"])
        latency_ms = float(event["latency_ms"])
        self._live = Live(str(event["emotion"]), probabilities, latency_ms, float(event["fps"]), int(event["skipped"]))
        self._seen_at = time.monotonic()
        self._seen.add(time.monotonic_ns() - int(latency_ms * 1e6), probabilities, str(event["model"]))

    def _gone(self) -> None:
        self._live = None
