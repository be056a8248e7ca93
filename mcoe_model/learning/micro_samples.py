"""Micro-expression clips for the training loop: a few RGB pictures of each, normalised as CMFNet was published with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from mcoe_model.networks.cmfnet import CMFNet
from mcoe_model.networks.network import Features, Network


class Scale(NamedTuple):
    """What pixels are normalised by: (value - mean) / (largest - mean), in grey values 0..255.

    The released code measures both on training and test clips together; here they are of the training clips alone.
    """

    mean: float
    largest: float


def measure_scale(videos: NDArray[np.uint8], positions: Sequence[int]) -> Scale:
    """The scale of some of the clips (N, T, S, S, 3), exact: in whole numbers until the one division."""
    total = sum(int(videos[position].sum(dtype=np.int64)) for position in positions)
    largest = max(int(videos[position].max()) for position in positions)
    mean = total / (len(positions) * videos[0].size)
    return Scale(mean, max(float(largest), mean + 1))


@dataclass(frozen=True)
class MicroSamples:
    """Some of the clips ``videos`` (N, T, S, S, 3), which may be a memory-mapped file."""

    videos: NDArray[np.uint8]
    positions: tuple[int, ...]
    names: tuple[str, ...]
    labels: NDArray[np.int64]  # into micro_expressions.CLASSES
    scale: Scale

    @property
    def lengths(self) -> tuple[int, ...]:
        return (self.videos.shape[1],) * len(self.positions)

    def head_inputs(
        self, model: Network, positions: Sequence[int], windows: NDArray[np.int64], augmentation: Generator | None
    ) -> Features:
        if not isinstance(model, CMFNet):
            raise TypeError(f"{type(model).__name__} does not take RGB clips")
        clips = np.stack([self.videos[self.positions[p]][w] for p, w in zip(positions, windows, strict=True)])
        return (model.backbones(self._normalised(clips)),)

    def _normalised(self, clips: NDArray[np.uint8]) -> Tensor:
        """(B, T, S, S, 3) -> (B, 3, T, S, S)."""
        values = torch.from_numpy(clips.astype(np.float32)).sub_(self.scale.mean)
        return values.div_(self.scale.largest - self.scale.mean).permute(0, 4, 1, 2, 3)


def predict(model: CMFNet, samples: MicroSamples) -> NDArray[np.int64]:
    """The class of every clip (N,), each a batch of its own; the model goes back to the mode it was in."""
    was_training = model.training
    model.eval()
    whole, said = np.arange(samples.videos.shape[1])[None], []  # (1, T)
    with torch.inference_mode():
        for position in range(len(samples.positions)):
            logits, _ = model.classify(samples.head_inputs(model, [position], whole, None))  # (1, C)
            said.append(int(logits.argmax()))
    model.train(was_training)
    return np.array(said, np.int64)
