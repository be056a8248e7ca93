"""Arrays as NPY bytes, the form in which Flower's records carry them; several hundred per message, so headers are
cached.

NumPy's own `save` and `load` spend most of their time on writing and parsing the same few headers again. Objects are
refused when reading: no pickle.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"\x93NUMPY\x01\x00"
#: Bytes before the header's text: magic, version and the text's length as a 16-bit number.
_BEFORE = len(_MAGIC) + 2


def encode(array: NDArray[Any]) -> bytes:
    """The array as NPY version 1 bytes, in C order."""
    return _header(array.dtype.str, array.shape) + np.asarray(array, order="C").tobytes()


def decode(content: bytes) -> NDArray[Any]:
    """The array of NPY version 1 bytes, read-only. Raises ValueError for anything that is not exactly that."""
    if content[: len(_MAGIC)] != _MAGIC or len(content) < _BEFORE:
        raise ValueError("an array is not in NPY version 1")
    end = _BEFORE + int.from_bytes(content[len(_MAGIC) : _BEFORE], "little")
    shape, dtype = _parse(content[_BEFORE - 2 : end])
    if len(content) - end != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"an array of {dtype.name}{shape} has {len(content) - end} bytes")
    return np.frombuffer(content, dtype, offset=end).reshape(shape)


@lru_cache(maxsize=4096)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


@lru_cache(maxsize=4096)
def _parse(header: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(io.BytesIO(header))
    except Exception as fault:  # NumPy's parser fails in many ways on bytes that only look like a header
        raise ValueError(f"an array's header cannot be read: {fault}") from fault
    if dtype.hasobject or (fortran_order and len(shape) > 1):
        raise ValueError("an array holds objects, or is not in C order")
    return shape, dtype
