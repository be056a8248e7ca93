"""Which of SEE's four lightings a clip was recorded in, as far as its frames tell. NumPy only.

SEE names the light that its people sat in (normal, overexposed, low-light, HDR); a wearable is told nothing. What the
networks see of the light is how grey the pictures are, so that is what decides, whatever the exposure was:

- *low-light*: all is nearly black; 95 of 100 pixels are darker than 25 of 255;
- *overexposed*: the mean is above 80;
- *hdr*: a part is lit and another lies in the shadow; a quarter of the pixels is twice as bright as another quarter;
- *normal*: none of these.

Each threshold is the geometric middle between the nearest clips of the two lightings that it parts, on 60 synthetic
people under all four (``docs/learning.md``); it has not been compared with SEE's own names.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Grey levels: of the 95th percentile, below; of the mean, above. Ratio of the 75th to the 25th percentile, above.
DARK, BRIGHT, CONTRAST = 25, 80, 2.0


def grey(frames: NDArray[np.uint8]) -> tuple[float, int, int, int]:
    """Mean, 25th, 75th and 95th percentile of frames of any shape."""
    counts = np.bincount(frames.reshape(-1), minlength=256)  # (256,)
    shares = np.cumsum(counts) / frames.size
    low, high, highest = (int(np.searchsorted(shares, share)) for share in (0.25, 0.75, 0.95))
    return float(counts @ np.arange(256)) / frames.size, low, high, highest


def lighting_of(frames: NDArray[np.uint8]) -> str:
    """The lighting, one of LIGHTINGS, of a clip's frames (N, S, S), at least one."""
    mean, low, high, highest = grey(frames)
    if highest < DARK:
        return "low-light"
    if mean > BRIGHT:
        return "overexposed"
    return "hdr" if high > CONTRAST * low else "normal"
