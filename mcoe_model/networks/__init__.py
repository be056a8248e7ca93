"""The networks: `build` makes one by its preset's name, `from_published` loads the authors' weights into it."""

from mcoe_model.networks.hce_moe import Routing
from mcoe_model.networks.mcoe import McoeConfig, MCOENet
from mcoe_model.networks.presets import PRESETS, build
from mcoe_model.networks.published import from_published
from mcoe_model.networks.weights_file import read_state_dict

__all__ = ["PRESETS", "MCOENet", "McoeConfig", "Routing", "build", "from_published", "read_state_dict"]
