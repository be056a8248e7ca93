"""Models that were learned here, sealed: what they learned says something of their wearer's clips. NumPy only.

    MODELS/SHA256.safetensors    a model of the fleet's, or an imported one, plain: others have it, too
    MODELS/SHA256.sealed         one that was learned here: the SHA-256 (hex) of the fleet's model that it was learned
                                 from, plain, and then the model's file, sealed with the key of the lesson book

So whoever lacks the key knows which of the fleet's models stands in for it. SHA-256 is that of the plain file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from client.enrolment import ClientPaths
from client.running import Running
from mcoe_model.errors import DataInvalid, DataMissing, Locked, ModelInvalid
from mcoe_model.files import fsync_folder
from mcoe_model.model_file import HEADER_LENGTH, ModelCard, Tensors, card_of_header, parse_model, read_card, read_model
from mcoe_model.sealed import read_sealed, write_sealed

#: The origin of a model that was learned on a wearable, as its card has it.
LEARNED_HERE = "learned on the wearable"

PLAIN, SEALED = ".safetensors", ".sealed"
_HEAD_BYTES = 64
_SHA256 = re.compile("[0-9a-f]{64}")

log = logging.getLogger("mcoe")


def model_path(models: Path, sha256: str) -> Path:
    """The file of a model: the sealed one if it was learned here. It need not be there."""
    sealed = models / f"{sha256}{SEALED}"
    return sealed if sealed.exists() else models / f"{sha256}{PLAIN}"


def is_own(path: Path) -> bool:
    """Whether a model's file is that of one which was learned here."""
    return path.suffix == SEALED


def seal_model(models: Path, key: bytes, content: bytes, fleet_sha256: str) -> str:
    """Keep a model's file that was learned from a fleet's model; its SHA-256. Raises DiskFull."""
    sha256 = hashlib.sha256(content).hexdigest()
    head = fleet_sha256.encode()
    write_sealed(models / f"{sha256}{SEALED}", key, _context(sha256, fleet_sha256), [content], head)
    return sha256


def open_model(path: Path, key: bytes | None) -> tuple[Tensors, ModelCard]:
    """Tensors and card of a model's file, sealed or not. Raises DataMissing, DataInvalid, ModelInvalid, Locked."""
    if not is_own(path):
        return read_model(path)
    return parse_model(b"".join(_opened(path, key)), path)


def plain_file(path: Path, key: bytes) -> bytes:
    """A sealed model's file as it was before. Raises DataMissing, DataInvalid."""
    return b"".join(_opened(path, key))


def open_card(path: Path, key: bytes | None) -> ModelCard:
    """The card alone, without reading the rest. Raises as `open_model`."""
    if not is_own(path):
        return read_card(path)
    return card_of_header(_header(_opened(path, key)), path)


def fleet_model(path: Path) -> str:
    """SHA-256 of the fleet's model that a file is, or was learned from; needs no key.

    Raises DataMissing, DataInvalid, ModelInvalid.
    """
    if is_own(path):
        return _head(path)
    card = read_card(path)
    return _learned_from(card) or path.stem


def forget_own_models(paths: ClientPaths) -> None:
    """Remove models that were learned here, and that nobody can go back to any more.

    Only for who lets the learning process run, while it does not: what that has just made nobody wants yet.
    """
    wanted = Running(paths.running).read().wanted
    for path in paths.models.glob(f"*{SEALED}"):
        if path.stem not in wanted:
            path.unlink(missing_ok=True)


def settle_own_models(paths: ClientPaths, key: bytes) -> None:
    """Seal what an earlier version of this program left plain, and let the fleet's model stand in for a damaged one.

    To be called when the key is there, before anything is learned. Raises DiskFull; what is plain then stays so.
    """
    for path in sorted(paths.models.glob(f"*{PLAIN}")):
        fleet_sha256 = _plainly_learned_from(path)
        if fleet_sha256 is not None:
            seal_model(paths.models, key, path.read_bytes(), fleet_sha256)
            path.unlink()
            fsync_folder(paths.models)
            log.info("a model that was learned here lay plain; it is sealed now")
    running = Running(paths.running)
    for sha256 in sorted(running.read().wanted):
        path = model_path(paths.models, sha256)
        if is_own(path) and not _is_whole(path, key):
            running.drop(sha256, _stand_in(path))
            path.unlink(missing_ok=True)
            log.warning("a model that was learned here is damaged, and is removed")


def stand_in(path: Path) -> Path | None:
    """The fleet's model that a sealed one was learned from; None if it is not there. Needs no key."""
    with suppress(DataInvalid, DataMissing):
        fleet = path.with_name(f"{_head(path)}{PLAIN}")
        return fleet if fleet.is_file() else None
    return None


def _stand_in(path: Path) -> str:
    """The SHA-256 of the model in a damaged one's place: if its own is not known any more, the newest; or none."""
    fleet = stand_in(path)
    there = sorted(path.parent.glob(f"*{PLAIN}"), key=lambda one: one.stat().st_mtime_ns)
    return fleet.stem if fleet is not None else there[-1].stem if there else ""


def _is_whole(path: Path, key: bytes) -> bool:
    try:
        for _ in _opened(path, key):
            pass
    except (DataInvalid, DataMissing):
        return False
    return True


def _opened(path: Path, key: bytes | None) -> Iterator[bytes]:
    """A sealed model's file, piece by piece."""
    if key is None:
        raise Locked("the model that was learned here is sealed; unlock the wearable")
    return read_sealed(path, key, _context(path.stem, _head(path)), _HEAD_BYTES)


def _head(path: Path) -> str:
    try:
        with path.open("rb") as file:
            found = file.read(_HEAD_BYTES).decode("ascii", "replace")
    except FileNotFoundError as fault:
        raise DataMissing(f"there is no model file {path}") from fault
    if not _SHA256.fullmatch(found):
        raise DataInvalid(f"{path} was changed or cut off; nothing of it is used")
    return found


def _header(pieces: Iterable[bytes]) -> bytes:
    """A safetensors file's beginning, as far as its header goes or the pieces do."""
    found = b""
    for piece in pieces:
        found += piece
        if len(found) >= HEADER_LENGTH + int.from_bytes(found[:HEADER_LENGTH], "little"):
            break
    return found


def _plainly_learned_from(path: Path) -> str | None:
    """Of a plain file that was learned here, damaged or not: the fleet's model that it was learned from."""
    try:
        with path.open("rb") as file:
            return _learned_from(card_of_header(_header(iter(lambda: file.read(1 << 16), b"")), path))
    except (OSError, ModelInvalid):
        return None


def _learned_from(card: ModelCard) -> str | None:
    """Of a card; None for a model that was not learned here."""
    return str(card.trained_on["fleet_model"]) if card.origin == LEARNED_HERE else None


def _context(sha256: str, fleet_sha256: str) -> str:
    return json.dumps(["model", sha256, fleet_sha256])
