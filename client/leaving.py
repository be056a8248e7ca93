"""Telling the server that a wearer leaves the fleet: also when it cannot be reached now, and the wearer is erased here.

A request is a folder ``DIR/leaving/WAY-KEY``, laid out as a wearer's (`ClientPaths`), with no more in it than it takes:
the server's address and authority, the node key, the pseudonym, the day. It is made whole under another name and then
renamed, so that it is there or not, whenever a process dies. It is tried until the server has answered, for ever. Then
the key is destroyed, and ``DIR/receipts/WAY-KEY.json`` says what was asked and answered.

KEY is a hash of the node's public key. A key asks once in each way: it is never enrolled again (`begin_anew`).
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import logging
import shutil
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from client.enrolment import (
    ClientPaths,
    Membership,
    ask_to_leave,
    enrol,
    learn_authorities,
    read_key,
    read_membership,
)
from client.kept import drop_kept
from client.keys import destroy
from client.told import ToldFile
from mcoe_model.consent import Consent
from mcoe_model.errors import DataInvalid, DataMissing, EnrolmentRefused, McoeError, ServerUnreachable, for_log
from mcoe_model.files import fsync_folder, read_json, write_bytes, write_json
from mcoe_model.invitation import Invitation

#: ``withdraw``: take part no longer; ``forget``: delete what is kept as well.
Way = Literal["withdraw", "forget"]
#: Without one of these consents a wearer takes no part in a fleet.
FLEET_CONSENTS = ("learning", "updates")
#: How one who has left comes back.
COME_BACK = "to take part again, ask the operator of the fleet for a new invitation, then: mcoe-client enrol"
#: Seconds before the server is tried again, by how often it was tried.
PAUSES_S = (5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
#: Letters of the longest receipt that is kept, as JSON.
_LONGEST = 20_000
#: What the server's receipts hold: see `server.registry.privacy.Receipt`.
_FIELDS: dict[Way, tuple[str, ...]] = {
    "withdraw": ("client_id", "state"),
    "forget": (
        "client_id", "time", "deleted", "descendants", "choice", "released_again", "rounds_without_it",
        "round_abandoned",
    ),
}  # fmt: skip
_NEW, _OLD = ".new-", ".old-"

log = logging.getLogger("mcoe")


@dataclass(frozen=True)
class Goodbye:
    """One request and what became of it; days are UTC by the wearable's clock.

    ``answered`` is None while it waits. Then ``receipt`` is what the server said, as far as receipts say it; it is None
    when the server refused, which ``refused`` explains, and when it did it and its receipt cannot be read.
    """

    way: Way
    client_id: str
    address: str
    asked: str
    answered: str | None = None
    refused: str = ""
    receipt: dict[str, Any] | None = None

    def line(self) -> str:
        """For the terminal."""
        what = {"withdraw": "takes part no longer", "forget": "is to be forgotten"}[self.way]
        said = f"that {self.client_id} {what}"
        if self.answered is None:
            return f"the server {self.address} has not been told yet {said}; waiting for it since {self.asked}"
        told = f"the server {self.address} was told on {self.answered} {said}"
        if self.refused:
            return f"{told}, and refused: {self.refused}; ask its operator"
        receipt = json.dumps(self.receipt) if self.receipt else "none that can be read"
        return f"{told}; its receipt: {receipt}"


class Leaving:
    """The requests and receipts of a wearable, of its wearer of today and of those before.

    Threads may share it; only one process, which has the folder's lock (`only_one`), may change anything.
    """

    def __init__(self, folder: Path) -> None:
        self._requests = folder / "leaving"
        self._receipts = folder / "receipts"
        self._trying = threading.Lock()
        self._queued = threading.Event()
        self._stopped = False
        self._said: set[str] = set()

    def queue(self, paths: ClientPaths, way: Way) -> None:
        """Let the server be told. For who belongs to no fleet there is nobody to tell, and nothing happens.

        Durable when this returns. What was asked before is not asked again. Raises DiskFull.
        """
        try:
            membership, key = read_membership(paths), key_id(paths)
            read_key(paths)
            secret, authority = paths.key.read_bytes(), paths.authority.read_bytes()
        except (DataMissing, DataInvalid, FileNotFoundError):  # there is none, or it was spoilt
            return
        name = f"{way}-{key}"
        if not self._receipt(name).exists() and not (self._requests / name).exists():
            self._requests.mkdir(mode=0o700, parents=True, exist_ok=True)
            fsync_folder(self._requests.parent)
            made = ClientPaths(self._requests / f"{_NEW}{name}")
            shutil.rmtree(made.folder, ignore_errors=True)
            made.folder.mkdir(mode=0o700)
            write_json(_request(made.folder), asdict(Goodbye(way, membership.client_id, membership.address, _today())))
            write_bytes(made.authority, authority)
            write_bytes(made.key, secret)
            made.folder.rename(self._requests / name)
            fsync_folder(self._requests)
        if way == "forget":  # which says it all
            self._remove(self._requests / f"withdraw-{key}")
        self._queued.set()

    def waiting(self) -> list[Goodbye]:
        """What the server has not been told yet."""
        return [_goodbye(_request(path)) for path in self._waiting() if not self._receipt(path.name).exists()]

    def receipts(self) -> list[Goodbye]:
        """What it was told, by day."""
        return sorted(map(_goodbye, sorted(self._receipts.glob("*.json"))), key=lambda one: one.answered or "")

    def of(self, key: str) -> Goodbye | None:
        """What became of leaving the fleet with the key that `key_id` names; None for a member."""
        for name in (f"forget-{key}", f"withdraw-{key}"):
            for file in (_request(self._requests / name), self._receipt(name)):
                with contextlib.suppress(FileNotFoundError):
                    return _goodbye(file)
        return None

    def try_all(self) -> bool:
        """Ask the server for everything that waits; whether something still does, after whatever fault."""
        with self._trying:
            return any([self._try(path) for path in self._waiting()])

    def settle(self) -> None:
        """Finish what a process that died has begun. Called before anything else is done here."""
        for path in self._requests.glob(".*"):
            _erase(path)

    def start(self) -> None:
        """Try until everything was said, in a thread that ends with the process, or with `stop`."""
        threading.Thread(target=self._run, name="leaving", daemon=True).start()

    def stop(self) -> None:
        """Try no more. Does not wait for an answer that is awaited."""
        self._stopped = True
        self._queued.set()

    def wake(self) -> None:
        """Try at once: something may have been queued."""
        self._queued.set()

    def _run(self) -> None:
        tried = 0
        while True:
            self._queued.clear()
            if self._stopped:
                return
            waits = self.try_all()
            pause = PAUSES_S[min(tried, len(PAUSES_S) - 1)] if waits else None
            tried = 0 if self._queued.wait(pause) or not waits else tried + 1

    def _try(self, path: Path) -> bool:
        """One request; whether it still waits. Its receipt is written before its key goes."""
        try:
            if not self._receipt(path.name).exists():
                self._receipts.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_json(self._receipt(path.name), asdict(self._answered(path)))
                log.info("the server was told that somebody leaves the fleet")
            self._remove(path)
        except (FileNotFoundError, DataMissing):  # another request took its place meanwhile
            return False
        except (McoeError, OSError) as fault:
            if path.name not in self._said:
                log.warning("the server is told later that somebody leaves the fleet: %s", for_log(fault))
            self._said.add(path.name)
            return True
        return False

    def _answered(self, path: Path) -> Goodbye:
        """What the server answers to this request. Raises ServerUnreachable."""
        asked, paths = _goodbye(_request(path)), ClientPaths(path)
        answered = replace(asked, answered=_today())
        try:
            try:
                answer = ask_to_leave(paths, asked.address, asked.way)
            except ServerUnreachable:  # it may have an authority that only those know who enrolled there since
                if not any([learn_authorities(paths, other) for other in self._members_of(asked.address)]):
                    raise
                answer = ask_to_leave(paths, asked.address, asked.way)
            return replace(answered, receipt=_checked(asked, answer))
        except EnrolmentRefused as fault:
            return replace(answered, refused=str(fault))

    def _members_of(self, address: str) -> list[ClientPaths]:
        """The folders of this wearable's wearers that belong to the fleet at this address."""
        found = []
        for paths in map(ClientPaths, (self._requests.parent, *self._requests.parent.glob("wearers/*"))):
            with contextlib.suppress(DataMissing, DataInvalid, OSError):
                if read_membership(paths).address == address and paths.authority.exists():
                    found.append(paths)
        return found

    def _remove(self, path: Path) -> None:
        """One rename, then its key and the rest."""
        gone = path.with_name(f"{_OLD}{path.name}")
        _erase(gone)
        with contextlib.suppress(FileNotFoundError):
            path.rename(gone)
            fsync_folder(self._requests)
            _erase(gone)

    def _waiting(self) -> list[Path]:
        return sorted(self._requests.glob("[!.]*"))

    def _receipt(self, name: str) -> Path:
        return self._receipts / f"{name}.json"


def join(
    leaving: Leaving,
    paths: ClientPaths,
    invitation: Invitation,
    clips: Path | None = None,
    subject: str = "",
    consents: Sequence[Consent] = (),
) -> Membership:
    """`enrol` in a fleet; one who has left a fleet, or whom it let go, begins anew, with another key.

    Raises as `enrol` does.
    """
    told = ToldFile(paths.told).read()
    if leaving.of(key_id(paths)) or told.lost or told.turned_away:
        begin_anew(paths)
    return enrol(paths, invitation, clips, subject, consents)


def begin_anew(paths: ClientPaths) -> None:
    """Let go of a membership that the wearer has left, so that another can begin, with another key.

    The key goes first: whenever this ends, it can be begun again.
    """
    destroy(paths.key)
    paths.membership.unlink(missing_ok=True)
    paths.told.unlink(missing_ok=True)
    drop_kept(paths.outbox)
    paths.public_key.unlink(missing_ok=True)


def key_id(paths: ClientPaths) -> str:
    """A name for the node key in this folder; empty without one."""
    try:
        return hashlib.sha256(paths.public_key.read_bytes()).hexdigest()[:16]
    except FileNotFoundError:
        return ""


def _request(folder: Path) -> Path:
    return folder / "request.json"


def _goodbye(file: Path) -> Goodbye:
    return Goodbye(**read_json(file))


def _erase(folder: Path) -> None:
    destroy(ClientPaths(folder).key)
    shutil.rmtree(folder, ignore_errors=True)


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _checked(asked: Goodbye, answer: Any) -> dict[str, Any] | None:
    """What of the server's answer is a receipt; None for what is none."""
    if not isinstance(answer, dict) or answer.get("client_id") != asked.client_id:
        return None
    known = {name: answer[name] for name in _FIELDS[asked.way] if name in answer}
    return known if len(json.dumps(known)) <= _LONGEST else None
