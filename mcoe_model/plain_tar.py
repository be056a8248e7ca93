"""Tar files of nothing but regular files, written and read as a stream.

Reading believes nothing: links, devices, sparse files, headers of any length and names that lead out of a folder are
refused before a byte of them is used. The format is POSIX.1-1988's (ustar), of which the standard library packs and
checks the headers; its own reader is for archives whose maker is trusted more.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Iterator

from mcoe_model.errors import DataInvalid

_BLOCK = tarfile.BLOCKSIZE
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_NAME = re.compile(f"{_PART}(/{_PART})*")
_MOST_LETTERS = 255


def tar(files: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    """A tar of named contents. Times, users and modes are the same for all: they tell nothing of where it was made."""
    for name, content in files:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), 0o600
        yield info.tobuf(tarfile.USTAR_FORMAT)
        yield content
        yield bytes(-len(content) % _BLOCK)
    yield bytes(2 * _BLOCK)


def untar(content: Iterable[bytes]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Names and contents, each content to be read before the next name. The whole is read to its end.

    Names are relative and lead downwards; no part of them begins with a dot. Raises DataInvalid.
    """
    reader = _Reader(content)
    seen: set[str] = set()
    while any(header := reader.exactly(_BLOCK)):
        info = _header(header)
        if info.name in seen:
            raise DataInvalid("the archive holds one name twice; nothing of it is used")
        seen.add(info.name)
        left = reader.portions(info.size)
        yield info.name, left
        for _ in left:
            pass
        reader.exactly(-info.size % _BLOCK)
    for rest in reader.rest():
        if any(rest):
            raise DataInvalid("the archive goes on after its end; nothing of it is used")


def _header(header: bytes) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(header, "ascii", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as fault:
        raise DataInvalid("the archive is damaged; nothing of it is used") from fault
    if info.type != tarfile.REGTYPE or info.size < 0:
        raise DataInvalid("the archive holds something that is no plain file; nothing of it is used")
    if len(info.name) > _MOST_LETTERS or not _NAME.fullmatch(info.name):
        raise DataInvalid("the archive holds a name that may not be used as a file's; nothing of it is used")
    return info


class _Reader:
    """Portions of any size, read in wanted ones."""

    def __init__(self, content: Iterable[bytes]) -> None:
        self._content = iter(content)
        self._held = b""

    def portions(self, size: int) -> Iterator[bytes]:
        """So many bytes, in some portions. Raises DataInvalid where there are fewer."""
        while size:
            while not self._held:
                try:
                    self._held = next(self._content)
                except StopIteration:
                    raise DataInvalid("the archive is cut off; nothing of it is used") from None
            portion, self._held = self._held[:size], self._held[size:]
            size -= len(portion)
            yield portion

    def exactly(self, size: int) -> bytes:
        """So many bytes."""
        return b"".join(self.portions(size))

    def rest(self) -> Iterator[bytes]:
        """What is left."""
        yield self._held
        yield from self._content
