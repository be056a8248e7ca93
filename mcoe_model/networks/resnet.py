"""ResNet of basic blocks (ResNet-18 by default), with configurable width, depth and number of outputs.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, https://arxiv.org/abs/1512.03385 (table 1).
State-dict names and initialisation equal torchvision's ``resnet18``, so that its ImageNet weights load by name. Differs
from it in three sizes one may choose (the width of the first stage, the blocks of each stage, the outputs of ``fc``)
and in its memory format: pictures and convolution weights are channels-last, which is up to twice as fast on a CPU.

Group normalisation can stand in place of batch normalisation, under the same names: Wu & He, "Group Normalization",
ECCV 2018, https://arxiv.org/abs/1803.08494 (equations 1 to 3 and 7). It keeps no statistics, and a picture's features
do not depend on its batch. Differs from theirs: 8 channels in a group, whatever the width, where they mostly have 32
groups; a first stage of 16 channels has no 32.

Letters: N pictures, H and W height and width [pixels], c channels of a stage, F outputs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from mcoe_model.errors import ModelInvalid
from mcoe_model.networks.weights_file import read_state_dict

log = logging.getLogger(__name__)

Norm = Literal["batch", "group"]
#: Channels that group normalisation takes together.
GROUP = 8


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the first convolution and the shortcut take the stride."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm = "batch") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = _normalisation(norm, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = _normalisation(norm, outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, _normalisation(norm, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)  # (N, c, H', W')
        y = torch.relu_(self.bn1(self.conv1(x)))  # (N, c, H', W')
        y = self.bn2(self.conv2(y))  # (N, c, H', W')
        return torch.relu_(y + shortcut)  # (N, c, H', W')


class ResNet(nn.Module):
    """Pictures (N, 3, H, W) -> features (N, outputs): the values of ``fc``, without activation.

    ``width`` is the number of channels of the first stage (64 in ResNet-18), doubled by each of the next three;
    ``blocks`` counts the basic blocks of the four stages. With ``norm`` group, ``width`` is a multiple of GROUP.
    """

    def __init__(
        self,
        outputs: int,
        *,
        width: int = 64,
        blocks: tuple[int, int, int, int] = (2, 2, 2, 2),
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = _normalisation(norm, width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(width, width, blocks[0], 1, norm)
        self.layer2 = _stage(width, 2 * width, blocks[1], 2, norm)
        self.layer3 = _stage(2 * width, 4 * width, blocks[2], 2, norm)
        self.layer4 = _stage(4 * width, 8 * width, blocks[3], 2, norm)
        self.fc = nn.Linear(8 * width, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, F)."""
        pictures = pictures.contiguous(memory_format=torch.channels_last)  # (N, 3, H, W)
        x = torch.relu_(self.bn1(self.conv1(pictures)))  # (N, c, H/2, W/2)
        x = self.maxpool(x)  # (N, c, H/4, W/4)
        x = self.layer2(self.layer1(x))  # (N, 2c, H/8, W/8)
        x = self.layer4(self.layer3(x))  # (N, 8c, H/32, W/32)
        features: Tensor = self.fc(x.mean((2, 3)))  # (N, F)
        return features


def _stage(inputs: int, outputs: int, blocks: int, stride: int, norm: Norm) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride, norm)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1, norm) for _ in range(blocks - 1)))


def _normalisation(norm: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(channels // GROUP, channels)


def load_imagenet(backbones: Iterable[ResNet], path: Path, *, quiet: bool = False) -> tuple[str, ...]:
    """Copy ImageNet weights with torchvision's names from a ``.safetensors`` or ``.pth`` file into every backbone.

    A classifier ``fc`` of another size keeps its values: it is what a preset replaces. The names so kept are returned
    and logged once, unless ``quiet``, for whoever loads again what was said before. Raises DataMissing when there is no
    such file, ModelInvalid when the file is damaged or any other tensor is missing, unknown or of another shape (all
    are listed).
    """
    weights = read_state_dict(path)
    kept: set[str] = set()
    faults: set[str] = set()
    for backbone in backbones:
        # The batch counters are in newer files only, and nothing reads them.
        own = {name: tensor for name, tensor in backbone.state_dict().items() if not name.endswith("batches_tracked")}
        unknown = {name for name in weights if name not in own and not name.endswith("batches_tracked")}
        unfit = {name for name, tensor in own.items() if name not in weights or weights[name].shape != tensor.shape}
        kept |= {name for name in unfit if name.startswith("fc.")}
        faults |= unknown | {name for name in unfit if not name.startswith("fc.")}
        with torch.no_grad():
            for name in own.keys() - unfit:
                own[name].copy_(weights[name])
    if faults:
        raise ModelInvalid(
            f"{path} does not fit this ResNet: {len(faults)} tensors are missing, unknown or of another shape "
            f"({', '.join(sorted(faults))}); give the weights of torchvision's resnet18"
        )
    if kept and not quiet:
        log.warning("%s: no fitting weights for %s; they keep their initial values", path, ", ".join(sorted(kept)))
    return tuple(sorted(kept))
