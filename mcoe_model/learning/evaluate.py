"""Exact evaluation: every window a clip can be sampled at, weighted by the sampling law, so that no sampling noise is
left.

The published protocol scores 20 random passes; this is its expectation. Differs from it only in that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mcoe_model.data.sampling import Sampling
from mcoe_model.learning.samples import Samples
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import Network
from mcoe_model.streams import stream

#: Windows that go through a model together: what they hold of pictures and maps fits a small machine's memory.
_TOGETHER = 32


@dataclass(frozen=True)
class Predictions:
    """What a model said of every window of every clip. M windows in all, N clips, c emotions, k experts chosen.

    Windows of a clip are consecutive and in the order of its sampling law.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int64]  # (N,)
    clip: NDArray[np.int64]  # (M,) which clip a window is of
    window: NDArray[np.int64]  # (M, 2) first and last picture
    probability: NDArray[np.float64]  # (M,) of the window under its clip's sampling law
    logits: NDArray[np.float32]  # (M, c)
    chosen: NDArray[np.int8]  # (M, k)

    def predicted(self) -> NDArray[np.float64]:
        """The distribution of each clip's predicted emotion under the sampling law: (N, c), rows sum to one."""
        result = np.zeros((len(self.names), len(EMOTIONS)))
        np.add.at(result, (self.clip, self.logits.argmax(axis=1)), self.probability)
        return result

    def mean_softmax(self) -> NDArray[np.float64]:
        """The mean softmax over each clip's windows: (N, c)."""
        shifted = np.exp(self.logits.astype(np.float64) - self.logits.max(axis=1, keepdims=True))
        softmax = shifted / shifted.sum(axis=1, keepdims=True)
        result = np.zeros((len(self.names), len(EMOTIONS)))
        np.add.at(result, self.clip, softmax * self.probability[:, None])
        return result

    def random_pass(
        self, sampling: Sampling, seed: int, number: int, lengths: tuple[int, ...]
    ) -> NDArray[np.float64]:
        """One of the published random passes: one drawn window per clip; (N, c) with a single one in each row."""
        generator = stream(seed, "random pass", number)
        rows = {(int(c), *map(int, w)): row for row, (c, w) in enumerate(zip(self.clip, self.window, strict=True))}
        result = np.zeros((len(self.names), len(EMOTIONS)))
        for clip, length in enumerate(lengths):
            window = sampling.draw(length, generator)
            result[clip, self.logits[rows[clip, int(window[0]), int(window[-1])]].argmax()] = 1
        return result


def evaluate(model: Network, samples: Samples) -> Predictions:
    """Run the head over every window of every clip. The model must be in evaluation mode.

    A batch has windows of one clip only, so what is said of a clip does not depend on which others are evaluated.
    """
    clip, window, probability, logits, chosen = [], [], [], [], []
    with torch.inference_mode():
        for position, length in enumerate(samples.lengths):
            law = model.config.sampling.law(length)
            clip.append(np.full(len(law.windows), position))
            window.append(law.windows[:, [0, -1]])
            probability.append(law.probability)
            for start in range(0, len(law.windows), _TOGETHER):
                windows = law.windows[start : start + _TOGETHER]
                features = samples.head_inputs(model, [position] * len(windows), windows, None)
                said, routing = model.classify(features)  # (W, c)
                logits.append(said.numpy())
                chosen.append(routing.chosen.numpy().astype(np.int8))
    return Predictions(
        samples.names,
        samples.labels,
        np.concatenate(clip),
        np.concatenate(window),
        np.concatenate(probability),
        np.concatenate(logits),
        np.concatenate(chosen),
    )
