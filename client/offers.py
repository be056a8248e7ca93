"""What becomes of a model that the server offers: fetched, checked, tried on the wearer's clips, then run or refused.

All of it happens in a thread beside the executor, so that no message waits for it, and is begun again when the process
is killed in it, since the server repeats its offer at every check-in. Released or canary, it runs when it is whole and
not worse on the wearer's clips (`client.serving`).

A released model of another generation that this program can build becomes the one that the executor works with, whether
it runs or not. Clips of a folder are here as pictures, and each is encoded anew when it is learned next; those that
were recorded here are the main process's matter (`client.wearable.learning`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from client.enrolment import ClientPaths, download_model, read_membership
from client.own_models import PLAIN, fleet_model, is_own, model_path
from client.running import Running
from client.serving import has_folder, try_beside
from mcoe_model.errors import DataInvalid, DataMissing, ModelInvalid, for_log
from mcoe_model.learning.weights import can_build, can_recognise
from mcoe_model.model_file import file_sha256, read_card, read_model
from mcoe_model.protocol import Offer, Refusal

log = logging.getLogger("mcoe")


class Offers:
    """Considers the newest offer. ``resident`` is the file of the model whose generation the executor works with.

    ``lessons_key`` opens the clips that models are tried on, where they are not those of a folder. ``recording`` is
    whether a recording runs: a trial stands still meanwhile. Without the consent to ``labels`` nothing is tried.
    """

    def __init__(
        self,
        paths: ClientPaths,
        running: Running,
        resident: Path,
        lessons_key: bytes | None = None,
        recording: Callable[[], bool] = lambda: False,
        *,
        labels: bool = True,
    ) -> None:
        self.running = running
        self._labels = labels
        self._recording = recording
        self._lessons_key = lessons_key
        self._paths = paths
        self.resident = resident
        running.work_with(resident.stem)
        self._newest: Offer | None = None
        self._changed = threading.Condition()
        self._considering = threading.Lock()

    @property
    def runs(self) -> str:
        """The fleet's model that runs, or that the one which runs was learned from; empty for none."""
        runs = self.running.read().runs
        try:
            return fleet_model(model_path(self._paths.models, runs)) if runs else ""
        except (DataMissing, DataInvalid, ModelInvalid):
            return runs

    def hear(self, offer: Offer) -> None:
        """Take an offer, in place of one that is not being considered yet. Never waits."""
        with self._changed:
            self._newest = offer
            self._changed.notify()

    def start(self) -> None:
        """Consider what is heard, in a thread that ends with the process."""
        threading.Thread(target=self._run, name="offers", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None)
                offer, self._newest = self._newest, None
            assert offer is not None
            try:
                self.consider(offer)
            except Exception as fault:  # the next check-in brings the offer again
                log.warning("model %s cannot be tried now: %s", offer.sha256[:12], for_log(fault))

    def consider(self, offer: Offer) -> None:
        """Run or refuse an offered model.

        Raises ServerUnreachable, EnrolmentRefused, DiskFull, McoeError when that cannot be decided now.
        """
        with self._considering:  # a train task may bring an offer of its own
            self._consider(offer)

    def _consider(self, offer: Offer) -> None:
        state = self.running.read()
        path = self._paths.models / f"{offer.sha256}.safetensors"
        if offer.sha256 in (state.runs, state.newer, self.runs):
            if not offer.canary and path.exists():
                self._work_with(path)
            return
        # A later program may build what this one cannot.
        if state.refused == offer.sha256 and (offer.canary or state.refusal != "other generation"):
            return
        refusal = self._why_not(offer)
        if refusal:
            if (state.refused, state.refusal) != (offer.sha256, refusal):
                self.running.refuse(offer.sha256, refusal)
                log.warning("model %s is refused: %s", offer.sha256[:12], refusal)
            return
        served = self._served(state.runs)
        found = None
        if served and self._labels:
            found = try_beside(self._paths, path, served, self._lessons_key, self._recording)
        if not offer.canary:
            self._work_with(path)
        if found and found.verdict == "worse":
            self.running.refuse(offer.sha256, "worse", found)
            log.warning("model %s is refused: worse on the clips here", offer.sha256[:12])
        else:
            self.running.adopt(offer.sha256, found)
            log.info("model %s runs from now on", offer.sha256[:12])
        self._forget_others()

    def _served(self, runs: str) -> Path | None:
        """The file of the model that runs; None where there is none to compare with. Raises as `_fetch`."""
        path = model_path(self._paths.models, runs)
        if is_own(path):
            return path
        return self._fetch(runs) if path.is_file() else None

    def _forget_others(self) -> None:
        """Remove the fleet's models that nobody needs: none of those that can run, or stand in for one that can."""
        models, wanted = self._paths.models, set(self.running.read().wanted)
        for path in [model_path(models, sha256) for sha256 in wanted]:
            with suppress(DataMissing, DataInvalid, ModelInvalid):
                wanted.add(fleet_model(path))
        for given_up in models.glob("*.partial"):  # none is on its way now
            given_up.unlink()
        for other in models.glob(f"*{PLAIN}"):
            if other.stem not in wanted:
                other.unlink()

    def _work_with(self, released: Path) -> None:
        """A released model's generation is the one that tasks are of, whichever model runs."""
        generation = read_card(released).generation
        if generation != read_card(self.resident).generation:
            self.resident = released
            self.running.work_with(released.stem)
            log.info("generation %s (%s) begins: clips whose pictures are here are encoded anew",
                     generation.id, generation.preset)  # fmt: skip

    def _why_not(self, offer: Offer) -> Refusal | None:
        """What of the model itself forbids it."""
        path = self._fetch(offer.sha256)
        try:
            tensors, card = read_model(path)
        except ModelInvalid:
            return "damaged"
        same = card.generation == read_card(self.resident).generation
        of_use = can_build if has_folder(self._paths) else can_recognise
        if not same and (offer.canary or not of_use(card.generation)):
            return "other generation"
        return None if all(np.isfinite(value).all() for value in tensors.values()) else "not finite"

    def _fetch(self, sha256: str) -> Path:
        """The file of a model. Raises DataInvalid when its bytes are damaged here, which says nothing of the model."""
        address = read_membership(self._paths).address
        path = download_model(self._paths, address, sha256)
        if file_sha256(path) != sha256:  # what lay here was; what is downloaded is checked
            path.unlink()
            path = download_model(self._paths, address, sha256)
        return path
