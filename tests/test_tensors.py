"""Tensors as bytes: what goes in comes out, the same tensors give the same bytes, and nothing else is read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mcoe_model.model_file import tensors_sha256
from mcoe_model.tensors import Payload, PayloadReader, pack, unpack


def header(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode()


def entry(dtype: str, shape: list[int], end: int) -> str:
    return json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}})


def test_tensors_come_back_with_their_bits() -> None:
    tensors = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.array(7, np.int64),
        "none": np.zeros((0, 3), np.float32),
    }
    back = unpack(pack(tensors))
    assert back.keys() == tensors.keys()
    for name, array in tensors.items():
        assert back[name].dtype == array.dtype and back[name].shape == array.shape
        np.testing.assert_array_equal(back[name], array)


def test_order_of_names_and_memory_does_not_matter() -> None:
    grid = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert pack({"a": grid, "b": grid}) == pack({"b": grid, "a": np.asfortranarray(grid)})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"cos\nsystem\n(S'true'\ntR.",
        b"PK\x03\x04" + bytes(100),
        pack({"a": np.zeros(4, np.float32)})[:-1],
        pack({"a": np.zeros(4, np.float32)}) + b"\0",
        header(entry("F32", [1 << 50], 1 << 52)),
        header(entry("F32", [2], 4)) + bytes(4),
        header(entry("BF16", [2], 4)) + bytes(4),
        header("{") + bytes(8),
        (1 << 60).to_bytes(8, "little"),
    ],
)
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        unpack(content)


def test_a_payload_is_read_only_and_named_by_its_hash() -> None:
    tensors = {"a": np.arange(3, dtype=np.float32)}
    payload = PayloadReader().read(pack(tensors))
    assert payload.sha256 == tensors_sha256(tensors) == Payload.of(tensors).sha256
    with pytest.raises(ValueError, match="read-only"):
        payload.tensors["a"][0] = 1
    tensors["a"][0] = 1  # what it was made of may still change


def test_a_reader_tells_payloads_apart() -> None:
    reader, first, second = PayloadReader(), {"a": np.zeros(3, np.float32)}, {"a": np.ones(3, np.float32)}
    found = [reader.read(pack(tensors)).sha256 for tensors in (first, first, second, first)]
    assert found == [tensors_sha256(tensors) for tensors in (first, first, second, first)]
    with pytest.raises(ValueError, match="cannot be read"):
        reader.read(b"nothing")
    assert reader.read(pack(second)).sha256 == tensors_sha256(second)
