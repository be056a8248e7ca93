"""The wearable: what its page and its commands use. One object in the main process's event loop.

It imports neither torch nor dv-processing; cameras, recognition and replay are processes beside it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from client.check_in_gates import CheckInRules
from client.children import Child
from client.clock_state import clock_state
from client.consent_text import ConsentTexts
from client.health import keep_tally
from client.page import wearable_protocol as page
from client.page.fit_checks import fit_checks
from client.running import Running
from client.sessions import StoreRules
from client.wearable.learning import LearningWearable
from mcoe_model.data.geometry import Geometry
from mcoe_model.errors import McoeError, RecordingRuns, for_log

#: Seconds between two looks at the picture, and at what changes by itself: the disk, questions that expire.
LOOK_S = 1.0
#: Seconds between two looks for recordings whose time is up.
RETENTION_S = 600.0
#: Seconds between two looks at what the fleet's process cannot see.
TALLY_S = 60.0
#: Seconds between two states that are shown.
_CHANGE_S = 0.1

log = logging.getLogger("mcoe")


class Wearable(LearningWearable):
    """See the module. `run` keeps it going; everything else may be called meanwhile."""

    def __init__(
        self,
        folder: Path,
        device: str,
        rules: StoreRules,
        texts: ConsentTexts,
        check_ins: CheckInRules = CheckInRules(),  # noqa: B008 (it is frozen)
    ) -> None:
        super().__init__(folder, device, rules, texts, check_ins)
        self._checks: tuple[page.Check, ...] = ()
        self._model: page.ModelChoice | None = None
        self._check_ins: page.CheckIns | None = None
        self._stopping = asyncio.Event()

    @property
    def children(self) -> tuple[Child, ...]:
        """The processes beside this one."""
        return self.capture.child, self.recognise.child, self.fleet

    async def run(self, stopping: asyncio.Event) -> None:
        """Until ``stopping`` is set; then everything is ended, and kept, within ten seconds. Call `open` before."""
        own = (self.seal(), self._look_often(), self._keep_to_retention(), self._keep_tally(), self.keep_learning())
        work = [*own, *(child.run() for child in self.children)]
        tasks = [asyncio.create_task(one) for one in work]
        self.leaving.start()
        stopped = asyncio.create_task(stopping.wait())
        try:
            done, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()  # it ended although nothing told it to
        finally:
            self._stopping.set()
            self.stop_learning()
            self.leaving.stop()
            await asyncio.gather(self.end_capture(), self.recognise.child.end(), self.fleet.end())
            for task in (*tasks, stopped):
                task.cancel()
            await asyncio.gather(*tasks, stopped, return_exceptions=True)
            if self.store is not None:
                await asyncio.get_running_loop().run_in_executor(self._store_thread, self.store.close)
            self._store_thread.shutdown()

    async def status(self) -> page.Status:
        """What is known now; nothing is waited for."""
        disk, known = self.disk(), self.known
        return page.Status(
            stage=self.stage,
            wearer=self.wearer,
            camera=self.capture.camera,
            recording=self.recording(),
            refusal=self._refusal(),
            live=self.recognise.live,
            model=self._model,
            checks=self._checks,
            consents=known.consents,
            geometry=self.geometry,
            fitted=self.fitted,
            prompts=known.prompts,
            disk=disk,
            clock_set=clock_state() != "unsynchronised",
            enrolled=self._is_member(),
            remembered_s=self.capture.rate.remembered_s,
            learning=self.learning,
            no_room=known.no_room_says,
            why_no_camera=self.capture.why_lost,
            why_not_live=self.recognise.why_not,
            dropped=self.capture.rate.dropped,
            left=self._left,
            lost=self._lost,
            check_ins=self._check_ins,
        )

    async def changes(self) -> AsyncIterator[page.Status]:
        """The status at once, then whenever it has changed, at most ten times a second, until the wearable stops."""
        shown: page.Status | None = None
        while not self._stopping.is_set():
            status = await self.status()
            if status != shown:
                yield status
                shown = status
            await asyncio.sleep(_CHANGE_S)

    async def preview(self) -> page.Preview | None:
        """The newest picture of the whole sensor. Raises ConsentMissing."""
        self._require_sight()
        return self.capture.preview()

    async def fit(self, geometry: Geometry) -> None:
        """Use and keep this geometry. Raises RecordingRuns."""
        async with self._turn:
            if self.under_way is not None:
                raise RecordingRuns("the fit stays as it is while a recording runs; stop it first")
            await self.kept(lambda store: self._write_fit(geometry))
            self.capture.fit(geometry)

    def _refusal(self) -> page.Refusal | None:
        camera = self.capture.camera
        if "capture" not in self.known.allowed:
            return "no-consent"
        if self.under_way is not None:
            return "recording"
        if camera is None or not camera.seen:
            return "no-camera"
        return self.known.no_room

    def _model_choice(self) -> page.ModelChoice | None:
        if self.paths is None:
            return None
        state = Running(self.paths.running).read()
        if not state.runs:
            return None
        worse = bool(state.newer) and (state.refused, state.refusal) == (state.newer, "worse")
        before = None if state.newer else state.before[:12] or None
        trial = state.trial.in_words() if state.trial is not None else None
        newer = state.newer[:12] or None
        return page.ModelChoice(state.runs[:12], newer, before, worse, trial, state.own_damaged)

    async def _look_often(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
                await self.look_whether_lost()
                await self.keep_withdrawals()
                await self._keep_to_consent()
                self._checks = await self._checked()
                self._model = await asyncio.to_thread(self._model_choice)
                self._check_ins = await asyncio.to_thread(self.check_ins)
                self.tell_fleet()
                self.recognise.follow()  # the fleet's part, or an import, may have changed it
            except (McoeError, SQLAlchemyError) as fault:
                log.warning("the wearable cannot be looked at: %s", for_log(fault))

    async def _keep_to_consent(self) -> None:
        """When the text has changed, nothing is seen or sent until the wearer has agreed to the new one."""
        self.keep_fleet_to_consent()
        if self.store is None or "capture" in self.known.allowed:
            return
        await self._stop_if_recording()
        if self.capture.child.pid is not None or self.recognise.child.pid is not None:
            self._stop_seeing()

    async def _checked(self) -> tuple[page.Check, ...]:
        """What is wrong with the picture now; nothing while there is no camera."""
        if self.capture.camera is None or not self.capture.camera.seen:
            return ()
        seen = self.capture.preview()  # not in a thread: the ring may be closed in this loop at any moment
        if seen is None:
            return ("no-frames",)
        return await asyncio.to_thread(fit_checks, seen.frame, seen.event, self.geometry)

    async def _keep_to_retention(self) -> None:
        """Delete recordings whose time is up, now and then; there may be space then for what found none."""
        while True:
            try:
                if self.stage != "new":
                    await self.kept_locked(lambda store: store.delete_due())
                    await self.salvage_what_waits()
            except (McoeError, SQLAlchemyError) as fault:
                log.warning("recordings whose time is up could not be deleted: %s", for_log(fault))
            await asyncio.sleep(RETENTION_S)

    async def _keep_tally(self) -> None:
        """Write down now and then what only this process can tell of the wearable's health."""
        while True:
            try:
                if self.stage == "open" and self.paths is not None:
                    camera = self.capture.camera
                    seen = None if camera is None else camera.seen
                    await self.kept(partial(keep_tally, self.paths, seen, self._last_failure()))
            except (McoeError, SQLAlchemyError, OSError) as fault:
                log.warning("the wearable's health is not written down: %s", for_log(fault))
            await asyncio.sleep(TALLY_S)

    def _last_failure(self) -> int:
        """The code of the process beside this one that failed last, as a shell says it; 0 for none."""
        failures = (self.learner_failed, *(child.failed for child in self.children))
        _, code = max((failed for failed in failures if failed is not None), default=(0.0, 0))
        return 128 - code if code < 0 else code
