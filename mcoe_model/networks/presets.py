"""The three sizes of MCO-E Net, and how one is made."""

from __future__ import annotations

import torch

from mcoe_model.errors import SettingsError
from mcoe_model.networks.mcoe import McoeConfig, MCOENet
from mcoe_model.streams import stream_seed

PRESETS: dict[str, McoeConfig] = {
    # Exactly as published: 154,855,467 parameters.
    "mcoe": McoeConfig("mcoe"),
    # For a wearable. Deviates from the publication: one backbone for each modality, 256 features in place of the 1000
    # ImageNet logits (128 tokens in place of 500), inputs and hidden layers of the experts narrower, pictures of 90
    # pixels, and none of the tensors that cannot act.
    "mcoe-edge": McoeConfig(
        "mcoe-edge",
        input_size=90,
        backbones="two",
        features=256,
        hidden=256,
        router_hidden=128,
        convolution_hidden=128,
        deep_hidden=256,
        dead=False,
    ),
    # For simulations and tests, trained from scratch. Deviates as mcoe-edge does, and further: slim backbones with one
    # block in each stage, 128 features (64 tokens), pictures of 64 pixels, little dropout.
    "mcoe-tiny": McoeConfig(
        "mcoe-tiny",
        input_size=64,
        backbones="two",
        width=16,
        blocks=(1, 1, 1, 1),
        features=128,
        hidden=64,
        projection_dropout=0.1,
        router_hidden=64,
        convolution_hidden=64,
        deep_hidden=64,
        deep_blocks=2,
        deep_dropout=0.1,
        dead=False,
    ),
}


def build(preset: str, *, seed: int | None = None) -> MCOENet:
    """A fresh model in training mode. Equal seeds give equal weights; None draws from PyTorch's own generator.

    Raises SettingsError for an unknown preset.
    """
    if preset not in PRESETS:
        raise SettingsError([f"no preset {preset!r} (known: {', '.join(PRESETS)})"])
    if seed is None:
        return MCOENet(PRESETS[preset])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed("networks", preset, seed))
        return MCOENet(PRESETS[preset])
