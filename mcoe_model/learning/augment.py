"""Light augmentation of a window's pictures: a shift, a change of brightness, and lost events.

Not in the publications, which use none. A shift stands for a slipped headset and moves a window's pictures alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHIFT = 0.06  # largest shift, share of the side
BRIGHTNESS = (0.7, 1.4)  # factor on frames, drawn on a log scale
EVENT_DROP = 0.3  # largest share of event pixels that go back to the background
BACKGROUND = 128  # grey value of SEE's event pictures where nothing happened


def augment(
    pictures: NDArray[np.uint8],
    frames: int,
    generator: np.random.Generator,
    channels: int = 1,
    background: int = BACKGROUND,
) -> NDArray[np.uint8]:
    """Augmented copies of (B, N, S, S): of each window first its ``frames`` frames, then its event pictures, with all
    their ``channels`` one after the other.

    The numbers drawn depend on the number of pictures and S alone, so a batch is augmented the same way whatever it
    shows. An event pixel that is lost is ``background`` in every channel.
    """
    count, shown, size, _ = pictures.shape
    reach = int(SHIFT * size)
    shifts = generator.integers(-reach, reach + 1, (count, 2))
    brightness = np.exp(generator.uniform(np.log(BRIGHTNESS[0]), np.log(BRIGHTNESS[1]), count)).astype(np.float32)
    chance = generator.random((count, (shown - frames) // channels, size, size), np.float32)
    lost = chance < generator.uniform(0, EVENT_DROP, (count, 1, 1, 1))
    result = np.empty_like(pictures)
    padded = np.pad(pictures, ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="edge")
    for row, (down, right) in enumerate(shifts):
        result[row] = padded[row, :, reach + down : reach + down + size, reach + right : reach + right + size]
    brightened = result[:, :frames].astype(np.float32) * brightness[:, None, None, None]
    result[:, :frames] = np.minimum(brightened, 255)
    result[:, frames:][np.repeat(lost, channels, axis=1)] = background
    return result
