"""The newest window of a stream of picture pairs, recognised with a model that can be exchanged at any time. No I/O but
reading a model file.

Pairs come from a ring (`client.ring`), as many at a time as have come: only the window that ends with the newest is
recognised, and the others that could have been are counted as skipped. A gap in the numbers ends all windows across it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from PIL import Image

from client.own_models import open_model
from mcoe_model.data.cache import resized
from mcoe_model.data.events import Pair
from mcoe_model.edge import SPAN, Recognition, StreamingRecogniser, fold
from mcoe_model.errors import ModelInvalid
from mcoe_model.learning.weights import can_build, model_of
from mcoe_model.model_file import Generation
from mcoe_model.networks import MCOENet, picture_encoder


@dataclass(frozen=True)
class LiveModel:
    """A model folded for recognition. ``name``: its file's, which for a model of a wearable is its SHA-256."""

    name: str
    network: MCOENet
    generation: Generation


def load_live_model(path: Path, key: bytes | None = None) -> LiveModel:
    """Read, check, fold and warm up a model; ``key`` opens one that was learned here (`client.own_models`).

    Raises DataMissing, DataInvalid, Locked, and ModelInvalid for a file that is damaged, not finite, or of a generation
    that this program does not know or whose pictures it does not make.
    """
    tensors, card = open_model(path, key)
    generation = card.generation
    constants = astuple(generation.normalisation)
    if not can_build(generation):
        found = f"{generation.preset!r}, pictures of version {generation.preprocessing_version}"
        raise ModelInvalid(f"{path.name} is of another generation ({found}); update this program or take another model")
    if not all(map(math.isfinite, constants)) or min(constants[1], constants[3]) <= 0:
        raise ModelInvalid(f"{path.name} has no usable normalisation; fetch or train it again")
    network = fold(picture_encoder(model_of(tensors, card, path)))
    if not all(bool(value.isfinite().all()) for value in network.state_dict().values()):
        raise ModelInvalid(f"{path.name} holds numbers that are not finite; fetch or train it again")
    with torch.inference_mode():  # a layer's first run is slow
        picture = torch.zeros(1, 3, generation.input_size, generation.input_size)
        first, last = (network.encode(picture, "frame", role) for role in (network.roles[0], network.roles[-1]))
        network.head(first, last, first, last)
    return LiveModel(path.stem, network, generation)


class Live:
    """What the newest window shows; see the module. ``beside`` as in `StreamingRecogniser`."""

    def __init__(self, beside: Executor | None = None) -> None:
        #: Windows that were whole and were not recognised, since the process began.
        self.skipped = 0
        self.model: LiveModel | None = None
        self._beside = beside
        self._recogniser: StreamingRecogniser | None = None
        self._recent: deque[Pair] = deque(maxlen=SPAN + 1)

    def use(self, model: LiveModel) -> None:
        """Recognise with this model from the next window on: the pictures of the last ones are here."""
        self.model = model
        self._begin(self._recent)

    def restart(self) -> None:
        """What comes does not continue what came."""
        self._recent.clear()
        self._begin(())

    def see(self, pairs: Sequence[Pair]) -> Recognition | None:
        """Take the pairs that have come, in order, and recognise the newest window.

        None while there is no model, or when fewer pairs than a window needs have come one after another.
        """
        whole = 0
        for pair in pairs:
            if self._recent and pair.number != self._recent[-1].number + 1:
                self.restart()
            self._recent.append(pair)
            self._add(pair)
            whole += len(self._recent) > SPAN
        if self._recogniser is None or not pairs:
            return None
        found = self._recogniser.recognise()
        self.skipped += whole - (found is not None)
        return found

    def prepare(self) -> None:
        """Do now what a later window needs; only when there is time."""
        if self._recogniser is not None:
            self._recogniser.prepare()

    def _begin(self, pairs: Iterable[Pair]) -> None:
        if self.model is not None:
            network, normalisation = self.model.network, self.model.generation.normalisation
            self._recogniser = StreamingRecogniser(network, normalisation, self._beside)
            for pair in pairs:
                self._add(pair)

    def _add(self, pair: Pair) -> None:
        if self.model is not None and self._recogniser is not None:
            size = self.model.generation.input_size
            frame, event = (resized(Image.fromarray(picture), size) for picture in (pair.frame, pair.event))
            self._recogniser.add(pair.number, frame, event)
