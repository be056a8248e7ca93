"""Clips of the lesson book as what training and evaluation see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from client.lesson_book import Clip
from mcoe_model.learning.samples import FeatureSamples


def samples_of(clips: Sequence[Clip]) -> FeatureSamples:
    """These clips, in their order."""
    labels = np.array([clip.emotion for clip in clips], np.int64)
    return FeatureSamples(tuple(clip.name for clip in clips), labels, tuple(clip.features for clip in clips))
