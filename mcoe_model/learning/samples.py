"""What training and evaluation see of clips: pictures to encode, or features of frozen backbones already encoded.

Letters: B batch, N pictures, F features of a picture, S side of a picture [pixels], C channels of an event picture
(1 in SEE; such pictures have no axis for it).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from mcoe_model.data.cache import Clips
from mcoe_model.learning.augment import augment
from mcoe_model.model_file import Normalisation
from mcoe_model.networks import Features, MCOENet, Network
from mcoe_model.networks.network import three_channels


class Samples(Protocol):
    """A set of labelled clips, addressed by position 0..len-1."""

    @property
    def names(self) -> tuple[str, ...]:
        """The clips' sequence names."""
        ...

    @property
    def labels(self) -> NDArray[np.int64]:
        """(len,) index into EMOTIONS."""
        ...

    @property
    def lengths(self) -> tuple[int, ...]:
        """Pictures of each modality in each clip."""
        ...

    def head_inputs(
        self, model: Network, positions: Sequence[int], windows: NDArray[np.int64], augmentation: Generator | None
    ) -> Features:
        """The features of each window (B, samples) that the model's head takes; augmented from a generator."""
        ...


@dataclass(frozen=True)
class PictureSamples:
    """Clips whose pictures go through the backbones again every time, so that the backbones can learn."""

    clips: Clips
    indices: tuple[int, ...]
    normalisation: Normalisation

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.clips.records[index].name for index in self.indices)

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.array([self.clips.records[index].class_index for index in self.indices], np.int64)

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(self.clips.n_frames(index) for index in self.indices)

    def head_inputs(
        self, model: Network, positions: Sequence[int], windows: NDArray[np.int64], augmentation: Generator | None
    ) -> Features:
        size, channels, sampling, constants = (
            self.clips.size, self.clips.channels, model.config.sampling, self.normalisation
        )  # fmt: skip
        seen_frames, seen_events = np.array(sampling.frames, np.int64), np.array(sampling.events, np.int64)
        n, m = len(seen_frames), len(seen_events)
        pictures = np.empty((len(positions), n + m * channels, size, size), np.uint8)  # (B, frames + events C, S, S)
        for row, (position, window) in enumerate(zip(positions, windows, strict=True)):
            frames, events = self.clips.pictures(self.indices[position])
            pictures[row, :n] = frames[window[seen_frames]]
            pictures[row, n:] = events[window[seen_events]].reshape(-1, size, size)
        if augmentation is not None:
            pictures = augment(pictures, n, augmentation, channels, self.clips.background)
        frame = normalise(pictures[:, :n], constants.frame_mean, constants.frame_sd)  # (B, frames, S, S)
        event = normalise(pictures[:, n:], constants.event_mean, constants.event_sd)  # (B, events C, S, S)
        if channels > 1:
            event = event.reshape(-1, m, channels, size, size)  # (B, events, C, S, S)
        return model.features(frame, event)


@dataclass(frozen=True)
class FeatureSamples:
    """Clips as features of frozen backbones: per clip and stream an array (pictures, F), often memory-mapped.

    ``features[clip]`` maps (modality, role) to that array; a model whose backbones serve both roles has the role
    ``any``. Only of models that encode pictures one by one.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int64]
    features: tuple[Mapping[tuple[str, str], NDArray[np.float32]], ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(len(next(iter(streams.values()))) for streams in self.features)

    def at(self, positions: Sequence[int]) -> FeatureSamples:
        """Some of the clips, in this order."""
        labels: NDArray[np.int64] = self.labels[list(positions)]
        return FeatureSamples(
            tuple(self.names[p] for p in positions), labels, tuple(self.features[p] for p in positions)
        )

    def head_inputs(
        self, model: Network, positions: Sequence[int], windows: NDArray[np.int64], augmentation: Generator | None
    ) -> Features:
        def pick(modality: str, end: int) -> Tensor:
            role = model.roles[end] if len(model.roles) > 1 else model.roles[0]
            rows = [self.features[p][modality, role][w[end]] for p, w in zip(positions, windows, strict=True)]
            return torch.from_numpy(np.stack(rows))  # (B, F)

        return pick("frame", 0), pick("frame", -1), pick("event", 0), pick("event", -1)


def normalise(pictures: NDArray[np.uint8], mean: float, sd: float) -> Tensor:
    """Grey values 0..255 to (value / 255 - mean) / sd, float32, same shape."""
    return torch.from_numpy(pictures.astype(np.float32)).mul_(1 / (255 * sd)).sub_(mean / sd)


def encode_clip(
    model: MCOENet, clips: Clips, index: int, normalisation: Normalisation
) -> dict[tuple[str, str], NDArray[np.float32]]:
    """Features of every picture of one clip, by (modality, role): each (pictures, F).

    A clip is one batch, whatever else is encoded before or after: so its features are the same bits in any order.
    """
    frames, events = clips.pictures(index)
    return encode_pictures(model, np.asarray(frames), np.asarray(events), normalisation)


def encode_pictures(
    model: MCOENet, frames: NDArray[np.uint8], events: NDArray[np.uint8], normalisation: Normalisation
) -> dict[tuple[str, str], NDArray[np.float32]]:
    """The same of a clip's pictures (N, S, S) themselves, events (N, C, S, S) where they have several channels.

    S is the model's input size. It is in evaluation mode.
    """
    streams = {
        "frame": normalise(frames, normalisation.frame_mean, normalisation.frame_sd),  # (N, S, S)
        "event": normalise(events, normalisation.event_mean, normalisation.event_sd),  # (N, S, S) or (N, C, S, S)
    }
    with torch.inference_mode():
        return {
            (modality, role): model.encode(three_channels(pictures), modality, role).numpy()  # (N, F)
            for modality, pictures in streams.items()
            for role in model.roles
        }


def encode_clips(model: MCOENet, clips: Clips, indices: Iterable[int], normalisation: Normalisation) -> FeatureSamples:
    """Features of several clips, held in memory. The model must be in evaluation mode."""
    chosen = tuple(indices)
    return FeatureSamples(
        tuple(clips.records[index].name for index in chosen),
        np.array([clips.records[index].class_index for index in chosen], np.int64),
        tuple(encode_clip(model, clips, index, normalisation) for index in chosen),
    )


def measure_normalisation(clips: Clips, indices: Iterable[int]) -> Normalisation:
    """Mean and standard deviation over all pixels of these clips, exact: counted on the 256 grey values."""
    counts = np.zeros((2, 256), np.int64)
    for index in indices:
        for modality, pictures in enumerate(clips.pictures(index)):
            counts[modality] += np.bincount(np.asarray(pictures).reshape(-1), minlength=256)
    values = np.arange(256) / 255
    means = counts @ values / counts.sum(axis=1)
    sds = np.sqrt((counts * (values - means[:, None]) ** 2).sum(axis=1) / counts.sum(axis=1))
    return Normalisation(float(means[0]), max(float(sds[0]), 1e-3), float(means[1]), max(float(sds[1]), 1e-3))
