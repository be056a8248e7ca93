"""What a synthetic data set is asked to be: one frozen settings object, checked whole."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from mcoe_model.errors import SettingsError

DESIGNS: tuple[str, ...] = ("see-like", "crossed", "wearable")

#: SEE's own size; `see-like` has this many subjects and, without a cap, this many sequences.
SEE_SUBJECTS = 111
SEE_SEQUENCES = 2405

#: The wearable design: dated sessions of one wearer, each with at least two clips of every emotion.
WEARABLE_SESSIONS = 6
WEARABLE_SESSION_CLIPS = 14

#: Calibrated: see docs/synthetic.md for what a network reaches at this value and how that was measured.
DEFAULT_DIFFICULTY = 1.0


@dataclass(frozen=True)
class SyntheticSettings:
    """Settings of a synthetic data set. Equal settings give equal bits.

    subjects: number of people. sequences: at most this many performances per subject, or None for the design's own
    number (a `crossed` performance becomes four sequences). size: side of a picture in pixels. design: one of DESIGNS.
    difficulty: 0 plays every emotion by the book; growing values make expressions weaker and people more different.
    seed: of everything. Raises SettingsError naming every fault.
    """

    subjects: int = SEE_SUBJECTS
    sequences: int | None = None
    size: int = 90
    design: str = "see-like"
    difficulty: float = DEFAULT_DIFFICULTY
    seed: int = 0

    def __post_init__(self) -> None:
        faults = []
        if not 1 <= self.subjects <= 999:
            faults.append(f"subjects is {self.subjects}; SEE's names have room for 1 to 999")
        if self.sequences is not None and self.sequences < 1:
            faults.append(f"sequences is {self.sequences}; give at least 1, or none for the design's own number")
        if not 24 <= self.size <= 512:
            faults.append(f"size is {self.size}; an eye can be drawn at 24 to 512 pixels")
        if self.design not in DESIGNS:
            faults.append(f"design is {self.design!r}; known are {', '.join(DESIGNS)}")
        if not (math.isfinite(self.difficulty) and 0 <= self.difficulty <= 5):
            faults.append(f"difficulty is {self.difficulty}; it goes from 0 to 5")
        if self.seed < 0:
            faults.append(f"seed is {self.seed}; it must not be negative")
        needed = WEARABLE_SESSIONS * WEARABLE_SESSION_CLIPS
        if self.design == "wearable" and self.sequences is not None and self.sequences < needed:
            faults.append(f"sequences is {self.sequences}; the wearable design has at least {needed} per subject")
        if faults:
            raise SettingsError(faults)

    def as_json(self) -> dict[str, Any]:
        """The settings as plain values, for `synthetic.json`."""
        return asdict(self)
