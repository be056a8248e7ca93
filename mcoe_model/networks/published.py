"""Loading checkpoints of the models' authors by their own parameter names, which each model knows of itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from mcoe_model.errors import ModelInvalid, SettingsError
from mcoe_model.names import EMOTIONS, parse_emotion
from mcoe_model.networks.network import Network
from mcoe_model.networks.pieces import Piece

#: Counters of batches that BatchNorm keeps and nothing reads; old files lack them.
_COUNTER = "num_batches_tracked"


def from_published(state_dict: Mapping[str, Tensor], model: Network, *, label_order: Sequence[str]) -> None:
    """Copy a published state dict into ``model``, which must have the published structure (mcoe, seen).

    ``label_order`` is the list ``labels`` of the annotation file that the checkpoint was trained with; every layer of
    classes is permuted from it to `EMOTIONS`. Raises SettingsError when ``label_order`` is not a permutation of the
    emotions, ModelInvalid when names are unknown or missing or shapes differ; nothing is copied then.
    """
    rows = _emotion_rows(label_order)
    own = model.state_dict()
    wanted = model.published_pieces()
    known = {piece.theirs for piece in wanted}
    faults = [
        _listed("unknown", sorted(state_dict.keys() - known)),
        _listed("missing", sorted(name for name in known - state_dict.keys() if not name.endswith(_COUNTER))),
        _listed("of another shape", sorted({piece.theirs for piece in wanted if not _fits(piece, state_dict, own)})),
    ]
    if any(faults):
        raise ModelInvalid(f"not a published checkpoint of {model.config.preset}: {'; '.join(filter(None, faults))}")
    with torch.no_grad():
        for piece in wanted:
            if piece.theirs in state_dict:
                values = state_dict[piece.theirs][piece.theirs_at]
                own[piece.ours][piece.ours_at].copy_(values[rows] if piece.by_emotion else values)


def _emotion_rows(label_order: Sequence[str]) -> list[int]:
    """For each of `EMOTIONS`, its place in ``label_order``."""
    try:
        labels = [parse_emotion(label) for label in label_order]
    except ValueError as fault:
        raise SettingsError([f"label order: {fault}; give the list `labels` of the annotation file"]) from fault
    if sorted(labels) != sorted(EMOTIONS):
        raise SettingsError([f"label order {', '.join(labels)} does not name each of the 7 emotions once"])
    return [labels.index(emotion) for emotion in EMOTIONS]


def _fits(piece: Piece, state_dict: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    """Whether the shapes agree; a missing tensor is another fault."""
    if piece.theirs not in state_dict:
        return True
    try:
        return state_dict[piece.theirs][piece.theirs_at].shape == own[piece.ours][piece.ours_at].shape
    except IndexError:  # too few dimensions, or too few rows
        return False


def _listed(fault: str, names: Collection[str], *, shown: int = 8) -> str:
    """For example "12 missing (a, b, c and 9 more)"; empty when there are none."""
    if not names:
        return ""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{len(names)} {fault} ({', '.join(list(names)[:shown])}{more})"
