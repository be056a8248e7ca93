"""Pictures in files: a grey picture read whole, or the reason why it cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mcoe_model.data.reader import Unusable
from mcoe_model.errors import DataInvalid


def read_grey(root: Path, name: str) -> NDArray[np.uint8]:
    """The picture ``root/name`` as grey values (H, W); colour becomes luma.

    Raises Unusable for one that is torn or none, DataInvalid for a disk that does not answer.
    """
    try:
        with Image.open(root / name) as picture:
            return np.asarray(picture.convert("L"))
    except OSError as fault:
        if fault.errno is not None:  # the disk's fault, not the picture's: it may be gone the next time
            raise DataInvalid(f"cannot read {root / name}: {fault.strerror}") from fault
        raise Unusable(f"{name} is torn or no picture") from fault
    except (SyntaxError, ValueError, Image.DecompressionBombError) as fault:  # Pillow's words for broken headers
        raise Unusable(f"{name} is torn or no picture") from fault
