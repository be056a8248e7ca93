"""How bright and how busy a data set's pictures are, beside SEE's own numbers.

SEE's are the normalisation constants of its published loader; how they were averaged is not published. Here a mean is
over pixels, and a spread is the mean over pictures of the spread within one.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mcoe_model.data.synthetic.design import Clip
from mcoe_model.names import LIGHTINGS

#: Sequences that are looked at, and the places in each.
SEQUENCES, PLACES = 400, (0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class Statistics:
    """Grey levels of intensity and event pictures, as shares of white; ``active``: share of pixels with events."""

    frame_mean: float
    frame_sd: float
    event_mean: float
    event_sd: float
    active: float


SEE = Statistics(frame_mean=0.226, frame_sd=0.119, event_mean=0.504, event_sd=0.069, active=0.019)


def measure(root: Path, clips: tuple[Clip, ...]) -> dict[str, Statistics]:
    """Statistics of a written data set: of each lighting that occurs, and of ``all``. A sample of it is read."""
    rows: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for i in np.unique(np.linspace(0, len(clips) - 1, min(SEQUENCES, len(clips))).astype(int)):
        rows[clips[i].lighting].extend(_of_clip(root, clips[i]))
    found = {lighting: rows[lighting] for lighting in LIGHTINGS if lighting in rows}
    found["all"] = [row for of_light in rows.values() for row in of_light]
    return {name: Statistics(*(float(mean) for mean in np.mean(of_light, axis=0))) for name, of_light in found.items()}


def _of_clip(root: Path, clip: Clip) -> list[NDArray[np.float64]]:
    rows = []
    for place in PLACES:
        name = Path(clip.folder, clip.name, f"{int(place * clip.length):05d}.jpg")
        frame = np.asarray(Image.open(root / "frame" / name)) / 255
        event = np.asarray(Image.open(root / "event" / name)) / 255
        active = np.abs(event - 128 / 255) > 0.25
        rows.append(np.array([frame.mean(), frame.std(), event.mean(), event.std(), active.mean()]))
    return rows
