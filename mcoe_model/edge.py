"""Recognition on a wearable: the model folded for inference, and windows of a stream without encoding a picture twice.

Folding changes no output beyond rounding: batch normalisation goes into the convolutions before it (group normalisation
cannot: its statistics are each picture's own), attention over a sequence of length one is one linear map, and so is a
deep expert, whose blocks have no nonlinearity between them.

Letters: B batch, S side of a picture [pixels], F features of a picture, X inputs of the experts, E experts, c classes.
"""

from __future__ import annotations

from concurrent.futures import Executor
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mcoe_model.data.sampling import SAMPLES, STRIDE
from mcoe_model.learning.samples import normalise
from mcoe_model.model_file import Normalisation
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import MCOENet
from mcoe_model.networks.hce_moe import AttentionExpert, DeepExpert, LengthOneAttention
from mcoe_model.networks.resnet import BasicBlock, ResNet

#: Pictures from a window's first to its last.
SPAN = STRIDE * (SAMPLES - 1)


def fold(model: MCOENet) -> MCOENet:
    """A copy for inference alone, in evaluation mode: the same logits and routing, from far fewer operations."""
    folded = deepcopy(model).eval().requires_grad_(False)
    for module in folded.modules():
        if isinstance(module, ResNet | BasicBlock) and isinstance(module.bn1, nn.BatchNorm2d):
            _fold_normalisation(module)
    folded.moe.router.attention = _one_map(folded.moe.router.attention)  # type: ignore[assignment]
    for number, expert in enumerate(folded.moe.experts):
        if isinstance(expert, AttentionExpert):
            expert.attention = _one_map(expert.attention)  # type: ignore[assignment]
        elif isinstance(expert, DeepExpert):
            folded.moe.experts[number] = _one_classifier(expert)
    folded.dead = nn.ParameterDict()
    return folded


def _fold_normalisation(module: ResNet | BasicBlock) -> None:
    """Each batch normalisation into the convolution before it."""
    module.conv1, module.bn1 = _fused(module.conv1, module.bn1), nn.Identity()
    if isinstance(module, BasicBlock):
        module.conv2, module.bn2 = _fused(module.conv2, module.bn2), nn.Identity()
        if isinstance(module.downsample, nn.Sequential):
            module.downsample = _fused(*module.downsample)


def _fused(convolution: nn.Module, normalisation: nn.Module) -> nn.Conv2d:
    assert isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d)
    return fuse_conv_bn_eval(convolution, normalisation)


def _one_map(attention: LengthOneAttention) -> nn.Linear:
    """The value and the output map as one: x -> Wo (Wv x + bv) + bo."""
    out, value = attention.out, attention.value
    return _linear(out.weight.double() @ value.weight.double(), out(value.bias))


def _one_classifier(expert: DeepExpert) -> nn.Linear:
    """A deep expert as one map to the logits (c, X), multiplied out from the logits down."""
    weight, bias = expert.classifier.weight.double(), expert.classifier.bias.double()  # (c, X), (c,)
    for block in reversed(list(expert.blocks)):
        up, down = block.up, block.down
        assert isinstance(up, nn.Linear) and isinstance(down, nn.Linear)
        detour = weight @ down.weight.double()  # (c, hidden)
        bias = bias + detour @ up.bias.double() + weight @ down.bias.double()  # (c,)
        weight = detour @ up.weight.double() + expert.shortcut.double() * weight  # (c, X)
    return _linear(weight, bias)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer.requires_grad_(False)


@dataclass(frozen=True)
class Recognition:
    """What a window shows: ``number`` is that of its last picture."""

    number: int
    probabilities: NDArray[np.float32]  # (c,) in the order of EMOTIONS
    gate: NDArray[np.float32]  # (E,) the router's softmax

    @property
    def emotion(self) -> str:
        """The most probable one."""
        return EMOTIONS[int(self.probabilities.argmax())]

    @property
    def confidence(self) -> float:
        """Its probability."""
        return float(self.probabilities.max())


class StreamingRecogniser:
    """Recognises the newest window of a stream of picture pairs, and encodes no picture twice for the same role.

    Its probabilities are those of the model given each window alone, up to rounding (1e-5 of each, relative): a picture
    is encoded by itself here and among those of its window there, and a batch of another size sums in another order.

    Pairs are numbered as the camera took them; one that was skipped costs the windows that begin or end with it. The
    model is in evaluation mode, best from `fold`. With ``beside``, a thread of its own, event pictures are encoded
    there while frames are encoded here, each with one of torch's threads; that changes no bit.
    """

    def __init__(self, model: MCOENet, normalisation: Normalisation, beside: Executor | None = None) -> None:
        self._model = model
        self._normalisation = normalisation
        self._beside = beside
        self._pairs: dict[int, tuple[Tensor, Tensor]] = {}
        self._features: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}

    def add(self, number: int, frame: NDArray[np.uint8], event: NDArray[np.uint8]) -> None:
        """Keep a pair of pictures (S, S), grey values; those that no later window needs are let go of."""
        frame_mean, frame_sd = self._normalisation.frame_mean, self._normalisation.frame_sd
        event_mean, event_sd = self._normalisation.event_mean, self._normalisation.event_sd
        self._pairs[number] = (normalise(frame, frame_mean, frame_sd), normalise(event, event_mean, event_sd))
        self._pairs = {kept: pair for kept, pair in self._pairs.items() if number - SPAN <= kept <= number}
        self._features = {key: value for key, value in self._features.items() if key[0] in self._pairs}

    def recognise(self) -> Recognition | None:
        """What the window shows that ends with the newest pair; None while there is none that began with it."""
        last = max(self._pairs, default=0)
        if last - SPAN not in self._pairs:
            return None
        with torch.inference_mode():
            frame_first, event_first = self._encoded(last - SPAN, self._model.roles[0])  # (1, F) twice
            frame_last, event_last = self._encoded(last, self._model.roles[-1])  # (1, F) twice
            logits, routing = self._model.head(frame_first, frame_last, event_first, event_last, routing=True)
            return Recognition(last, logits.softmax(1)[0].numpy(), routing.gate[0].numpy())

    def prepare(self) -> None:
        """Encode the newest pair as the first of a window to come: work that need not wait until that window ends."""
        if self._pairs:
            with torch.inference_mode():
                self._encoded(max(self._pairs), self._model.roles[0])

    def _encoded(self, number: int, role: str) -> tuple[Tensor, Tensor]:
        """Features of a kept pair's frame and event picture in a role, (1, F) each."""
        if (number, role) not in self._features:
            frame, event = self._pairs[number]  # (S, S) twice
            if self._beside is None:
                self._features[number, role] = self._encode(frame, "frame", role), self._encode(event, "event", role)
            else:
                waited_for = self._beside.submit(self._encode, event, "event", role)
                self._features[number, role] = self._encode(frame, "frame", role), waited_for.result()
        return self._features[number, role]

    def _encode(self, picture: Tensor, modality: str, role: str) -> Tensor:
        """Features (1, F) of a picture (S, S)."""
        with torch.inference_mode():  # every thread has a mode of its own
            return self._model.encode(picture.expand(1, 3, -1, -1), modality, role)
