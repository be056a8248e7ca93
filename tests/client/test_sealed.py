"""Sealed files: what goes in comes out, and no byte, piece or file can be changed or exchanged unnoticed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcoe_model.errors import DataInvalid, DataMissing
from mcoe_model.sealed import KEY_BYTES, read_sealed, write_sealed

KEY = bytes(range(KEY_BYTES))
PIECE = (1 << 16) + 16
HEADER = 14 + 7


def sealed(tmp_path: Path, content: bytes, context: str = "clip 1") -> Path:
    path = tmp_path / "file.sealed"
    write_sealed(path, KEY, context, [content])
    return path


def opened(path: Path, key: bytes = KEY, context: str = "clip 1") -> bytes:
    return b"".join(read_sealed(path, key, context))


@settings(max_examples=30)
@given(st.lists(st.integers(0, 150_000), max_size=4))
def test_what_goes_in_comes_out_in_any_portions(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    path = tmp_path_factory.mktemp("sealed") / "file"
    portions = [os.urandom(size) for size in sizes]
    write_sealed(path, KEY, "clip", portions)
    assert opened(path, context="clip") == b"".join(portions)


@pytest.mark.parametrize("size", [0, 1, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 3 << 16])
def test_sizes_around_a_whole_piece(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    path = sealed(tmp_path, content)
    assert opened(path) == content
    assert path.stat().st_size == HEADER + size + 16 * max(1, -(-size // (1 << 16)))


def test_nothing_of_the_content_is_on_the_disk_and_equal_contents_look_different(tmp_path: Path) -> None:
    content = b"an eye, a label and a name " * 10_000
    first = sealed(tmp_path, content).read_bytes()
    second = sealed(tmp_path, content).read_bytes()
    assert b"an eye" not in first and first[HEADER:] != second[HEADER:]
    assert list(tmp_path.iterdir()) == [tmp_path / "file.sealed"]


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b[:-1],
        lambda b: b[:PIECE + HEADER],  # the first piece alone, whole
        lambda b: b[: HEADER + 2 * PIECE],
        lambda b: b[:HEADER],
        lambda b: b[:5],
        lambda b: b"",
        lambda b: b + b"\0",
        lambda b: b + b[-PIECE:],
        lambda b: b[:HEADER] + b[HEADER + PIECE :],  # without its first piece
        lambda b: b[:HEADER] + b[HEADER + PIECE :][:PIECE] + b[HEADER:][:PIECE] + b[HEADER + 2 * PIECE :],  # exchanged
        lambda b: b[:20] + bytes([b[20] ^ 1]) + b[21:],
        lambda b: b[:-20] + bytes([b[-20] ^ 1]) + b[-19:],
    ],
)  # fmt: skip
def test_every_change_is_noticed(tmp_path: Path, change: object) -> None:
    path = sealed(tmp_path, os.urandom(150_000))
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataInvalid, match="changed or cut off"):
        opened(path)


def test_another_key_or_context_opens_nothing(tmp_path: Path) -> None:
    path = sealed(tmp_path, b"content")
    for key, context in ((bytes(KEY_BYTES), "clip 1"), (KEY, "clip 2")):
        with pytest.raises(DataInvalid):
            opened(path, key, context)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="no sealed file"):
        opened(tmp_path / "none")


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = sealed(tmp_path, b"before")

    def torn() -> object:
        yield b"after"
        raise RuntimeError("unplugged")

    with pytest.raises(RuntimeError):
        write_sealed(path, KEY, "clip 1", torn())  # type: ignore[arg-type]
    assert opened(path) == b"before"
    assert list(tmp_path.iterdir()) == [path]
