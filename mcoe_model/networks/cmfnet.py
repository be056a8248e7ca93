"""CMFNet: a clip -> two branches of 3D convolutions -> channel attention -> GRU -> attention heads -> emotion.

"CMFNet" for micro-expressions, IEEE MLSP 2024, as in the authors' released code, https://github.com/dannyFan-0201/MLSP_2024
(Keras). The code differs from the paper's figure: both attention maps are computed from the same features and
multiplied at once, not one after the other, and there is no dropout before the last layers. What differs here: the
input's channels, its side and the classes can be chosen; logits come out in place of their softmax; maxima are taken
before the leaky ReLU, which being monotonic gives the same values for a 27th of the work. On clips of both modalities
the input has two channels, the intensity picture and the event picture of the same time, in place of RGB, and seven
classes, weighted by how many clips of each there are to learn.

Everything up to the channel attention is under ``backbones``; all else is the head.

Letters: B batch, T pictures of a clip, c channels of a picture, H and W its sides [pixels]; after the convolutions
f channels, t steps, h and w sides; U units of the GRU, R pooled queries, v width of a head, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, leaky_relu, max_pool1d, max_pool3d, pad

from mcoe_model.data.sampling import EvenlySpaced
from mcoe_model.errors import ModelInvalid, SettingsError
from mcoe_model.learning.settings import Decay, FineTuneSettings, Recipe
from mcoe_model.names import EMOTIONS
from mcoe_model.networks.hce_moe import Routing
from mcoe_model.networks.network import Features, Network, not_routed
from mcoe_model.networks.pieces import Piece

SLOPE = 0.2  # of every leaky ReLU
QUERIES = 10  # neighbouring queries of which an attention head takes the largest scores
TOGETHER = 8  # clips whose first maps, 21 MB each at the published size, are held in memory together
PENALTY = 0.01  # weight of the squared kernels in the loss


@dataclass(frozen=True)
class CmfnetConfig:
    """The sizes of one CMFNet; the defaults are the publication's, but for the channels and the classes.

    The published network has 3 ``channels`` (RGB) and 3 ``classes``: 2,836,759 parameters. ``class_weights`` of the
    loss are, when none are given, inverse to the number of clips of each class that are learned.
    """

    preset: str
    input_size: int = 128  # H = W, which the size of the head follows from
    fixed_size: bool = False
    channels: int = 2  # c: the intensity picture and the event picture of the same time
    frames: int = 10  # T
    classes: tuple[str, ...] = EMOTIONS
    filters: int = 32  # f
    squeezed: int = 4  # width of the channel attention's hidden layer
    dense: tuple[int, int] = (128, 64)  # the two layers before the GRU, and the two after the attention
    units: int = 512  # U
    dropout: float = 0.3
    class_weights: tuple[float, ...] = ()
    experts: int = 0
    top_k: int = 0

    @property
    def sampling(self) -> EvenlySpaced:
        """The whole clip; the released code takes the first pictures, however long it is."""
        return EvenlySpaced(self.frames)

    @property
    def published_recipe(self) -> Recipe:
        """As the released code trains."""
        return Recipe(FineTuneSettings(200, 8, 1e-3, 0.0, schedule="step", balance=0.0), decay=Decay(0.9, 40))

    @property
    def recipe(self) -> Recipe:
        """As published, but for a rate that learns in a fifth of the epochs; the squared kernels are in the loss."""
        return Recipe(FineTuneSettings(40, 8, 2e-3, 0.0, schedule="cosine", balance=0.0))

    def make(self) -> CMFNet:
        return CMFNet(self)

    def __post_init__(self) -> None:
        sizes = ["input_size", "channels", "frames", "filters", "squeezed", "units"]
        faults = [f"{name} is {getattr(self, name)}, must be at least 1" for name in sizes if getattr(self, name) < 1]
        if min(self.dense) < 1:
            faults.append(f"dense is {self.dense}, every layer needs at least one unit")
        if self.frames > 9 * QUERIES:
            faults.append(f"frames is {self.frames}, more than {9 * QUERIES} give several predictions for one clip")
        if self.units < 4 or self.units & self.units - 1:
            faults.append(f"units is {self.units}, must be a power of two and at least 4")
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            faults.append(f"classes are {self.classes}, must be at least two different ones")
        if self.class_weights and not (len(self.class_weights) == len(self.classes) and min(self.class_weights) > 0):
            faults.append(f"class_weights are {self.class_weights}, must be one above 0 for each class")
        if not 0 <= self.dropout < 1:
            faults.append(f"dropout is {self.dropout}, must be in [0, 1)")
        if faults:
            raise SettingsError([f"preset {self.preset!r}: {fault}" for fault in faults])

    @property
    def features(self) -> int:
        """f h w: what the convolutions make of one step."""
        return self.filters * _pooled(_pooled(self.input_size)) ** 2

    @property
    def widths(self) -> tuple[int, ...]:
        """v of every attention head: U / 2, U / 4, ... 2."""
        return tuple(self.units >> scale for scale in range(1, self.units.bit_length() - 1))


class Convolutions(nn.Module):
    """A clip (B, c, T, H, W) -> features (B, f, t, h, w)."""

    def __init__(self, channels: int, filters: int, squeezed: int) -> None:
        super().__init__()
        self.wide = _conv(channels, filters, 5, he=True)
        self.narrow = _conv(channels, filters, 3, he=True)
        self.joint = _conv(2 * filters, filters, 3)
        self.attention = ChannelAttention(filters, squeezed)

    def forward(self, clip: Tensor) -> Tensor:
        """(B, c, T, H, W) -> (B, f, t, h, w)."""
        weighted: Tensor = self.attention(self.stage(clip))  # (B, f, t, h, w)
        return weighted

    def stage(self, clip: Tensor) -> Tensor:
        """What the channel attention sees: (B, c, T, H, W) -> (B, f, t, h, w)."""
        clip = clip.contiguous(memory_format=torch.channels_last_3d)  # (B, c, T, H, W): much faster on a CPU
        parts = [
            torch.cat([_pool(self.wide(part)), _pool(self.narrow(part))], dim=1)  # (8, 2f, T/3, H/3, W/3)
            for part in torch.split(clip, TOGETHER)
        ]
        both = torch.cat(parts)  # (B, 2f, T/3, H/3, W/3)
        return leaky_relu(_pool(self.joint(leaky_relu(both, SLOPE))), SLOPE)  # (B, f, t, h, w)


class ChannelAttention(nn.Module):
    """Weights channels and places at once: (B, f, t, h, w) -> (B, f, t, h, w).

    The paper's new channel attention: the mean and the maximum of every channel go through layers of their own. The map
    of places has a value for each channel too.
    """

    def __init__(self, filters: int, squeezed: int) -> None:
        super().__init__()
        self.mean = _Squeeze(filters, squeezed)
        self.largest = _Squeeze(filters, squeezed)
        self.places = _conv(2, filters, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, f, t, h, w) -> (B, f, t, h, w)."""
        channels = torch.sigmoid(self.mean(x.mean((2, 3, 4))) + self.largest(x.amax((2, 3, 4))))  # (B, f)
        summary = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)  # (B, 2, t, h, w)
        places = torch.sigmoid(self.places(summary))  # (B, f, t, h, w)
        return x * channels[:, :, None, None, None] * places  # (B, f, t, h, w)


class _Squeeze(nn.Module):
    """(B, f) -> (B, f) through a narrow layer."""

    def __init__(self, filters: int, squeezed: int) -> None:
        super().__init__()
        self.down = _dense(filters, squeezed)
        self.up = _dense(squeezed, filters, he=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, f) -> (B, f)."""
        wide: Tensor = self.up(leaky_relu(self.down(x), SLOPE))  # (B, f)
        return wide


class PooledHead(nn.Module):
    """One attention head whose scores are the largest over neighbouring queries: (B, t, U) -> (B, R, v)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.query = _dense(inputs, width)
        self.key = _dense(inputs, width)
        self.value = _dense(inputs, width)
        self.out = _dense(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, t, U) -> (B, R, v), R = ceil(t / 10)."""
        width, steps = self.query.out_features, x.shape[1]
        scores = self.key(x) @ self.query(x).transpose(1, 2) / width**0.5  # (B, t keys, t queries)
        missing = -steps % QUERIES  # an uneven one more after the end, as Keras pads
        scores = pad(scores, (missing // 2, missing - missing // 2), value=-torch.inf)  # (B, t, 10 R)
        weights = torch.softmax(max_pool1d(scores, QUERIES), dim=1)  # (B, t, R)
        content: Tensor = self.out(weights.transpose(1, 2) @ self.value(x))  # (B, R, v)
        return content


class Trace(NamedTuple):
    """What the head computes on the way to its output."""

    dense: tuple[Tensor, Tensor]  # (B, t, n) before the GRU
    recurrent: Tensor  # (B, t, U)
    attended: Tensor  # (B, sum of v)
    last: tuple[Tensor, Tensor]  # (B, n) after the attention
    logits: Tensor  # (B, K)


class CMFNet(Network):
    """Recognises the expression in a clip. All parameters outside ``backbones`` are the head."""

    config: CmfnetConfig

    def __init__(self, config: CmfnetConfig) -> None:
        super().__init__()
        self.config = config
        self.backbones = Convolutions(config.channels, config.filters, config.squeezed)
        first, second = config.dense
        self.dropout = nn.Dropout(config.dropout)
        self.dense_1 = _dense(config.features, first, he=True)
        self.dense_2 = _dense(first, second, he=True)
        self.gru = nn.GRU(second, config.units, batch_first=True)
        self.heads = nn.ModuleList(PooledHead(config.units, width) for width in config.widths)
        self.dense_3 = _dense(sum(config.widths), first, he=True)
        self.dense_4 = _dense(first, second, he=True)
        self.classifier = _dense(second, len(config.classes))
        inputs, states, *biases = self.gru.parameters()
        nn.init.xavier_uniform_(inputs)
        nn.init.orthogonal_(states)
        for bias in biases:
            nn.init.zeros_(bias)

    def forward(self, clip: Tensor) -> Tensor:
        """Logits (B, K) of clips (B, c, T, H, W)."""
        return self.trace(self.backbones(clip)).logits  # (B, K)

    def features(self, frame: Tensor, event: Tensor) -> Features:
        """(B, T, H, W) twice -> (B, f, t, h, w): frames and events are the clip's channels."""
        return (self.backbones(torch.stack([frame, event], dim=1)),)

    def classify(self, features: Features) -> tuple[Tensor, Routing]:
        """Logits (B, K) from the convolutions' features; nothing is routed."""
        (maps,) = features  # (B, f, t, h, w)
        return self.trace(maps).logits, not_routed(len(maps))

    def loss(self, logits: Tensor, labels: Tensor, learned: Tensor) -> Tensor:
        """Cross-entropy weighted by class, its mean over the batch, and `penalty`.

        The published loss bounds a logarithm where a class has a probability below 1e-15; this one need not.
        """
        weights = torch.tensor(self.config.class_weights) if self.config.class_weights else _inverse(learned)  # (K,)
        each = cross_entropy(logits, labels, reduction="none")  # (B,)
        return (weights[labels] * each).mean() + self.penalty()

    def published_pieces(self) -> list[Piece]:
        raise ModelInvalid("CMFNet was published for Keras; its weights are loaded by cmfnet_weights.from_keras")

    def trace(self, features: Tensor) -> Trace:
        """Every layer of the head, from features (B, f, t, h, w)."""
        steps = features.transpose(1, 2).flatten(2)  # (B, t, f h w)
        dense_1 = leaky_relu(self.dense_1(self.dropout(steps)), SLOPE)  # (B, t, n)
        dense_2 = leaky_relu(self.dense_2(self.dropout(dense_1)), SLOPE)  # (B, t, n)
        recurrent, _ = self.gru(dense_2)  # (B, t, U)
        attended = torch.cat([head(recurrent) for head in self.heads], dim=2)[:, 0]  # (B, sum of v)
        dense_3 = leaky_relu(self.dense_3(attended), SLOPE)  # (B, n)
        dense_4 = leaky_relu(self.dense_4(dense_3), SLOPE)  # (B, n)
        return Trace((dense_1, dense_2), recurrent, attended, (dense_3, dense_4), self.classifier(dense_4))

    def penalty(self) -> Tensor:
        """What the published loss adds: 0.01 times the squared kernels of four of its dense layers."""
        attention = self.backbones.attention
        layers = (attention.mean.down, attention.largest.down, self.dense_1, self.dense_2)
        return PENALTY * torch.stack([layer.weight.square().sum() for layer in layers]).sum()


def _inverse(learned: Tensor) -> Tensor:
    """Weights (K,) inverse to the number of clips of each class, 1 on average over the clips."""
    present = learned > 0  # (K,)
    return torch.where(present, learned.sum() / (present.sum() * learned.clamp(min=1)), 0.0)  # (K,)


def _pooled(side: int) -> int:
    """How many windows of three cover a side."""
    return -(-side // 3)


def _pool(x: Tensor) -> Tensor:
    """Maxima over windows of three, the last of which may be partial: each side n -> ceil(n / 3), as Keras pads."""
    return max_pool3d(x, 3, padding=[int(side % 3 == 1) for side in x.shape[2:]], ceil_mode=True)


def _conv(inputs: int, outputs: int, taps: int, *, he: bool = False) -> nn.Conv3d:
    """A convolution that keeps its input's sides, drawn as Keras draws it."""
    layer = nn.Conv3d(inputs, outputs, taps, padding=taps // 2)
    _draw(layer, he)
    layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last_3d)
    return layer


def _dense(inputs: int, outputs: int, *, he: bool = False) -> nn.Linear:
    """A linear layer, drawn as Keras draws it."""
    layer = nn.Linear(inputs, outputs)
    _draw(layer, he)
    return layer


def _draw(layer: nn.Linear | nn.Conv3d, he: bool) -> None:
    """He's truncated normal distribution, or Glorot's uniform one; biases start at zero."""
    weight, bias = layer.parameters()
    nn.init.zeros_(bias)
    if not he:
        nn.init.xavier_uniform_(weight)
        return
    # Keras divides by the standard deviation of a normal distribution that is cut off at two of its own.
    spread = (2 / weight[0].numel()) ** 0.5 / 0.87962566103423978
    nn.init.trunc_normal_(weight, std=spread, a=-2 * spread, b=2 * spread)
