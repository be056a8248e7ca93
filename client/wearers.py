"""Who wears this wearable: every wearer has a folder, a device key, a store and a node key that nobody else ever has.

``DIR/wearers/CODE/`` is the wearer's folder (`ClientPaths`); there is one at a time. A wearable that joined a fleet
without a camera keeps its files in ``DIR`` itself, as long as no wearer was begun there.

Every step is one rename, or is finished by the next start: a folder whose name begins with a dot is under way. A wearer
who goes is ``.withdraw-CODE`` or ``.forget-CODE`` until the server can be told of it without this folder
(`client.leaving`), then ``.closing-CODE``.
"""

from __future__ import annotations

import logging
import re
import shutil
from contextlib import suppress
from pathlib import Path

from client.enrolment import ClientPaths
from client.keys import destroy
from client.leaving import Leaving, Way
from client.said import Said
from mcoe_model.errors import DataInvalid, DataMissing, McoeError, OutputExists
from mcoe_model.files import fsync_folder

#: What is set of the wearable, whoever wears it.
SETTINGS_FILE = "mcoe-client.toml"
#: The code of a wearer who was given none.
FIRST_CODE = "W001"
_CODE = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_MEMBERSHIP = re.compile("^client_id *=", re.MULTILINE)
_ADOPTING, _CLOSING = ".adopting-", ".closing-"
_GOING: dict[Way, str] = {"withdraw": ".withdraw-", "forget": ".forget-"}

log = logging.getLogger(__name__)


class Wearers:
    """The wearers' folders of a wearable. Making this finishes what an earlier process could not.

    Only whoever has the folder's lock (`only_one`) may finish anything; others look, with ``finish`` False.
    """

    def __init__(self, folder: Path, finish: bool = True) -> None:
        self.folder = folder
        self._home = folder / "wearers"
        if not finish:
            return
        _carry_over(ClientPaths(folder))
        for path in sorted(self._home.glob(f"{_ADOPTING}*")):
            self._adopt(path, path.name.removeprefix(_ADOPTING))
        for path in sorted(self._home.glob(f"{_CLOSING}*")):
            _erase(path)
        Leaving(folder).settle()
        for way, start in _GOING.items():
            for path in sorted(self._home.glob(f"{start}*")):
                self._go(path, path.name.removeprefix(start), way)

    @property
    def current(self) -> str | None:
        """The wearer's code; None for a new wearable, and for one without codes. A folder without a key is nobody's."""
        found = sorted(path.name for path in self._home.glob("[!.]*") if _worn(ClientPaths(path)))
        if len(found) > 1:
            raise DataInvalid(f"{self._home} holds the folders of {len(found)} wearers; one of them must go elsewhere")
        return found[0] if found else None

    @property
    def worn(self) -> bool:
        """Whether there is a wearer, with a code or without."""
        return _worn(self.paths)

    @property
    def found(self) -> bool:
        """Whether anything of a wearer lies in the wearable's own folder, such as a membership or a model."""
        return any(path.exists() for path in ClientPaths(self.folder).of_wearer)

    @property
    def paths(self) -> ClientPaths:
        """The current wearer's files: in a folder of their own, or without a code in the wearable's."""
        code = self.current
        return ClientPaths(self.folder if code is None else self._home / code)

    def new(self, code: str = FIRST_CODE) -> ClientPaths:
        """An empty folder for a wearer, who is the current one once a key is in it.

        Raises DataInvalid for a bad code, OutputExists while there is a wearer.
        """
        check_code(code)
        if self.current is not None or _worn(ClientPaths(self.folder)):
            raise OutputExists("this wearable has a wearer; close that one first, with: mcoe-client wearer new")
        for path in self._home.glob("[!.]*"):  # begun by a process that died before it made a key
            _erase(path)
        self._home.mkdir(parents=True, mode=0o700, exist_ok=True)
        (self._home / code).mkdir(mode=0o700)
        fsync_folder(self._home)
        return ClientPaths(self._home / code)

    def adopt(self, code: str = FIRST_CODE) -> ClientPaths:
        """Give a wearer whose files are in the wearable's folder one of their own. Raises DataMissing, OutputExists."""
        check_code(code)
        if self.current is not None:
            raise OutputExists("this wearable's wearer has a folder already")
        if not _worn(ClientPaths(self.folder)):
            raise DataMissing(f"{self.folder} holds no wearer; begin with: mcoe-client --device davis346")
        moving = self._home / f"{_ADOPTING}{code}"
        self._home.mkdir(mode=0o700, exist_ok=True)
        moving.mkdir(mode=0o700)
        self._adopt(moving, code)
        return self.paths

    def close(self, way: Way) -> None:
        """Erase the wearer: first the keys, which makes the rest unreadable, then everything.

        The server of a wearer who is in a fleet will be told, in this way. Raises DataMissing without a wearer. Whoever
        calls this has reminded the wearer of an export.
        """
        if self.current is None and _worn(ClientPaths(self.folder)):
            self.adopt()
        code = self.current
        if code is None:
            raise DataMissing("this wearable has no wearer")
        going = self._home / f"{_GOING[way]}{code}"
        (self._home / code).rename(going)
        fsync_folder(self._home)
        self._go(going, code, way)

    def _go(self, going: Path, code: str, way: Way) -> None:
        """What the server has to be told is all that is left when it is queued; nothing can be read any more."""
        _empty(going)
        Leaving(self.folder).queue(ClientPaths(going), way)
        closing = self._home / f"{_CLOSING}{code}"
        going.rename(closing)
        fsync_folder(self._home)
        _erase(closing)

    def _adopt(self, moving: Path, code: str) -> None:
        for path in ClientPaths(self.folder).of_wearer:
            if path.exists():
                path.rename(moving / path.name)
        fsync_folder(moving)
        fsync_folder(self.folder)
        moving.rename(self._home / code)
        fsync_folder(self._home)


def check_code(code: str) -> None:
    """Raises DataInvalid for what cannot be a wearer's code."""
    if not _CODE.fullmatch(code):
        raise DataInvalid(f"a wearer's code has up to 32 letters, digits, - and _, not {code!r}; it is no name")


def _carry_over(paths: ClientPaths) -> None:
    """Version 0.1 kept the membership in the file where the wearable's settings are now."""
    before = paths.folder / SETTINGS_FILE
    if before.exists() and not paths.membership.exists() and _MEMBERSHIP.search(before.read_text(errors="replace")):
        before.rename(paths.membership)
        fsync_folder(paths.folder)


def _worn(paths: ClientPaths) -> bool:
    """Whether these files belong to somebody."""
    return any(path.exists() for path in (paths.key, paths.device_key, paths.membership, paths.store))


def _empty(folder: Path) -> None:
    """Destroy the device key, then delete everything but the membership, which the server has to hear of."""
    paths = ClientPaths(folder)
    destroy(paths.device_key)
    fsync_folder(folder)
    files = sum(path.is_file() for path in folder.rglob("*"))
    for path in set(folder.iterdir()) - {paths.membership, paths.authority, paths.key, paths.public_key}:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):  # `_erase` says what could not be deleted
                path.unlink()
    log.info("a wearer was erased: keys, and %d files", files)


def _erase(folder: Path) -> None:
    """Destroy the keys, then delete everything. Raises McoeError when something is still there."""
    paths = ClientPaths(folder)
    for key in (paths.device_key, paths.key):
        destroy(key)
    fsync_folder(folder)
    shutil.rmtree(folder, ignore_errors=True)
    fsync_folder(folder.parent)
    if folder.exists():
        says = "{folder} could not be deleted; its keys are gone, so nothing in it can be read: remove it"
        raise McoeError(Said("session.remains", says, folder=str(folder)))
