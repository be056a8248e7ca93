"""What the learning process is asked (`client.learn`), as the main process says it: no torch.

First a line of JSON, the `Task`; then each clip that is not in the lesson book yet: a line of JSON, the `NewClip`, and
its pictures; then an empty line.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from mcoe_model.data.geometry import PICTURE_SIZE

#: A frame and an event picture, and how many bytes they are.
PAIR = (2, PICTURE_SIZE, PICTURE_SIZE)
PAIR_BYTES = 2 * PICTURE_SIZE**2


@dataclass(frozen=True)
class Task:
    """``lessons`` is the lesson book's folder, ``key`` (hex) what it and the wearer's own models are sealed with;
    ``models`` is where models lie.

    ``model`` is the file to begin from; ``learn`` names the clips to be learned; ``stand`` those of all labels that
    stand: the replay memory lets go of every other one. ``day``: today, as `client.lesson_book` counts them.
    """

    lessons: str
    key: str
    models: str
    model: str
    learn: tuple[str, ...]
    stand: tuple[str, ...]
    day: int

    def to_json(self) -> bytes:
        """As a line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @staticmethod
    def from_json(line: bytes) -> Task:
        """What `to_json` made."""
        said = json.loads(line)
        return Task(**said | {name: tuple(said[name]) for name in ("learn", "stand")})


@dataclass(frozen=True)
class NewClip:
    """A clip whose ``pairs`` pairs of pictures follow; the rest as in `client.lesson_book.Clip`."""

    name: str
    emotion: int
    day: int
    pairs: int

    def to_json(self) -> bytes:
        """As a line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @staticmethod
    def from_json(line: bytes) -> NewClip:
        """What `to_json` made."""
        return NewClip(**json.loads(line))
