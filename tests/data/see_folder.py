"""A small data set in SEE's layout: real folders, real JPEGs of a few pixels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mcoe_model.data.see import parse_name

SEE_ORDER = ["happiness", "sadness", "angry", "disgust", "surprise", "fear", "neutral"]
NAMES = [
    "1_001_man_24_Master_normal_angry_6_take000",
    "2_001_man_24_Master_normal_neutral_5_take001",
    "10_002_woman_21_undergraduate_Overexposed_fear_7_take000",
    "11_003_man_22_Doctor_Low_surprise_6_take002",
    "12_004_man_22_Doctor_HDR_sadness_6_take000",
]


class SeeFolder:
    """A data set that a test can break: change ``database`` or files, then ``annotate``."""

    def __init__(self, root: Path, shape: tuple[int, int] = (20, 20)) -> None:
        self.root = root
        self.database: dict[str, Any] = {}
        for place, name in enumerate(NAMES):
            parsed = parse_name(name)
            self.database[name] = {
                "subset": "testing" if place % 2 else "training",
                "annotations": {"label": parsed.emotion, "segment": [0, parsed.length]},
            }
            for modality in ("event", "frame"):
                folder = self.folder(modality, name)
                folder.mkdir(parents=True)
                for index in range(parsed.length):
                    self.picture(name, modality, index, shape).save(folder / f"{index:05d}.jpg", quality=95)
        self.annotate()

    def folder(self, modality: str, name: str) -> Path:
        """SEE writes one folder as neutraL."""
        return self.root / modality / parse_name(name).emotion.replace("neutral", "neutraL") / name

    def picture(self, name: str, modality: str, index: int, shape: tuple[int, int]) -> Image.Image:
        """A smooth grey picture whose brightness tells sequence, modality and index apart."""
        height, width = shape
        ramp = np.linspace(0, 40, width)[None, :] + np.linspace(0, 40, height)[:, None]
        level = 8 * NAMES.index(name) + 60 * (modality == "event") + 5 * index
        return Image.fromarray((ramp + level).astype(np.uint8))

    def annotate(self) -> None:
        content = {"labels": SEE_ORDER, "database": self.database}
        (self.root / "emotion.json").write_text(json.dumps(content))
