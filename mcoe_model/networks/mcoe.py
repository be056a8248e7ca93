"""MCO-E Net: two pictures of each modality -> features -> tokens -> MCO-Mamba -> MCIB -> mixture of experts -> emotion.

MCO-E Net, 2025, https://arxiv.org/abs/2505.12007, as in the authors' released code (which differs from the paper's
figure: a backbone for each of the four pictures, and the 1000 ImageNet logits as features). What differs from the
release: the gradient of MCO-Mamba is exact, and what cannot act on the output stands apart in ``dead``.

Letters: B batch, N pictures, T frames of a window, H and W height and width [pixels], F features of a picture,
L tokens, d channels of a token, X inputs of the experts, E experts, k chosen ones, c classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args, overload

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from mcoe_model.data.sampling import RandomWindow
from mcoe_model.errors import ModelInvalid, SettingsError
from mcoe_model.learning.settings import FineTuneSettings, Recipe
from mcoe_model.names import EMOTIONS
from mcoe_model.networks.hce_moe import AttentionExpert, ConvolutionExpert, HCEMoE, Routing
from mcoe_model.networks.mcib import MCIB
from mcoe_model.networks.mco_mamba import MCOMamba
from mcoe_model.networks.mcoe_pieces import pieces
from mcoe_model.networks.network import Features, Network, three_channels
from mcoe_model.networks.pieces import Piece
from mcoe_model.networks.resnet import GROUP, Norm, ResNet

#: As published but for batches of 8 in place of 64 and a cosine, for fewer clips than SEE has: from random weights it
#: takes some thousand steps to learn them, and batches of 64 make two in an epoch of a hundred clips.
FROM_SCRATCH = FineTuneSettings(120, 8, 3e-4, 1e-3, schedule="cosine", batch_norm="running")


@dataclass(frozen=True)
class McoeConfig:
    """The sizes of one MCO-E Net; the defaults are the publication's."""

    preset: str
    input_size: int = 100  # side of the square pictures it was made for [pixels]
    backbones: Literal["four", "two"] = "four"  # one for each picture, or one for each modality
    width: int = 64  # channels of the backbone's first stage
    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    norm: Norm = "batch"  # what normalises in the backbones
    features: int = 1000  # F, of each picture
    channels: int = 4  # d
    hidden: int = 1024  # X
    projection_dropout: float = 0.5
    experts: int = 8
    top_k: int = 2
    router_hidden: int = 512
    convolution_hidden: int = 512
    deep_hidden: int = 4096
    deep_blocks: int = 5
    deep_dropout: float = 0.5
    dead: bool = True  # carry the tensors that the publication has and never uses
    fixed_size: bool = False
    training: FineTuneSettings = FROM_SCRATCH  # under the project's own protocol

    @property
    def tokens(self) -> int:
        """L: the first half comes from the first picture, the second half from the last."""
        return 2 * self.features // self.channels

    @property
    def sampling(self) -> RandomWindow:
        """The published choice; of the four pictures the first and the last are used."""
        return RandomWindow(frames=(0, -1), events=(0, -1))

    @property
    def published_recipe(self) -> Recipe:
        """As the released code trains: unweighted cross-entropy, no balancing, no augmentation."""
        return Recipe(FineTuneSettings(100, 64, 3e-4, 1e-3, schedule="step", batch_norm="running", balance=0.0))

    @property
    def recipe(self) -> Recipe:
        return Recipe(self.training)

    def make(self) -> MCOENet:
        return MCOENet(self)

    def __post_init__(self) -> None:
        sizes = ["input_size", "width", "features", "hidden", "experts", "top_k"]
        sizes += ["router_hidden", "convolution_hidden", "deep_hidden", "deep_blocks"]
        faults = [f"{name} is {getattr(self, name)}, must be at least 1" for name in sizes if getattr(self, name) < 1]
        if self.backbones not in ("four", "two"):
            faults.append(f"backbones is {self.backbones!r}, must be 'four' or 'two'")
        if min(self.blocks) < 1:
            faults.append(f"blocks is {self.blocks}, every stage needs at least one")
        if self.norm not in get_args(Norm):
            faults.append(f"norm is {self.norm!r}, must be one of {', '.join(get_args(Norm))}")
        if self.norm == "group" and self.width % GROUP:
            faults.append(f"width is {self.width}, must be a multiple of {GROUP} for group normalisation")
        if self.channels < 1 or self.channels % 2 or self.features * 2 % self.channels:
            faults.append(f"channels is {self.channels}, must be even and divide 2 x features ({2 * self.features})")
        if self.top_k > self.experts:
            faults.append(f"top_k is {self.top_k}, there are only {self.experts} experts")
        for name in ("projection_dropout", "deep_dropout"):
            if not 0 <= getattr(self, name) < 1:
                faults.append(f"{name} is {getattr(self, name)}, must be in [0, 1)")
        if faults:
            raise SettingsError([f"preset {self.preset!r}: {fault}" for fault in faults])


class MCOENet(Network):
    """Recognises the emotion in a window of frames and event pictures; see `build` for the presets.

    All parameters outside ``backbones`` are the head. The tensors of expert e are ``moe.experts.<e>.``; those under
    ``dead`` are read by nothing and never get a gradient.
    """

    config: McoeConfig

    def __init__(self, config: McoeConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_size = config.features
        self.roles = ("first", "last") if config.backbones == "four" else ("any",)
        self.backbones = nn.ModuleDict(
            {
                self._backbone_name(modality, role): ResNet(
                    config.features, width=config.width, blocks=config.blocks, norm=config.norm
                )
                for modality in ("frame", "event")
                for role in self.roles
            }
        )
        self.mamba = MCOMamba(config.channels)
        self.fusion = MCIB(config.channels)
        self.projection = nn.Linear(2 * config.features, config.hidden)
        self.dropout = nn.Dropout(config.projection_dropout)
        self.moe = HCEMoE(
            config.hidden,
            classes=len(EMOTIONS),
            experts=config.experts,
            top_k=config.top_k,
            router_hidden=config.router_hidden,
            convolution_hidden=config.convolution_hidden,
            deep_hidden=config.deep_hidden,
            deep_blocks=config.deep_blocks,
            dropout=config.deep_dropout,
        )
        self.dead = _dead_parameters(self) if config.dead else nn.ParameterDict()

    def encode(self, pictures: Tensor, modality: str, role: str) -> Tensor:
        """Features (N, F) of normalised pictures (N, 3, H, W).

        ``modality`` is frame or event; ``role``, one of ``roles``, tells which picture of the window it is to be.
        """
        if modality not in ("frame", "event") or role not in self.roles:
            raise ValueError(f"no backbone for {modality!r}, {role!r} (modalities frame, event; roles {self.roles})")
        features: Tensor = self.backbones[self._backbone_name(modality, role)](pictures)  # (N, F)
        return features

    def features(self, frame: Tensor, event: Tensor) -> Features:
        """Features of the four pictures, each (B, F), from two pictures (B, 2, S, S) of each modality."""
        return (
            *self._ends(three_channels(frame[:, 0]), three_channels(frame[:, 1]), "frame"),
            *self._ends(three_channels(event[:, 0]), three_channels(event[:, 1]), "event"),
        )

    def classify(self, features: Features) -> tuple[Tensor, Routing]:
        return self.head(*features, routing=True)

    def published_pieces(self) -> list[Piece]:
        if self.config.backbones != "four" or self.config.norm != "batch" or not self.config.dead:
            raise ModelInvalid(f"a published checkpoint does not fit preset {self.config.preset!r}; use preset 'mcoe'")
        return pieces(self)

    def expert_parameters(self) -> list[list[nn.Parameter]]:
        return [list(expert.parameters()) for expert in self.moe.experts]

    @overload
    def head(
        self,
        frame_first: Tensor,
        frame_last: Tensor,
        event_first: Tensor,
        event_last: Tensor,
        *,
        routing: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def head(
        self,
        frame_first: Tensor,
        frame_last: Tensor,
        event_first: Tensor,
        event_last: Tensor,
        *,
        routing: Literal[True],
    ) -> tuple[Tensor, Routing]: ...

    def head(
        self,
        frame_first: Tensor,
        frame_last: Tensor,
        event_first: Tensor,
        event_last: Tensor,
        *,
        routing: bool = False,
    ) -> Tensor | tuple[Tensor, Routing]:
        """Logits (B, c) from the features of the four pictures, each (B, F); with ``routing`` also the routing."""
        frame = self._tokens(frame_first, frame_last)  # (B, L, d)
        event = self._tokens(event_first, event_last)  # (B, L, d)
        frame_seen, event_seen = self.mamba(frame, event)  # (B, L, d) twice
        fused = self.fusion(frame_seen + frame, event_seen + event)  # (B, L, d)
        x = self.dropout(gelu(self.projection(fused.flatten(1))))  # (B, X)
        logits, chosen = self.moe(x)  # (B, c)
        return (logits, chosen) if routing else logits

    def forward(self, frame: Tensor, event: Tensor) -> Tensor:
        """Logits (B, c) from two windows (B, 3, T, H, W), of which only the first and the last frame are used."""
        ends = [(window[:, :, 0], window[:, :, -1]) for window in (frame, event)]  # (B, 3, H, W) each
        return self.head(*self._ends(*ends[0], "frame"), *self._ends(*ends[1], "event"))  # (B, c)

    def _ends(self, first: Tensor, last: Tensor, modality: str) -> tuple[Tensor, Tensor]:
        """Features of a window's first and last picture: (B, 3, H, W) twice -> (B, F) twice."""
        if self.roles == ("any",):
            both = self.encode(torch.cat([first, last]), modality, "any")  # (2B, F)
            return both[: len(first)], both[len(first) :]
        return self.encode(first, modality, "first"), self.encode(last, modality, "last")

    def _tokens(self, first: Tensor, last: Tensor) -> Tensor:
        """(B, F) twice -> (B, L, d): d neighbouring features are a token."""
        return torch.cat([first, last], dim=1).reshape(len(first), -1, self.config.channels)  # (B, L, d)

    @staticmethod
    def _backbone_name(modality: str, role: str) -> str:
        return modality if role == "any" else f"{modality}_{role}"


def picture_encoder(model: Network) -> MCOENet:
    """The same model, known to encode pictures one by one, as live recognition and kept lessons need it.

    Raises ModelInvalid for one whose features are of whole windows.
    """
    if not isinstance(model, MCOENet):
        raise ModelInvalid(
            f"{model.config.preset} has no features of single pictures, which this needs; use a preset of MCO-E Net"
        )
    return model


def _dead_parameters(model: MCOENet) -> nn.ParameterDict:
    """The published tensors that nothing reads, or whose gradient is always zero. They start at zero, never trained."""
    inner = model.mamba.skip.shape[-1]
    channels, size = model.config.channels, model.config.hidden
    shapes: dict[str, tuple[int, ...]] = {
        "mamba_dt_bias_backward": (2, inner),
        "mamba_norm_weight": (2, inner),
        "mamba_norm_bias": (2, inner),
        "mamba_in_proj_extra": (2 * inner, channels),
        "mamba_gate_0_weight": (2 * inner, inner),
        "mamba_gate_0_bias": (2 * inner,),
        "mamba_gate_2_weight": (2, 2 * inner),
        "mamba_gate_2_bias": (2,),
        "output_weight": (len(EMOTIONS), model.config.features),
        "output_bias": (len(EMOTIONS),),
        "router_query_key_weight": (2 * size, size),
        "router_query_key_bias": (2 * size,),
    }
    for number, expert in enumerate(model.moe.experts):
        if isinstance(expert, ConvolutionExpert):
            shapes[f"expert_{number}_outer_taps"] = (model.config.convolution_hidden, size, 2)
        elif isinstance(expert, AttentionExpert):
            shapes[f"expert_{number}_query_key_weight"] = (2 * size, size)
            shapes[f"expert_{number}_query_key_bias"] = (2 * size,)
    return nn.ParameterDict(
        {name: nn.Parameter(torch.zeros(shape), requires_grad=False) for name, shape in shapes.items()}
    )
