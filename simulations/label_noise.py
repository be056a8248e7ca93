"""Wrong labels, by a stated confusion matrix: what somebody who labels their own recordings gets wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mcoe_model.errors import DataMissing, SettingsError
from mcoe_model.names import EMOTIONS
from mcoe_model.streams import stream

#: (c, c): row = the true emotion, column = the label that is given, rows sum to one. In the order of EMOTIONS.
Confusion = NDArray[np.float64]


def confusion(text: str) -> Confusion:
    """The matrix that a setting asks for: a share of wrong labels, evenly over the other six, or a JSON file.

    The file holds seven rows of seven probabilities. Raises SettingsError, DataMissing.
    """
    try:
        share = float(text)
    except ValueError:
        return _read(Path(text))
    if not 0 <= share <= 1:
        raise SettingsError([f"label noise must be a share between 0 and 1 or a file, not {text!r}"])
    count = len(EMOTIONS)
    return np.full((count, count), share / (count - 1)) + np.eye(count) * (1 - share - share / (count - 1))


def given_label(matrix: Confusion, emotion: int, name: str, *, seed: int) -> int:
    """The label that the clip ``name`` of this emotion is given; the same whenever it is asked."""
    return int(stream(seed, "label", name).choice(len(EMOTIONS), p=matrix[emotion]))


def _read(path: Path) -> Confusion:
    if not path.is_file():
        raise DataMissing(f"label noise is neither a share nor a file: {path}")
    try:
        matrix = np.array(json.loads(path.read_bytes()), np.float64)
    except (ValueError, TypeError) as fault:
        raise SettingsError([f"{path} is no confusion matrix: {fault}"]) from fault
    count = len(EMOTIONS)
    if matrix.shape != (count, count) or not (matrix >= 0).all() or not np.allclose(matrix.sum(axis=1), 1, atol=1e-6):
        raise SettingsError([f"{path} is no confusion matrix: {count} rows of {count} probabilities that sum to 1"])
    matrix /= matrix.sum(axis=1, keepdims=True)
    return matrix
