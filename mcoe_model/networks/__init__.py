"""The networks: `build` makes one by its preset's name, `from_published` loads the authors' weights into it."""

from mcoe_model.networks.hce_moe import Routing
from mcoe_model.networks.mcoe import McoeConfig, MCOENet, picture_encoder
from mcoe_model.networks.network import Features, ModelConfig, Network
from mcoe_model.networks.presets import PRESETS, build, config_of, find_config
from mcoe_model.networks.published import from_published
from mcoe_model.networks.weights_file import read_state_dict

__all__ = [
    "PRESETS",
    "Features",
    "MCOENet",
    "McoeConfig",
    "ModelConfig",
    "Network",
    "Routing",
    "build",
    "config_of",
    "find_config",
    "from_published",
    "picture_encoder",
    "read_state_dict",
]
