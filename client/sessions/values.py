"""What a store takes and gives: sessions, segments, spans, labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from client.said import Said
from client.sessions.tables import SessionState
from mcoe_model.data.geometry import Geometry
from mcoe_model.errors import DataInvalid
from mcoe_model.names import EMOTIONS

OTHER, SKIP = "other", "skip"
#: What a wearer can say of a span.
SAYINGS = (*EMOTIONS, OTHER, SKIP)
#: Microseconds that a span lasts, at least and at most.
SHORTEST_US, LONGEST_US = 500_000, 30_000_000
LEAST, MOST = 1, 5

#: Who said it.
Source = Literal["wearer", "prompt", "protocol"]
SOURCES: tuple[Source, ...] = get_args(Source)

#: What another label can still change: all that is ever learned from the span; what is learned next, since the span was
#: learned once and its recording is still there; or the wearer's history alone.
Change = Literal["everything", "next learning", "history"]


@dataclass(frozen=True)
class Label:
    """One of the seven emotions, ``other`` (or unsure) or ``skip``; how strong it was, from 1 to 5, if the wearer says.

    Raises DataInvalid.
    """

    said: str
    intensity: int | None = None

    def __post_init__(self) -> None:
        if self.said not in SAYINGS:
            raise DataInvalid(f"a label must be one of {', '.join(SAYINGS)}, not {self.said!r}")
        if self.intensity is not None and not LEAST <= self.intensity <= MOST:
            raise DataInvalid(f"an intensity must be between {LEAST} and {MOST}, not {self.intensity}")

    @property
    def emotion(self) -> str | None:
        """What can be learned from it."""
        return self.said if self.said in EMOTIONS else None


@dataclass(frozen=True)
class Prediction:
    """What a model took a span for: ``probabilities`` in the order of `EMOTIONS`, which sum to one."""

    probabilities: tuple[float, ...]
    model_sha256: str

    @property
    def emotion(self) -> str:
        return EMOTIONS[max(range(len(EMOTIONS)), key=self.probabilities.__getitem__)]

    @property
    def confidence(self) -> float:
        return max(self.probabilities)

    def to_plain(self) -> dict[str, Any]:
        return {"probabilities": [round(value, 6) for value in self.probabilities], "model": self.model_sha256}

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> Prediction:
        return Prediction(tuple(plain["probabilities"]), plain["model"])


@dataclass(frozen=True)
class Span:
    """A part of a session, in the camera's microseconds, as it stands now.

    ``predicted`` is the model's own guess; it is None until the wearer has chosen, so as not to be suggested.
    ``versions`` counts what was said and trimmed since it was marked. ``clock_state``: of the clock that says
    ``edited_us``; None where an earlier program wrote that down.
    """

    id: int
    session: str
    start_us: int
    end_us: int
    label: Label | None
    source: Source | None
    edited_us: int | None
    clock_state: str | None
    predicted: Prediction | None
    versions: int
    change: Change


@dataclass(frozen=True)
class Segment:
    """About ten seconds of a session, sealed; times in the camera's microseconds."""

    session: str
    number: int
    starts_us: int
    ends_us: int
    events: int
    frames: int
    imu: int
    triggers: int
    bytes: int


@dataclass(frozen=True)
class Recording:
    """A session as the wearer sees it.

    ``starts_us`` and ``ends_us`` are the camera's microseconds, None before the first segment; the other ``_us`` are
    UTC, ``started_us`` that of its first picture. ``raw``: its pictures are still there, until ``raw_until_us``.
    ``kept``: the wearer asked for a later day.
    """

    id: str
    state: SessionState
    camera: str
    geometry_values: dict[str, Any]
    zone: str
    clock_state: str
    started_us: int
    ended_us: int | None
    ended_why: str | None
    starts_us: int | None
    ends_us: int | None
    segments: int
    bytes: int
    spans: int
    labelled: int
    flaw: str | None
    learned_us: int | None
    raw: bool
    raw_until_us: int
    kept: bool

    @property
    def geometry(self) -> Geometry:
        """How its pictures are made. Raises SettingsError for a version that this program does not make."""
        return Geometry(**self.geometry_values)


@dataclass(frozen=True)
class Training:
    """One time that the head learned, or was asked to and did not; ``scores`` are those of the wearer's clips."""

    utc_us: int
    zone: str
    base_sha256: str
    model_sha256: str | None
    spans: int
    outcome: str
    seconds: float
    scores: dict[str, Any] | None


def check_bounds(start_us: int, end_us: int) -> None:
    """Raises DataInvalid for a span that is too short or too long."""
    if not SHORTEST_US <= end_us - start_us <= LONGEST_US:
        allowed = f"from {SHORTEST_US / 1e6:g} to {LONGEST_US / 1e6:g} seconds"
        says = f"a span lasts {allowed}, not {{seconds:g}}"
        raise DataInvalid(Said("label.bounds", says, seconds=(end_us - start_us) / 1e6))
