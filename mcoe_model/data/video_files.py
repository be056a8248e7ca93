"""Pictures in video files, addressed by their number from 1, as tables of micro-expressions number them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from mcoe_model.errors import MissingExtra

#: Endings of the files that are taken for videos.
VIDEOS = frozenset({".avi", ".mp4", ".mov", ".mkv", ".wmv"})


def count_pictures(path: Path) -> int:
    """How many pictures a video holds: every one is decoded, since what a header says need not be so.

    Raises MissingExtra without PyAV, ValueError for a file that is torn or no video.
    """
    return sum(1 for _ in _frames(path))


def read_pictures(path: Path, numbers: Collection[int]) -> dict[int, Image.Image]:
    """The RGB pictures of these numbers. Raises as `count_pictures`, and ValueError for one that is not there."""
    found: dict[int, Image.Image] = {}
    number = 0
    for number, frame in enumerate(_frames(path), 1):
        if number in numbers:
            found[number] = frame.to_image()
        if len(found) == len(set(numbers)):
            return found
    raise ValueError(f"holds {number} pictures, not {max(numbers)}")


def _frames(path: Path) -> Iterator[Any]:
    try:
        import av
    except ImportError as fault:
        raise MissingExtra(f"{path} is a video, which needs PyAV: pip install 'mcoe[video]'") from fault
    try:
        with av.open(str(path)) as container:
            yield from container.decode(video=0)
    except (av.error.FFmpegError, IndexError) as fault:  # IndexError: of a file without a video stream
        raise ValueError("is torn or no video") from fault
