"""A representation of one's own: the polarity of the newest event of every pixel, and nothing else.

    python simulations/conformance.py representation examples/newest_polarity.py:NewestPolarity
    python simulations/see_by_subject.py --representation examples/newest_polarity.py:NewestPolarity
"""

import numpy as np
from numpy.typing import NDArray


class NewestPolarity:
    """255 where the last event was ON, 0 where it was OFF, 128 where there was none."""

    name = "newest-polarity"
    channels = 1
    background = 128

    def draw(
        self, events: NDArray[np.void], start_us: int, end_us: int, shape: tuple[int, int]
    ) -> NDArray[np.uint8]:
        picture = np.full((self.channels, *shape), self.background, np.uint8)  # (1, H, W)
        # Of several values for one pixel NumPy keeps the last, and events come in the order of their times.
        picture[0, events["y"], events["x"]] = np.where(events["polarity"] > 0, 255, 0)
        return picture
