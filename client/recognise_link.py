"""The recognising process as the main process sees it: the newest expression, and what was seen over a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from client.children import Child
from client.page.wearable_protocol import Live
from client.sessions import Prediction

#: Seconds after which what was recognised is no longer what is seen now.
STALE_S = 1.0
#: What was recognised that is kept in memory: half an hour at ten in a second.
_KEPT = 18_000


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
        #: When, what and by which model.
        self._seen: deque[tuple[int, tuple[float, ...], str]] = deque(maxlen=_KEPT)

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
        seen = tuple(self._seen)  # all at once: this is asked in the store's thread
        found = [(probabilities, model) for at, probabilities, model in seen if from_ns <= at <= to_ns]
        if not found:
            return None
        newest = found[-1][1]
        mean = np.mean([probabilities for probabilities, model in found if model == newest], axis=0)
        return Prediction(tuple(float(value) for value in mean), newest)

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
        self._seen.append((time.monotonic_ns() - int(latency_ms * 1e6), probabilities, str(event["model"])))

    def _gone(self) -> None:
        self._live = None
