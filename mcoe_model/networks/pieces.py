"""Where a tensor of an author's checkpoint goes in a model of ours."""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType

Index = tuple[int | slice | EllipsisType, ...]


@dataclass(frozen=True)
class Piece:
    """``ours[ours_at] = theirs[theirs_at]``; the rows of ``theirs`` are emotions if ``by_emotion``."""

    theirs: str
    ours: str
    theirs_at: Index = (...,)
    ours_at: Index = (...,)
    by_emotion: bool = False


def layer(theirs: str, ours: str, *, by_emotion: bool = False) -> list[Piece]:
    """The weight and the bias of a layer."""
    return [Piece(f"{theirs}.{kind}", f"{ours}.{kind}", by_emotion=by_emotion) for kind in ("weight", "bias")]
