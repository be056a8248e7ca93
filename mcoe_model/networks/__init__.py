"""The networks: `build` makes one by its preset's name."""

from mcoe_model.networks.hce_moe import Routing
from mcoe_model.networks.mcoe import McoeConfig, MCOENet
from mcoe_model.networks.presets import PRESETS, build

__all__ = ["PRESETS", "MCOENet", "McoeConfig", "Routing", "build"]
