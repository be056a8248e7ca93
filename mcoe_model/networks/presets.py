"""The models of the product by name, and how one is made.

``mcoe`` is exactly as published: 154,855,467 parameters, of which 11,549,825 cannot act (`MCOENet.dead`).

``mcoe-edge``, for a wearable, deviates from the publication in these: one backbone for each modality in place of one
for each picture; 256 features in place of the 1000 ImageNet logits, hence 128 tokens in place of 500; pictures of 90
pixels; inputs of the experts 256 wide, and hidden layers of 128 (router and convolution) and 256 (deep) in place of 512
and 4096; no tensors that cannot act.

``mcoe-tiny``, for simulations and tests, trains from scratch. It deviates as ``mcoe-edge`` does, and further: backbones
a quarter as wide with one block in each stage, 128 features (64 tokens), pictures of 64 pixels, experts and router 64
wide, two blocks in place of five in a deep expert, dropout 0.1 in place of 0.5.

``mcoe-edge-group`` and ``mcoe-tiny-group`` have group normalisation in their backbones, and are otherwise the same.

``seen`` is SEEN as published in its best setting, E4_S3: four event pictures, three left out between two of them.
``seen-eN-sM`` is any other setting, with the same parameters: N event pictures, M left out between two.

``cmfnet`` is the published network but for its first layers' and last layer's sizes: 2,832,155 parameters.
"""

from __future__ import annotations

import dataclasses
import re

import torch

from mcoe_model.errors import SettingsError
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.networks.cmfnet import CmfnetConfig
from mcoe_model.networks.mcoe import McoeConfig
from mcoe_model.networks.network import ModelConfig, Network
from mcoe_model.networks.seen import SeenConfig
from mcoe_model.streams import stream_seed

MCOE_PRESETS: dict[str, McoeConfig] = {
    "mcoe": McoeConfig("mcoe"),
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
        # Short, since a base that has learned all that its few people show leaves nothing for others to add.
        training=FineTuneSettings(20, 16, 2e-3, 1e-2, schedule="cosine", batch_norm="running", augment=True),
    ),
}

#: The ending of a preset's name that has group normalisation in place of batch normalisation.
GROUP_ENDING = "-group"
GROUP_PRESETS: dict[str, McoeConfig] = {
    name + GROUP_ENDING: dataclasses.replace(MCOE_PRESETS[name], preset=name + GROUP_ENDING, norm="group")
    for name in ("mcoe-edge", "mcoe-tiny")
}

#: The name of a setting of SEEN: how many event pictures, and how many are left out between two of them. One spelling
#: each, since a name is also whose features and updates fit together.
_SEEN_SETTING = re.compile("seen-e([1-9][0-9]?)-s(0|[1-9][0-9]?)")
#: The most that a name can ask for: a window is held in memory, a model's name comes with a file that others may have
#: made, and SEE's longest clip has 131 pictures.
MOST_STEPS, MOST_SKIPPED = 64, 32
SEEN_FORM = f"seen-eN-sM (N event pictures, 1 to {MOST_STEPS}, and M left out between two, 0 to {MOST_SKIPPED})"


def _seen_setting(name: str) -> SeenConfig | None:
    """The setting of SEEN that a name of the form ``seen-eN-sM`` stands for; None for any other name."""
    found = _SEEN_SETTING.fullmatch(str(name))  # in a damaged card it may be no text
    if found is None:
        return None
    steps, skip = int(found[1]), int(found[2])
    if (steps, skip) == (SeenConfig.steps, SeenConfig.skip):
        return None  # its name is seen
    return SeenConfig(name, steps=steps, skip=skip) if steps <= MOST_STEPS and skip <= MOST_SKIPPED else None


#: SEEN's published settings; `find_config` knows every other one too.
SEEN_PRESETS: dict[str, SeenConfig] = {
    "seen": SeenConfig("seen"),
    "seen-e4-s1": SeenConfig("seen-e4-s1", steps=4, skip=1),
    "seen-e4-s0": SeenConfig("seen-e4-s0", steps=4, skip=0),
    "seen-e7-s1": SeenConfig("seen-e7-s1", steps=7, skip=1),
    "seen-e7-s0": SeenConfig("seen-e7-s0", steps=7, skip=0),
    "seen-e13-s0": SeenConfig("seen-e13-s0", steps=13, skip=0),
}

#: Every model that the commands know by a name of its own.
PRESETS: dict[str, ModelConfig] = {**MCOE_PRESETS, **GROUP_PRESETS, **SEEN_PRESETS, "cmfnet": CmfnetConfig("cmfnet")}


def add_preset(name: str, config: ModelConfig) -> None:
    """Let this process make another model: simulations have models of their own, a wearable has none."""
    PRESETS[name] = config


def find_config(preset: str) -> ModelConfig | None:
    """What a model's name stands for; None when it is nobody's."""
    return PRESETS[preset] if preset in PRESETS else _seen_setting(preset)


def config_of(preset: str) -> ModelConfig:
    """What a model's name stands for. Raises SettingsError for an unknown one."""
    config = find_config(preset)
    if config is None:
        raise SettingsError([f"no preset {preset!r} (known: {', '.join(PRESETS)}; {SEEN_FORM})"])
    return config


def build(preset: str, *, seed: int | None = None, size: int = 0) -> Network:
    """A fresh model in training mode. Equal seeds give equal weights; None draws from PyTorch's own generator.

    ``size`` is the side of its pictures [pixels]; 0: the model's own.

    Raises SettingsError for an unknown preset.
    """
    config = config_of(preset)
    if size:
        config = dataclasses.replace(config, input_size=size)  # type: ignore[type-var]  # a dataclass, as it says
    if seed is None:
        return config.make()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed("networks", preset, seed))
        return config.make()
