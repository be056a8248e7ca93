"""What every part of the wearable shares: its wearer's store in a thread of its own, and what is known of it."""

from __future__ import annotations

import asyncio
import logging
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from client.capture_link import CaptureLink
from client.consent_text import ConsentTexts
from client.enrolment import ClientPaths
from client.page.wearable_protocol import Disk, Refusal, Stage
from client.recognise_link import RecogniseLink
from client.said import said_by
from client.serving import served_model
from client.sessions import Store
from client.wearable.folders import plain_folder
from client.wearable.views import utc
from mcoe_model.consent import Consent
from mcoe_model.data.geometry import Geometry
from mcoe_model.errors import ConsentMissing, DataMissing, DiskFull, LabelFirst, Locked, McoeError
from mcoe_model.files import read_json, write_json

T = TypeVar("T")

#: What the page calls the store's refusals.
_REFUSALS: dict[type[McoeError], Refusal] = {DiskFull: "disk-full", LabelFirst: "label-first"}

log = logging.getLogger("mcoe")


@dataclass(frozen=True)
class Known:
    """What the store said last; so that nobody waits for a disk to be shown the status.

    ``consents``: what the wearer agreed to and has not withdrawn; ``allowed``: those of the text of today.
    """

    consents: tuple[Consent, ...] = ()
    allowed: frozenset[str] = frozenset()
    prompts: int = 0
    used_bytes: int = 0
    no_room: Refusal | None = None
    no_room_says: str = ""

    def without(self, kinds: AbstractSet[str]) -> Known:
        """The same for a wearer who has taken these consents back."""
        consents = tuple(consent for consent in self.consents if consent.kind not in kinds)
        return replace(self, consents=consents, allowed=self.allowed - kinds)


class WearableBase(ABC):
    """One wearer's data, and the processes beside this one. The store is used in one thread, this class in the loop."""

    def __init__(self, folder: Path, device: str, texts: ConsentTexts) -> None:
        self.folder = folder
        self.texts = texts
        self.paths: ClientPaths | None = None
        self.store: Store | None = None
        self.known = Known()
        self._withdrawn = set[str]()  # consents taken back that no disk has written down yet
        self._in_order = True
        self.geometry = Geometry()
        self.fitted = False
        logs = folder / "logs"
        self.plain = plain_folder(folder)
        self.capture = CaptureLink(
            device, self.plain, self._camera_wanted, self._heard, self._capture_gone, logs / "capture.log"
        )
        self.recognise = RecogniseLink(
            lambda: self.capture.pairs_ring, self._served, logs / "recognise.log", lambda: self.lessons_key
        )
        self._store_thread = ThreadPoolExecutor(1, "store")

    @property
    def stage(self) -> Stage:
        """Whether there is a wearer, and whether the key is here."""
        if self.store is None:
            return "new"
        return "locked" if self.store.locked else "open"

    @property
    @abstractmethod
    def lessons_key(self) -> bytes | None:
        """What the lesson book and the wearer's own models are sealed with; None while the key is not here."""

    async def kept(self, do: Callable[[Store], T]) -> T:
        """What ``do`` does with the store, in its thread. Raises DataMissing while there is no wearer, Locked."""
        self._require_open()
        return await self.kept_locked(do)

    async def kept_locked(self, do: Callable[[Store], T]) -> T:
        """The same for what needs no key."""
        store = self._require_store()

        def work() -> tuple[T, Known]:
            store.rules = replace(store.rules, consent_version=self.texts.version)
            store.withdrawn = frozenset(self._withdrawn)
            return do(store), self._look(store)

        result, known = await asyncio.get_running_loop().run_in_executor(self._store_thread, work)
        self.known = known.without(self._withdrawn)
        return result

    async def look(self) -> None:
        """Ask the store anew what there is."""
        if self.store is not None:
            await self.kept_locked(lambda store: None)

    def disk(self) -> Disk:
        """What is free now, and what this wearer's recordings take and may take."""
        quota = self.store.rules.retention.quota_bytes if self.store is not None else 0
        there = next(place for place in (self.folder, *self.folder.absolute().parents) if place.exists())
        return Disk(shutil.disk_usage(there).free, self.known.used_bytes, quota)

    def _look(self, store: Store) -> Known:
        """In the store's thread."""
        no_room = store.refuses_to_record(self.disk().free)
        prompts = 0 if store.locked else len(store.waiting_prompts())
        refusal = None if no_room is None else _REFUSALS[type(no_room)]
        given = {kind: answer for kind, answer in store.consents().items() if answer.given}
        consents = tuple(Consent(kind, answer.version, utc(answer.utc_us)) for kind, answer in given.items())
        allowed = frozenset(kind for kind, answer in given.items() if answer.allows)
        return Known(consents, allowed, prompts, store.used_bytes(), refusal, said_by(no_room) if no_room else "")

    def _require_store(self) -> Store:
        """Raises DataMissing."""
        if self.store is None:
            raise DataMissing("nobody has set this wearable up; do it on its page, or: mcoe-client wearer new CODE")
        return self.store

    def _require_open(self) -> None:
        """Raises DataMissing, Locked."""
        if self._require_store().locked:
            raise Locked("the wearable is locked; unlock it with its passphrase or its recovery key")

    def _require_sight(self) -> None:
        """Raises DataMissing, Locked, ConsentMissing."""
        self._require_open()
        if "capture" not in self.known.allowed:
            raise ConsentMissing("the wearer has not agreed to capture; ask on the page")

    def _camera_wanted(self) -> Geometry | None:
        """The geometry while capture may run: with consent, unlocked, and with what was left before put in order."""
        may = self.stage == "open" and self._in_order and "capture" in self.known.allowed
        return self.geometry if may else None

    def _served(self) -> Path | None:
        return None if self.paths is None else served_model(self.paths, unlocked=self.lessons_key is not None)

    @abstractmethod
    def _heard(self, event: dict[str, Any]) -> None:
        """An event of capture that concerns sessions."""

    @abstractmethod
    def _capture_gone(self) -> None:
        """The capture process has ended."""

    def _read_fit(self) -> None:
        """The geometry that was fitted for this wearer, else the middle of the sensor."""
        self.geometry, self.fitted = Geometry(), False
        try:
            if self.paths is not None:
                self.geometry, self.fitted = Geometry(**read_json(self.paths.folder / "fit.json")), True
        except FileNotFoundError:
            return

    def _write_fit(self, geometry: Geometry) -> None:
        assert self.paths is not None
        write_json(self.paths.folder / "fit.json", {name: getattr(geometry, name) for name in _GEOMETRY})
        self.geometry, self.fitted = geometry, True


_GEOMETRY = tuple(Geometry.__dataclass_fields__)
