"""What versions scored on the operator's evaluation set, side by side."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcoe_model.names import EMOTIONS, LIGHTINGS
from server.registry import ModelRow


@dataclass(frozen=True)
class VersionScores:
    """One version and its scores in [0, 1], None where the set has none.

    ``emotions``: recall in the order of EMOTIONS; ``lightings``: WAR in the order of LIGHTINGS.
    """

    version: int
    sha256: str
    state: str
    created: datetime.datetime
    war: float | None
    uar: float | None
    emotions: tuple[float | None, ...]
    lightings: tuple[float | None, ...]


def version_scores(models: Sequence[ModelRow], scores: Mapping[str, Mapping[str, Any]]) -> list[VersionScores]:
    """The versions with what their bytes scored, in the order given; ``scores`` are an evaluation set's, by SHA-256."""
    found = []
    for model in models:
        scored = scores.get(model.sha256, {})
        emotions = scored.get("per_emotion") or {}
        lightings = scored.get("per_lighting") or {}
        found.append(
            VersionScores(
                model.version,
                model.sha256,
                model.state,
                model.created,
                _rate(scored.get("war")),
                _rate(scored.get("uar")),
                tuple(_rate(emotions.get(name)) for name in EMOTIONS),
                tuple(_rate((lightings.get(name) or {}).get("war")) for name in LIGHTINGS),
            )
        )
    return found


def _rate(value: Any) -> float | None:
    """A stored score as a rate; None for what is absent or no number."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
