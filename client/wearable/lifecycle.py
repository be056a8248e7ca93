"""Who wears it: setting up, locking, consents, and leaving."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from client import keys
from client.check_in_gates import CheckInGates, CheckInRules
from client.children import Child
from client.consent_text import ConsentText, ConsentTexts
from client.export.everything import everything
from client.export.folder import zipped
from client.kept import drop_kept, kept_clips, kept_ids
from client.keys import DeviceKey
from client.leaving import FLEET_CONSENTS, Goodbye, Leaving, Way, join, key_id
from client.new_wearer import check_new, close_wearer, new_wearer
from client.own_models import settle_own_models
from client.page import wearable_protocol as page
from client.running import Running
from client.said import Said
from client.segment_files import left_over
from client.sessions import Store, StoreRules, now
from client.told import ToldFile
from client.traffic import Traffic
from client.wearable.base import Known
from client.wearable.folders import make_plain_folder
from client.wearable.labels import LabellingWearable
from client.wearable.recordings import UnderWay
from client.wearers import FIRST_CODE, Wearers
from mcoe_model.errors import ConsentMissing, DataInvalid, DataMissing, DiskFull, McoeError, OutputExists, for_log
from mcoe_model.files import remove_torn
from mcoe_model.invitation import Invitation

T = TypeVar("T")

log = logging.getLogger("mcoe")


class LivedWearable(LabellingWearable):
    """From the first visit to the wearer's leaving."""

    def __init__(
        self,
        folder: Path,
        device: str,
        rules: StoreRules,
        texts: ConsentTexts,
        check_ins: CheckInRules = CheckInRules(),  # noqa: B008 (it is frozen)
    ) -> None:
        super().__init__(folder, device, texts)
        self._rules = rules
        self._check_in_rules = check_ins
        self._told_recording, self._told_labels = False, True  # what the fleet's part was told last
        self._key: DeviceKey | None = None
        self._wearers = Wearers(folder)
        self.leaving = Leaving(folder)
        self._left: Goodbye | None = None
        self._lost = False
        self._answering = asyncio.Lock()  # one answer about consents is written at a time
        self._joining = asyncio.Lock()  # nobody leaves a fleet, or is erased, halfway into it
        log_file = folder / "logs" / "fleet.log"
        self.fleet = Child("fleet", "client.fleet", self._fleet_arguments, log_file, greet=self._greet_fleet)

    @property
    def wearer(self) -> str | None:
        """The code of the one who wears it."""
        return self.paths.folder.name if self.paths is not None else None

    @property
    def lessons_key(self) -> bytes | None:
        return None if self._key is None else self._key.derive("lessons")

    async def set_up(self, passphrase: str | None, kinds: Sequence[str], text: ConsentText) -> str | None:
        """Make a wearer's key and store, with these consents; the recovery key, if it has a passphrase.

        Raises OutputExists, DataInvalid.
        """
        async with self._turn:
            if text.version != self.texts.version:
                raise DataInvalid(Said("consent.changed", "the consent text has changed meanwhile; read it again"))
            answered = now()
            recovery = await self._begin_wearer(FIRST_CODE, passphrase)
            await self.kept(lambda store: store.answer_consents({kind: True for kind in kinds}, text, answered))
            return recovery

    async def change_wearer(self, code: str, passphrase: str | None) -> str | None:
        """Delete the wearer that there is, and begin with another, who has not agreed to anything yet.

        Returns the recovery key. Raises DataInvalid, before anything is deleted.
        """
        check_new(code, passphrase)
        if self.store is not None:
            await self._close("withdraw")
        async with self._turn:
            return await self._begin_wearer(code, passphrase)

    async def unlock(self, words: str) -> None:
        """By passphrase or recovery key. Raises Locked, DataMissing."""
        paths = self.paths
        if paths is None:
            raise DataMissing("nobody has set this wearable up yet")
        async with self._turn:
            if self.stage == "locked":
                key = await asyncio.to_thread(keys.unlock, paths.device_key, words)
                await self._use_key(key)

    async def lock(self) -> None:
        """Forget the key; a recording is ended first. Raises DataMissing for a wearable without a passphrase."""
        if self.paths is not None and not keys.needs_passphrase(self.paths.device_key):
            raise DataMissing("this wearable has no passphrase, so it cannot be locked; see: mcoe-client wearer new")
        await self._stop_if_recording()
        self._key = None
        self.fleet.kill()
        await self.kept_locked(lambda store: store.lock())
        self._stop_seeing()

    async def consent(self, kind: str, text: ConsentText) -> None:
        """Write down that the wearer agreed. Raises DataInvalid."""
        async with self._answering:
            await self.kept_locked(lambda store: store.answer_consents({kind: True}, text))
            self._withdrawn.discard(kind)
        await self.look()
        self.keep_fleet_to_consent()

    async def join(self, invitation: Invitation) -> None:
        """Enrol in the fleet that invites, with the consents that are in force.

        Also after having left one, or when a server took this wearable for a member no longer: then with another key.
        Raises DataMissing, Locked, ConsentMissing, OutputExists for a member, and what `client.enrolment.enrol` does.
        """
        async with self._joining:
            self._require_open()
            paths, allowed = self.paths, self.known.allowed
            assert paths is not None
            if not set(FLEET_CONSENTS) <= allowed:
                raise ConsentMissing(f"the wearer has not agreed to {' and '.join(FLEET_CONSENTS)}; ask on the page")
            consents = tuple(consent for consent in self.known.consents if consent.kind in allowed)
            if ToldFile(paths.told).read().turned_away:
                await self._end_fleet()  # it works with the key that goes
            try:
                await _aside(lambda: join(self.leaving, paths, invitation, consents=consents))
            finally:
                await self._look_who_left()

    async def withdraw(self, kind: str) -> None:
        """What the consent allowed ends at once; the server will hear of the one that let it have updates.

        It ends before it is written down, since a disk may be full: then it stays ended, `keep_withdrawals` tries again
        to write it down, and the wearer hears that it could not be kept yet. Raises DataMissing, DiskFull.
        """
        self._require_store()
        had = kind in {consent.kind for consent in self.known.consents} | self._withdrawn
        self._withdrawn.add(kind)
        self.known = self.known.without(self._withdrawn)
        if kind == "capture":
            self._stop_seeing()
        if kind in ("labels", *FLEET_CONSENTS):  # without the one to labels it begins again, and has no clips
            self.fleet.kill()
        async with self._joining if kind in FLEET_CONSENTS else contextlib.nullcontext():
            self._require_store()  # another one may wear it since
            if had and kind in FLEET_CONSENTS:
                await self._leave_fleet()
            async with self._answering:
                self._withdrawn.add(kind)  # an answer that was being written may have lifted it
                await self.kept_locked(lambda store: store.withdraw(kind))
                self._withdrawn.discard(kind)

    async def keep_withdrawals(self) -> None:
        """Write down what was withdrawn while the disk was full, once there is space."""
        for kind in sorted(self._withdrawn):
            with contextlib.suppress(DiskFull):
                await self.withdraw(kind)

    async def forget(self) -> None:
        """Delete the wearer: key, store, recordings, models, and what a server keeps. Raises DataMissing."""
        await self._close("forget")

    async def _close(self, way: Way) -> None:
        if self.paths is None or self.store is None:
            raise DataMissing("there is no wearer to forget")
        await self._stop_if_recording()
        async with self._joining, self._turn:
            store, self.store, self.paths, self._key, self._left = self.store, None, None, None, None
            await self._let_go()

            def erase() -> None:
                store.close()
                close_wearer(self._wearers, way)
                for left in self.plain.iterdir():
                    left.unlink(missing_ok=True)

            await asyncio.get_running_loop().run_in_executor(self._store_thread, erase)
            self._withdrawn.clear()
            self.known = Known()  # after whatever was asked of the store before
            self._read_fit()
            self.leaving.wake()

    async def _let_go(self) -> None:
        """End what works for a wearer who leaves. The store is let go of already, so that nothing begins again."""
        self._stop_seeing()
        self.fleet.kill()

    async def export(self) -> AsyncIterator[bytes]:
        """Everything about the wearer as a ZIP that is written to no disk here. Raises Locked, DataMissing.

        Portion by portion, so that recordings are sealed in between.
        """
        self._require_open()
        paths, key = self.paths, self._key
        assert paths is not None and key is not None
        portions = await self.kept(lambda store: zipped(everything(store, key, paths, self.folder)))
        while portion := await self.kept(lambda store: next(portions, b"")):
            yield portion

    async def keep_model(self) -> None:
        """Go on with the model that ran before. Raises DecisionNeeded."""
        await asyncio.to_thread(self._running().keep)
        self.recognise.follow()

    async def take_model(self) -> None:
        """Run the newer model. Raises DecisionNeeded."""
        await asyncio.to_thread(self._running().take)
        self.recognise.follow()

    async def open(self) -> None:
        """The store of whoever wears it, with its key if that needs no passphrase. Raises SchemaTooNew, DataInvalid."""
        make_plain_folder(self.folder)
        self.capture.clear()
        if self._wearers.current is None:
            return
        self.paths = self._wearers.paths
        await asyncio.to_thread(remove_torn, self.paths.folder)
        locked = keys.needs_passphrase(self.paths.device_key)
        await self._open(None if locked else keys.read_keyfile(self.paths.device_key))

    async def _begin_wearer(self, code: str, passphrase: str | None) -> str | None:
        if self.store is not None:
            raise OutputExists("this wearable has a wearer; first: mcoe-client forget")
        key, recovery = await asyncio.to_thread(new_wearer, self._wearers, code, passphrase)
        self.paths = self._wearers.paths
        await self._open(key)
        return recovery

    async def _open(self, key: DeviceKey | None) -> None:
        assert self.paths is not None
        paths, loop = self.paths, asyncio.get_running_loop()
        self.store = await loop.run_in_executor(self._store_thread, Store, paths.store, paths.recordings, self._rules)
        self._read_fit()
        await self._look_who_left()
        if self._left is not None:
            await asyncio.to_thread(drop_kept, paths.outbox)  # a process that died may not have come to it
        if key is None:
            await self.kept_locked(self._recover_locked)
        else:
            await self._use_key(key)

    async def _use_key(self, key: DeviceKey) -> None:
        """Unlock, and put in order what a process that was killed has left, before anything else is recorded."""
        self._key, self._in_order = key, False
        await self._settle_models(key)
        try:
            await self.kept_locked(lambda store: store.unlock(key))
            waiting = await self.salvage()
            await self.kept(lambda store: store.recover(self.plain, waiting))
        except DiskFull as fault:  # the wearer must come in to delete something
            log.warning("what was left in memory is put in order at the next start: %s", for_log(fault))
        finally:
            self._in_order = True

    async def _settle_models(self, key: DeviceKey) -> None:
        """`settle_own_models`, while nobody can learn or recognise yet."""
        assert self.paths is not None
        try:
            await asyncio.to_thread(settle_own_models, self.paths, key.derive("lessons"))
        except DiskFull as fault:
            log.warning("what was learned here lies plain until the next start: %s", for_log(fault))

    def _recover_locked(self, store: Store) -> None:
        """What needs no key; what was left in memory waits for it."""
        left = left_over(self.plain) if store.allowed("capture") else []
        store.recover(self.plain, {session for session, *_ in left})

    def _stop_seeing(self) -> None:
        """End the processes that have pictures in memory, and forget what they said and what was tried out."""
        self._try_outs_deleted += 1
        self._tried_out = None
        self.capture.child.kill()
        self.recognise.child.kill()
        self.recognise.forget()

    async def _leave_fleet(self) -> None:
        """Let the server be told, before anything else: then nothing is sent, whenever this process dies."""
        paths = self.paths
        assert paths is not None
        await asyncio.to_thread(self.leaving.queue, paths, "withdraw")
        await self._look_who_left()
        await self._end_fleet()  # it could put another update there
        await asyncio.to_thread(drop_kept, paths.outbox)

    async def _end_fleet(self) -> None:
        """Returns when the fleet's part has ended. While somebody joins or leaves it does not begin again."""
        self.fleet.kill()
        while self.fleet.pid is not None:
            await asyncio.sleep(0.01)

    async def _look_who_left(self) -> None:
        """Whether the wearer has left the fleet, and what the server said to it, or that this wearable is lost."""
        paths = self.paths

        def look() -> tuple[Goodbye | None, bool]:
            if paths is None:
                return None, False
            return self.leaving.of(key_id(paths)), ToldFile(paths.told).read().lost

        self._left, self._lost = await asyncio.to_thread(look)

    async def look_whether_lost(self) -> None:
        """`_look_who_left`; when the server has said meanwhile that this is lost, lock. It deletes nothing."""
        before = self._lost
        await self._look_who_left()
        if before or not self._lost:
            return
        log.warning("the server says that this wearable was reported lost: nothing is sent any more")
        self.fleet.kill()
        with contextlib.suppress(DataMissing):  # without a passphrase there is nothing to lock
            await self.lock()

    def _fleet_arguments(self) -> list[str] | None:
        """The fleet's part runs for a member who has agreed to learning and to sending updates."""
        agreed = self.stage == "open" and self._key is not None and set(FLEET_CONSENTS) <= self.known.allowed
        if not agreed or self._joining.locked() or not self._is_member() or self.paths is None:
            return None
        return [str(self.paths.folder), str(self.folder)]

    def _is_member(self) -> bool:
        """Whether there is a fleet that the wearer has joined, has not left, and was not reported lost to."""
        joined = self.paths is not None and self.paths.membership.exists()
        return joined and self._left is None and not self._lost

    def keep_fleet_to_consent(self) -> None:
        """End the fleet's part if it may no longer run, or was told of labels what does not hold; it begins again."""
        allowed = self.known.allowed
        if not set(FLEET_CONSENTS) <= allowed or self._told_labels != ("labels" in allowed):
            self.fleet.kill()

    def _greet_fleet(self) -> dict[str, Any]:
        """Its keys: the device key may need a passphrase, which this process has heard. And whether labels count."""
        assert self._key is not None  # else it would not be started
        self._told_recording, self._told_labels = self.under_way is not None, "labels" in self.known.allowed
        keys = {purpose: self._key.derive(purpose).hex() for purpose in ("outbox", "lessons")}
        return keys | {"labels": self._told_labels, "recording": self._told_recording}

    async def _begin(self) -> UnderWay:
        under_way = await super()._begin()
        self.tell_fleet()
        return under_way

    def tell_fleet(self) -> None:
        """Let the fleet's part know whether a recording runs: its task stands still, and it checks in afterwards."""
        runs = self.under_way is not None
        if runs != self._told_recording and self.fleet.say({"recording": runs}):
            self._told_recording = runs

    def check_ins(self) -> page.CheckIns | None:
        """What waits for the next check-in, and why it is not now; None for who belongs to no fleet."""
        paths = self.paths
        if paths is None or not self._is_member():
            return None
        gates = CheckInGates(self._check_in_rules, Traffic(paths.traffic), lambda: self.under_way is not None)
        told = ToldFile(paths.told).read()
        at = datetime.datetime.fromtimestamp(told.next_check_in, datetime.UTC)
        due = at if at.timestamp() > time.time() else None
        clips = kept_clips(paths.lessons) if "labels" in self.known.allowed else 0
        waiting = len(kept_ids(paths.outbox)), clips
        return page.CheckIns(*waiting, gates.closed(), due, told.turned_away)

    async def _stop_if_recording(self) -> None:
        if self.under_way is not None:
            with contextlib.suppress(McoeError):
                await self.stop_recording()

    def _running(self) -> Running:
        if self.paths is None:
            raise DataMissing("nobody has set this wearable up yet")
        return Running(self.paths.running)


async def _aside(do: Callable[[], T]) -> T:
    """What ``do`` returns, from a thread that may wait for a network: the end of this process does not wait for it."""
    done: Future[T] = Future()

    def work() -> None:
        try:
            done.set_result(do())
        except BaseException as fault:
            done.set_exception(fault)

    threading.Thread(target=work, name="joining", daemon=True).start()
    return await asyncio.wrap_future(done)
