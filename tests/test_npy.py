"""NPY bytes: the same that NumPy writes and reads, and a ValueError for anything else."""

from __future__ import annotations

import io
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mcoe_model.npy import decode, encode

DTYPES = st.sampled_from(["<f4", ">f4", "<f2", "<f8", "<i8", "|i1", "|b1", "<c8", "<U3"])


@given(DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0, max_side=4))))
def test_the_bytes_are_those_of_numpy_and_come_back_as_the_array(array: Any) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, (1, 0), allow_pickle=False)
    assert encode(array) == buffer.getvalue()
    back = decode(encode(array))
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())
    np.testing.assert_array_equal(np.load(io.BytesIO(encode(array)), allow_pickle=False), array)


def test_arrays_in_other_layouts_are_written_as_their_values() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for view in (array.T, array[:, ::2], np.asfortranarray(array)):
        np.testing.assert_array_equal(decode(encode(view)), view)


def with_header(text: str, values: bytes = b"") -> bytes:
    header = (text.ljust(117) + "\n").encode("latin1")
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + values


USUAL = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"


def test_the_usual_header_is_read() -> None:
    np.testing.assert_array_equal(decode(with_header(USUAL, np.float32([1, 2]).tobytes())), np.float32([1, 2]))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00",
        b"\x93NUMPY\x02\x00" + with_header(USUAL)[8:],
        b"PK\x03\x04" + b"0" * 100,
        pickle.dumps([1, 2]),
        with_header(USUAL),
        with_header(USUAL, b"\0" * 7),
        with_header(USUAL, b"\0" * 9),
        with_header(USUAL)[:40],
        with_header(USUAL.replace("<f4", "|O"), b"\0" * 16),
        with_header(USUAL.replace("(2,)", "(2, 2)").replace("False", "True"), b"\0" * 16),
        with_header(USUAL.replace("(2,)", "(-1,)")),
        with_header(USUAL.replace("(2,)", "(-1, -1)"), b"\0" * 4),
        with_header(USUAL.replace("(2,)", "(9223372036854775808,)")),
        with_header(USUAL.replace("(2,)", "(4611686018427387904, 4)")),
        with_header(USUAL.replace("(2,)", "(2")),
        with_header(USUAL.replace("(2,)", "(1L,)")),
        with_header(USUAL.replace("(2,)", "__import__('os').getcwd()")),
        with_header(USUAL.replace("'<f4'", "'" * 3)),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (0,), 'x': " + "1+" * 4000 + "1}"),
        with_header("(" * 9000),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        decode(content)


@settings(deadline=None, max_examples=500)
@given(st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), max_size=4), st.integers(0, 130))
def test_damaged_bytes_are_read_or_refused_never_anything_else(changes: list[tuple[int, int]], length: int) -> None:
    content = bytearray(with_header(USUAL, np.float32([1, 2]).tobytes()))
    for position, value in changes:
        content[position] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            decode(bytes(content[: max(length, 100)]))
        except ValueError:
            return
