"""A data set of a few bytes for tests of code of one's own: noise in examples/npz_clips.py's layout."""

from pathlib import Path

import numpy as np

from mcoe_model.names import EMOTIONS
from mcoe_model.streams import stream

SIDE, WINDOWS, PERIOD = 16, 18, 33_333


def write_clips(folder: Path, subjects: int = 6, each: int = 2, *, raw: bool = True) -> Path:
    """``subjects`` people with ``each`` clips of noise, as events or as event pictures."""
    folder.mkdir(parents=True)
    for subject in range(subjects):
        for take in range(each):
            random = stream(subject, "own clips", take)
            content = {"frames": random.integers(0, 256, (WINDOWS, SIDE, SIDE), np.uint8)}
            if raw:
                count = 2000
                content |= {
                    "timestamp": np.sort(random.integers(1, WINDOWS * PERIOD + 1, count)),
                    "x": random.integers(0, SIDE, count, np.int16),
                    "y": random.integers(0, SIDE, count, np.int16),
                    "polarity": random.integers(0, 2, count, np.int8),
                    "edges": np.arange(WINDOWS + 1) * PERIOD,
                }
            else:
                content["events"] = random.choice(np.array([0, 128, 255], np.uint8), (WINDOWS, SIDE, SIDE))
            emotion = EMOTIONS[(2 * subject + take) % len(EMOTIONS)]
            np.savez(folder / f"p{subject}_1_{emotion}_{take}.npz", allow_pickle=False, **content)
    return folder
