"""Pictures on their way to the phone: they are made in memory and kept nowhere."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Sequence

import numpy as np
from PIL import Image

from client.page.wearable_protocol import Preview
from mcoe_model.data.events import Pair
from mcoe_model.data.geometry import PICTURE_SIZE

_QUALITY = 80


def preview_jpeg(preview: Preview) -> bytes:
    """The sensor's frame above its event picture (2 H, W)."""
    out = io.BytesIO()
    Image.fromarray(np.concatenate([preview.frame, preview.event])).save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


def replay_bytes(pairs: Sequence[Pair]) -> bytes:
    """Pairs as the phone replays them, compressed with gzip.

    Little endian: how many, n, and S (4 bytes each); when each ends, in seconds since the first (4 bytes each); the
    frames (n, S, S) and the event pictures (n, S, S), a byte for each pixel.
    """
    begins = pairs[0].end_us if pairs else 0
    times = np.array([(pair.end_us - begins) / 1e6 for pair in pairs], "<f4")
    frames = b"".join(pair.frame.tobytes() for pair in pairs)
    events = b"".join(pair.event.tobytes() for pair in pairs)
    content = struct.pack("<II", len(pairs), PICTURE_SIZE) + times.tobytes() + frames + events
    return gzip.compress(content, compresslevel=1)
