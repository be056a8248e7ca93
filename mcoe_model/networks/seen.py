"""SEEN: a spiking network for one eye, whose temporal branch borrows the weights of its spatial branch.

Spiking Eye Emotion Network, 2023, https://arxiv.org/abs/2310.04043, as in the authors' released code
(https://github.com/zhanghaiwei1234/Single-eye-Emotion-Recognition). The spatial branch convolves the first and the last
frame of a window, without spikes until its end. The temporal branch convolves every event picture by copies of the same
weights, without biases, between layers of leaky integrate-and-fire neurons. Convolutions learn through the spatial
branch only; the two layers of the head learn through time.

What differs from the release: a layer of neurons runs over all steps before the next one begins, so that each
convolution is one call for the window (the arithmetic is the same); sizes of feature maps follow from the convolutions,
where the release allocates them by a rule that fails beyond 90 pixels; and a batch of a single window is normalised by
the running statistics when training, where the release's batch normalisation fails.

Letters: B batch, T event pictures of a window, S side of a picture [pixels], H and W of a map, C channels,
N neurons of the last convolution, c classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d

from mcoe_model.data.sampling import RandomWindow
from mcoe_model.errors import SettingsError
from mcoe_model.learning.settings import FineTuneSettings, Recipe
from mcoe_model.names import EMOTIONS
from mcoe_model.networks.hce_moe import Routing
from mcoe_model.networks.lif import Neurons, fire, integrate_and_fire
from mcoe_model.networks.network import Features, Network, not_routed, three_channels
from mcoe_model.networks.pieces import Piece, layer


@dataclass(frozen=True)
class SeenConfig:
    """One setting E<steps>_S<skip> of SEEN: how many event pictures, and how many are left out between two of them."""

    preset: str
    steps: int = 4  # T
    skip: int = 3
    input_size: int = 90  # side of the square pictures [pixels], which the size of the head follows from
    fixed_size: bool = False
    experts: int = 0
    top_k: int = 0

    def __post_init__(self) -> None:
        least = {"steps": 1, "skip": 0, "input_size": 1}
        faults = [f"{name} is {getattr(self, name)}, must be at least {n}" for name, n in least.items()
                  if getattr(self, name) < n]  # fmt: skip
        if self.experts or self.top_k:
            faults.append("it has no experts")
        if faults:
            raise SettingsError([f"preset {self.preset!r}: {fault}" for fault in faults])

    @property
    def sampling(self) -> RandomWindow:
        """Every event picture of a window, and the frames beside the first and the last."""
        return RandomWindow(self.steps, self.skip + 1, frames=(0, -1), events=tuple(range(self.steps)))

    @property
    def published_recipe(self) -> Recipe:
        """As the released code trains: unweighted cross-entropy, no augmentation."""
        return Recipe(
            FineTuneSettings(180, 32, 0.015, 1e-3, schedule="step", batch_norm="running", balance=0.0), optimiser="sgd"
        )

    @property
    def recipe(self) -> Recipe:
        """For fewer clips than SEE has: smaller batches, since it takes some hundred steps to leave chance behind.

        At 90 pixels it stays there with ten times this learning rate.
        """
        return Recipe(FineTuneSettings(60, 8, 1e-4, 1e-3, schedule="cosine", batch_norm="running", balance=0.0))

    def make(self) -> Seen:
        return Seen(self)


class Trace(NamedTuple):
    """What the network computes on the way to its logits."""

    scales: Tensor  # (B, 3) weights of the three convolutions, which sum to 1
    spatial: Tensor  # (B, N) spikes of the frames
    temporal: tuple[Neurons, Neurons, Neurons]  # after each convolution of events, (T, B, C, H, W)
    head: tuple[Neurons, Neurons]  # (T, B, 256) and (T, B, c)


class ScaleWeight(nn.Module):
    """How much one scale counts: its map (B, 64, H, W) -> a number for each sample (B, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(64, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.excite = nn.Conv2d(8, 1, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, 64, H, W) -> (B, 1)."""
        x = self.squeeze(maps.mean((2, 3), keepdim=True))  # (B, 8, 1, 1)
        if self.training and len(x) == 1:  # a single value has no variance
            norm = self.norm
            x = batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        else:
            x = self.norm(x)  # (B, 8, 1, 1)
        weight: Tensor = self.excite(torch.relu(x)).flatten(1)  # (B, 1)
        return weight


class SharedConvolutions(nn.Module):
    """The convolutions of both branches: for frames with their biases, for events copies of the weights alone."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = nn.Conv2d(6, 3, 1)  # the two frames become one picture
        self.scales = nn.ModuleList(nn.Conv2d(3, 64, size, 2, size // 2) for size in (3, 5, 7))
        self.weights = nn.ModuleList(ScaleWeight() for _ in range(3))
        self.mix = nn.Conv2d(192, 64, 1)
        self.second = nn.Conv2d(64, 256, 3, 2, 1)
        self.third = nn.Conv2d(256, 512, 3, 4, 1)

    def frames(self, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """The current (B, N) of the spatial neurons and the weights of the scales (B, 3), of two pictures (B, 3, S, S).

        There is no nonlinearity between its convolutions.
        """
        x = self.ends(torch.cat([first, last], dim=1))  # (B, 3, S, S)
        maps = [scale(x) for scale in self.scales]  # (B, 64, H, W) thrice
        scores = [weight(scaled) for weight, scaled in zip(self.weights, maps, strict=True)]  # (B, 1) thrice
        weights = torch.softmax(torch.cat(scores, dim=1), dim=1)  # (B, 3)
        x = self.mix(_weighted(maps, weights))  # (B, 64, H, W)
        return self.third(self.second(x)).flatten(1), weights

    @torch.no_grad()
    def events(self, events: Tensor, weights: Tensor) -> tuple[Neurons, Neurons, Neurons]:
        """The neurons after each convolution, from pictures (T, B, 3, S, S); ``weights`` (B, 3) are the frames'."""
        steps = len(events)
        pictures = events.flatten(0, 1)  # (TB, 3, S, S)
        maps = [_copied(scale, pictures) for scale in self.scales]  # (TB, 64, H, W) thrice
        mixed = _copied(self.mix, _weighted(maps, weights.repeat(steps, 1)))  # (TB, 64, H, W)
        first = _neurons(mixed, steps)  # (T, B, 64, H, W)
        second = _neurons(_copied(self.second, first.spikes.flatten(0, 1)), steps)  # (T, B, 256, H, W)
        third = _neurons(_copied(self.third, second.spikes.flatten(0, 1)), steps)  # (T, B, 512, H, W)
        return first, second, third


class Seen(Network):
    """Recognises the emotion in two frames and T event pictures; see `SeenConfig`."""

    config: SeenConfig

    def __init__(self, config: SeenConfig) -> None:
        super().__init__()
        self.config = config
        self.backbones = SharedConvolutions()
        side = config.input_size
        for stride in (2, 2, 4):  # of the three convolutions
            side = (side - 1) // stride + 1
        self.hidden = nn.Linear(512 * side * side, 256)
        self.classifier = nn.Linear(256, len(EMOTIONS))

    def features(self, frame: Tensor, event: Tensor) -> Features:
        """Spikes of the frames (B, N) and of every step's events (B, T, N), from (B, 2, S, S) and (B, T, S, S)."""
        return self._features(*_coloured(frame, event))[:2]

    def classify(self, features: Features) -> tuple[Tensor, Routing]:
        spatial, temporal = features  # (B, N), (B, T, N)
        _, last = self._head(spatial, temporal.transpose(0, 1))
        return last.membranes.mean(0), not_routed(len(spatial))  # (B, c)

    def forward(self, frame: Tensor, event: Tensor) -> Tensor:
        """Logits (B, c) from two windows (B, 3, T, S, S), of whose frames only the first and the last are used."""
        return self.trace(frame, event).head[1].membranes.mean(0)  # (B, c)

    def trace(self, frame: Tensor, event: Tensor) -> Trace:
        """Everything on the way from two windows (B, 3, T, S, S) to the logits."""
        first, last = frame[:, :, 0], frame[:, :, -1]  # (B, 3, S, S) twice
        spatial, _, scales, temporal = self._features(first, last, event.movedim(2, 0))
        return Trace(scales, spatial, temporal, self._head(spatial, temporal[2].spikes.flatten(2)))

    def published_pieces(self) -> list[Piece]:
        """Convolutions are numbered as the release numbers them, by branch and feature."""
        found = layer("conv0", "backbones.ends") + layer("conv1_cat", "backbones.mix")
        found += layer("conv2_f2", "backbones.second") + layer("conv3_f2", "backbones.third")
        for number in range(3):
            mlp, ours = f"mlp_f{number + 1}", f"backbones.weights.{number}"
            found += layer(f"conv1_f{number + 2}", f"backbones.scales.{number}")
            found += layer(f"{mlp}.1", f"{ours}.squeeze") + layer(f"{mlp}.4", f"{ours}.excite")
            kinds = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
            found += [Piece(f"{mlp}.2.{kind}", f"{ours}.norm.{kind}") for kind in kinds]
        return found + layer("fc1", "hidden") + layer("fc2", "classifier", by_emotion=True)

    def _features(
        self, first: Tensor, last: Tensor, events: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, tuple[Neurons, Neurons, Neurons]]:
        """Spikes (B, N) and (B, T, N), scales (B, 3), temporal neurons, from (B, 3, S, S) twice and (T, B, 3, S, S)."""
        current, scales = self.backbones.frames(first, last)  # (B, N), (B, 3)
        temporal = self.backbones.events(events, scales)
        spikes = temporal[2].spikes.flatten(2).transpose(0, 1)  # (B, T, N)
        return fire(current), spikes, scales, temporal

    def _head(self, spatial: Tensor, temporal: Tensor) -> tuple[Neurons, Neurons]:
        """The neurons of both layers, from spikes (B, N) and (T, B, N), whose sum at each step is 0, 1 or 2."""
        hidden = integrate_and_fire(self.hidden(spatial + temporal))  # (T, B, 256)
        return hidden, integrate_and_fire(self.classifier(hidden.spikes))  # (T, B, c)


def _coloured(frame: Tensor, event: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Grey (B, 2, S, S) and (B, T, S, S) -> first and last frame (B, 3, S, S) and events (T, B, 3, S, S)."""
    batch, steps = event.shape[:2]
    events = three_channels(event.transpose(0, 1).flatten(0, 1))  # (TB, 3, S, S)
    return three_channels(frame[:, 0]), three_channels(frame[:, 1]), events.reshape(steps, batch, *events.shape[1:])


def _weighted(maps: list[Tensor], weights: Tensor) -> Tensor:
    """Three maps (B, 64, H, W), each times its weight of (B, 3), as one (B, 192, H, W)."""
    return torch.cat([scaled * weights[:, i, None, None, None] for i, scaled in enumerate(maps)], dim=1)


def _neurons(currents: Tensor, steps: int) -> Neurons:
    """The neurons that receive these maps (TB, C, H, W), step by step."""
    return integrate_and_fire(currents.reshape(steps, -1, *currents.shape[1:]))


def _copied(convolution: nn.Module, x: Tensor) -> Tensor:
    """A convolution by a copy of its weights, without its bias."""
    assert isinstance(convolution, nn.Conv2d)
    return conv2d(x, convolution.weight, None, convolution.stride, convolution.padding)
