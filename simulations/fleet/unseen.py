"""What models recognise of a simulated wearer's expressions that no process of the fleet has seen.

The same eye as the wearable's camera shows, by the same geometry, at a time long ago: other performances of the same
person. A clip is the middle of a turn, and a model recognises it as on the wearable: by its middle window.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from client.cameras.simulated import SimulatedCamera
from client.cameras.synthetic_eye import TURN_US, script
from mcoe_model.data.cache import resized
from mcoe_model.data.events import Pair, Pairing
from mcoe_model.data.geometry import Geometry
from mcoe_model.learning.fine_tune import measure
from mcoe_model.learning.samples import FeatureSamples, encode_pictures
from mcoe_model.learning.weights import load_model
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import picture_encoder
from mcoe_model.workers import one_thread

#: The first turn that is drawn; wearables play those of today.
FIRST_TURN = 1000
#: Seconds of a clip: enough for a window of the model's, at thirty pictures a second.
CLIP_S = 0.6


def clips_of(seed: int, model: Path, turns: int) -> FeatureSamples:
    """The wearer of a camera's ``seed`` in so many turns, encoded by the frozen backbones of ``model``'s generation."""
    one_thread()
    network, card = load_model(model)
    features, labels = [], []
    for turn in range(FIRST_TURN, FIRST_TURN + turns):
        [shown] = script(seed, turn * TURN_US, (turn + 1) * TURN_US)
        pairs = _pairs(seed, shown.start_us, round(CLIP_S * 1e6))
        size = card.generation.input_size
        frames, events = (
            np.stack([resized(Image.fromarray(picture), size) for picture in pictures])  # (N, S, S)
            for pictures in ([pair.frame for pair in pairs], [pair.event for pair in pairs])
        )
        features.append(encode_pictures(picture_encoder(network), frames, events, card.generation.normalisation))
        labels.append(EMOTIONS.index(shown.emotion))
    names = tuple(f"{seed}-{turn}" for turn in range(turns))
    return FeatureSamples(names, np.array(labels, np.int64), tuple(features))


def recognised(model: Path, clips: FeatureSamples) -> int:
    """How many of the clips a model of their generation recognises."""
    return measure(load_model(model)[0], clips).correct


def _pairs(seed: int, start_us: int, length_us: int) -> list[Pair]:
    """What the wearable would make of this time: pairs of pictures."""
    camera, pairing = SimulatedCamera(seed, start_us=start_us, paced=False), Pairing(Geometry())
    pairs: list[Pair] = []
    while not pairs or pairs[-1].end_us < start_us + length_us:
        portion = camera.read()
        if portion is None:
            continue
        for frame in portion.frames:
            pairs += pairing.add_frame(frame)
        if portion.events is not None:
            pairs += pairing.add_events(portion.events.numpy())
    return pairs
