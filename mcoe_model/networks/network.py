"""What every model of the product is to the training loop, the evaluation and the clients; and what it says of itself.

A model is a subclass of `Network`, and its config says the rest: a preset's name, what it sees of a clip, how it is
trained from scratch. Naming the config in `presets.PRESETS` is all that makes a model one of the product's.

By its name a tensor belongs to a part: ``backbones.`` is what ``--train head`` freezes, all else is the head,
``moe.experts.<e>.`` in it one expert's, ``dead.`` read by nothing (`mcoe_model.update`).

Letters: B batch, S side of a picture [pixels], E experts (0 for a model without any), k chosen ones, c classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from mcoe_model.data.sampling import Sampling
from mcoe_model.errors import ModelInvalid
from mcoe_model.learning.settings import Recipe
from mcoe_model.networks.hce_moe import Routing
from mcoe_model.networks.pieces import Piece

#: What a model's backbones make of windows, batch first: the inputs of its head.
Features = tuple[Tensor, ...]


class ModelConfig(Protocol):
    """What a model says of itself, before it is made; a frozen dataclass that checks its sizes when made."""

    @property
    def preset(self) -> str:
        """Its name, which model files carry."""
        ...

    @property
    def input_size(self) -> int:
        """Side of the square pictures it was made for [pixels]."""
        ...

    @property
    def fixed_size(self) -> bool:
        """Whether it takes no other size."""
        ...

    @property
    def experts(self) -> int:
        """E."""
        ...

    @property
    def top_k(self) -> int:
        """k: how many experts every window is routed to."""
        ...

    @property
    def sampling(self) -> Sampling:
        """Which pictures of a clip it sees."""
        ...

    @property
    def published_recipe(self) -> Recipe:
        """How its authors trained it: what ``--protocol published`` does."""
        ...

    @property
    def recipe(self) -> Recipe:
        """How it is trained from scratch under the project's own protocol."""
        ...

    def make(self) -> Network:
        """A fresh model, its weights drawn from PyTorch's generator."""
        ...


class Network(nn.Module, ABC):
    """Recognises the emotion in a window of pictures: backbones make features of it, and the head logits of those."""

    config: ModelConfig
    #: In which roles it encodes pictures one by one; empty for a model whose features are of whole windows.
    roles: tuple[str, ...] = ()

    @abstractmethod
    def features(self, frame: Tensor, event: Tensor) -> Features:
        """What the head takes, from normalised grey pictures (B, frames, S, S) and (B, events, S, S).

        They are those of `ModelConfig.sampling`, in its order. Event pictures of a representation with C > 1 channels
        are (B, events, C, S, S); `three_channels` takes either.
        """

    @abstractmethod
    def classify(self, features: Features) -> tuple[Tensor, Routing]:
        """Logits (B, c) and the routing, (B, E) and (B, k)."""

    def published_pieces(self) -> list[Piece]:
        """Every tensor of a checkpoint of its authors' and where it goes, for `from_published`.

        Raises ModelInvalid where this is not the structure that was published.
        """
        raise ModelInvalid(f"there are no published checkpoints of {self.config.preset}")

    def loss(self, logits: Tensor, labels: Tensor, learned: Tensor) -> Tensor:
        """What training lowers (), of logits (B, c) and labels (B,): cross-entropy, where a model says nothing else.

        ``learned`` (c,) is how many clips of each class the whole training has.
        """
        return cross_entropy(logits, labels)

    def expert_parameters(self) -> list[list[nn.Parameter]]:
        """The parameters of every expert."""
        return []


def three_channels(pictures: Tensor) -> Tensor:
    """(N, S, S) or (N, C, S, S) -> (N, 3, S, S), what the backbones take.

    SEE's pictures are grey, so that the three are equal; a channel that is lacking is zero, the mean of all pictures.
    """
    if pictures.dim() == 3:
        return pictures[:, None].expand(-1, 3, -1, -1)
    lacking = 3 - pictures.shape[1]
    return pad(pictures, (0, 0, 0, 0, 0, lacking)) if lacking else pictures


def not_routed(batch: int) -> Routing:
    """The routing of a model without experts: (B, 0) twice."""
    return Routing(torch.zeros(batch, 0), torch.zeros(batch, 0, dtype=torch.int64))
