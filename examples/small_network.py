"""A model of one's own: a few convolutions on the first and last picture of each modality, without experts.

    python simulations/conformance.py model examples/small_network.py:SmallConfig
    python simulations/see_by_subject.py --model examples/small_network.py:SmallConfig
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mcoe_model.data.sampling import RandomWindow, Sampling
from mcoe_model.learning.settings import FineTuneSettings, Recipe
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import Routing
from mcoe_model.networks.network import Features, Network, not_routed, three_channels

RECIPE = Recipe(FineTuneSettings(20, 16, 2e-3, 1e-2, schedule="cosine", batch_norm="running", augment=True))


@dataclass(frozen=True)
class SmallConfig:
    """What the model says of itself (`mcoe_model.networks.network.ModelConfig`)."""

    preset: str = "small"
    input_size: int = 32
    fixed_size: bool = False
    experts: int = 0
    top_k: int = 0
    sampling: Sampling = field(default_factory=RandomWindow)
    recipe: Recipe = RECIPE
    published_recipe: Recipe = RECIPE

    def make(self) -> Network:
        return SmallNetwork(self)


class SmallNetwork(Network):
    """What is under ``backbones`` is frozen by ``--train head``; all else is the head."""

    def __init__(self, config: SmallConfig) -> None:
        super().__init__()
        self.config = config
        self.backbones = nn.ModuleDict({name: backbone() for name in ("frame", "event")})
        self.classifier = nn.Linear(4 * 32, len(EMOTIONS))

    def features(self, frame: Tensor, event: Tensor) -> Features:
        seen = (("frame", frame[:, 0]), ("frame", frame[:, 1]), ("event", event[:, 0]), ("event", event[:, 1]))
        return tuple(self.backbones[name](three_channels(pictures)) for name, pictures in seen)  # (B, 32) each

    def classify(self, features: Features) -> tuple[Tensor, Routing]:
        return self.classifier(torch.cat(features, dim=1)), not_routed(len(features[0]))  # (B, c)


def backbone() -> nn.Sequential:
    """(N, 3, S, S) -> (N, 32)."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 8), (8, 16), (16, 32)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
