"""Opening what wearers handed over: each file is checked to its end before anything of it has its place.

Whoever has the public key could have written such a file, so nothing in it is believed: names, kinds and sizes are
checked (`mcoe_model.plain_tar`), and there is a bound on the whole.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mcoe_model.data.see import read_see
from mcoe_model.errors import DataInvalid, DataMissing, DiskFull, OutputExists
from mcoe_model.files import fsync_folder, write_json
from mcoe_model.plain_tar import untar
from mcoe_model.study import read_for_study

_ANNOTATION = "emotion.json"


def open_study(files: Sequence[Path], key: X25519PrivateKey, out: Path, most_bytes: int) -> int:
    """Open the files as a new folder, whole or not at all; how many files are in it.

    Several must all be in SEE's layout, and become one data set. Raises OutputExists, DataMissing, DataInvalid for one
    that cannot be trusted or is larger than ``most_bytes`` together with the others, DiskFull.
    """
    with _new_folder(out) as folder:
        left = most_bytes
        for number, file in enumerate(files):
            left -= _extract(read_for_study(file, key), folder / f"part-{number}", left)
        parts = [folder / f"part-{number}" for number in range(len(files))]
        opened = parts[0] if len(parts) == 1 else _merged(parts, folder / "merged")
        count = sum(path.is_file() for path in opened.rglob("*"))
        os.rename(opened, out)
        fsync_folder(out.absolute().parent)
    return count


def _extract(content: Iterable[bytes], folder: Path, most_bytes: int) -> int:
    """Write the files of an archive under a new folder; how many bytes."""
    folder.mkdir(mode=0o700)
    done = 0
    for name, portions in untar(content):
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                for portion in portions:
                    done += len(portion)
                    if done > most_bytes:
                        raise DataInvalid("more is in it than --most-gb allows; nothing of it is used")
                    file.write(portion)
        except (FileExistsError, NotADirectoryError) as fault:
            raise DataInvalid("the archive holds a file and a folder of one name; nothing of it is used") from fault
    return done


def _merged(parts: Sequence[Path], folder: Path) -> Path:
    """Data sets in SEE's layout as one. Raises DataInvalid for others, and for one that is there twice."""
    together: dict[str, object] = {}
    labels: list[str] = []
    for part in parts:
        if not (part / _ANNOTATION).is_file():
            raise DataInvalid("only exports in SEE's layout become one data set; open the others one at a time")
        read_see(part)
        annotation = json.loads((part / _ANNOTATION).read_bytes())
        if together.keys() & annotation["database"].keys():
            raise DataInvalid("two of these files hold the same spans; open the newer one of each wearer only")
        together |= annotation["database"]
        labels = annotation["labels"]
        for sequence in sorted(part.glob("*/*/*")):
            place = folder / sequence.relative_to(part)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.rename(sequence, place)
    write_json(folder / _ANNOTATION, {"labels": labels, "database": together})
    return folder


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A private folder beside ``out`` in which it is made; nothing is left of it."""
    partial = out.with_name(f"{out.name}.partial")
    if os.path.lexists(out):
        raise OutputExists(f"{out} exists already; name a new folder")
    if not out.absolute().parent.is_dir():
        raise DataMissing(f"there is no folder {out.absolute().parent}; make it")
    try:
        partial.mkdir(mode=0o700)
    except FileExistsError as fault:
        raise OutputExists(f"{partial} was left by a command that was broken off; delete it") from fault
    try:
        yield partial
    except OSError as fault:
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no space left while writing {out}; nothing was left there") from fault
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
