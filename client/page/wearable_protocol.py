"""What the page asks of the wearable: `client.wearable.Wearable` is this, and the page knows nothing else of it.

Times within a session are microseconds since its start. ``once`` is a form's own key: what comes twice with the same
one, even after a restart, is done once. Every method but `status`, `changes`, `set_up` and `unlock`
raises Locked while the wearable is locked; all refuse with an McoeError of one line. An error's class is what the page
translates, and its text where that is a `Said`: each reason that a wearer can do something about needs either.

The page is served by `client.page.serve.serve_page(wearable, PageSettings(...), stopping)` in the same event loop.
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from client.consent_text import ConsentText
from client.leaving import Goodbye
from client.said import Said
from mcoe_model.consent import Consent
from mcoe_model.data.events import Pair
from mcoe_model.data.geometry import Geometry
from mcoe_model.invitation import Invitation

#: ``new``: nobody has set it up; ``locked``: it waits for the passphrase; ``open``: it can be used.
Stage = Literal["new", "locked", "open"]
#: What the fit step finds, in this order of urgency; nothing is found when the picture is fit.
Check = Literal["no-frames", "no-events", "too-dark", "too-bright", "eye-outside"]
#: Why a recording would not start now.
Refusal = Literal["no-consent", "no-camera", "disk-full", "label-first", "recording"]
#: What a wearer can say of a span beside the seven emotions.
OTHER, SKIP = "other", "skip"


@dataclass(frozen=True)
class Camera:
    """``seen`` is false while it is unplugged; ``usb3`` None where that means nothing."""

    model: str
    seen: bool
    usb3: bool | None


@dataclass(frozen=True)
class Recording:
    """The session under way."""

    session: str
    since: datetime.datetime


@dataclass(frozen=True)
class Live:
    """The newest recognition. ``probabilities`` in the order of EMOTIONS; ``skipped``: windows since the start."""

    emotion: str
    probabilities: tuple[float, ...]
    latency_ms: float
    fps: float
    skipped: int

    @property
    def confidence(self) -> float:
        return max(self.probabilities)


@dataclass(frozen=True)
class ModelChoice:
    """Which model runs, and to which others the wearer can change; models by the start of their SHA-256.

    ``newer``: one that waits for the wearer's word, because it is ``worse`` on the wearer's own clips or because the
    wearer went back to the one before it. ``before``: the one that ran before, to which the wearer can go back; None
    while a newer one waits. ``trial``: what the last comparison found. ``own_damaged``: one that was learned here is
    gone, since its file was damaged.
    """

    running: str
    newer: str | None
    before: str | None
    worse: bool
    trial: Said | None = None
    own_damaged: bool = False


@dataclass(frozen=True)
class Disk:
    """Bytes: free on the disk, used by this wearer's recordings, and how many these may use."""

    free: int
    used: int
    quota: int


#: Whether labelled spans are learned now: there are none, they wait, they are, or that stands still for a while.
LearningState = Literal["nothing", "waiting", "learning", "paused"]


@dataclass(frozen=True)
class LastLesson:
    """What was learned last: ``outcome`` is a word, such as learned; of ``clips`` held-out ones so many are recognised.

    ``before`` by the model that it began from, ``after`` by the one that was learned.
    """

    at: datetime.datetime
    spans: int
    outcome: str
    clips: int
    before: int
    after: int


@dataclass(frozen=True)
class Learning:
    """Of the wearer's labels: how many ``waiting`` spans there are, and why they wait (``closed``).

    ``held_out``: how many are never learned from, since models are compared on them.
    ``lost``: how many were learned by models of an earlier generation alone, and have no pictures to be learned anew.
    ``contradicted`` and ``flawed``: how many are left out, as `client.sessions.lessons.Lessons` has them.
    """

    state: LearningState = "nothing"
    waiting: int = 0
    closed: tuple[Said, ...] = ()
    last: LastLesson | None = None
    lost: int = 0
    contradicted: int = 0
    flawed: int = 0
    held_out: int = 0


@dataclass(frozen=True)
class CheckIns:
    """Of the wearer's part in a fleet: what waits to be sent, and when.

    ``updates`` wait for the server's word, ``clips`` for a round. ``closed``: why not now, by the gates here; ``due``:
    when the server wants to hear of it again, None where it said nothing or it is time. ``turned_away``: why the server
    does not take it for a member any more, in the server's words; it can join anew.
    """

    updates: int
    clips: int
    closed: tuple[Said, ...] = ()
    due: datetime.datetime | None = None
    turned_away: str = ""


@dataclass(frozen=True)
class Status:
    """What the page shows of the wearable at any time; compared by value, sent when it changes.

    ``wearer`` is its code, None while new. ``consents``: those in force, whatever the version of their text.
    ``prompts``: how many questions wait. ``enrolled``: whether it belongs to a fleet. ``why_no_camera``: what its
    process says, a `Said` where that can be; ``why_not_live``: the same of recognition, for terminals, in English.
    ``dropped``: events, frames and samples that were left out because they cannot be right. ``no_room``: what would
    have to go before anything can be recorded, a `Said`. ``left``: that this wearer has left the fleet, and what the
    server said to it. ``lost``: the server said that this wearable was reported lost; it takes no part in the fleet
    until it joins anew. ``check_ins``: None for who belongs to no fleet.
    """

    stage: Stage
    wearer: str | None
    camera: Camera | None
    recording: Recording | None
    refusal: Refusal | None
    live: Live | None
    model: ModelChoice | None
    checks: tuple[Check, ...]
    consents: tuple[Consent, ...]
    geometry: Geometry
    fitted: bool
    prompts: int
    disk: Disk
    clock_set: bool
    enrolled: bool
    remembered_s: float
    why_no_camera: str = ""
    why_not_live: str = ""
    dropped: int = 0
    no_room: str = ""
    learning: Learning = Learning()
    left: Goodbye | None = None
    lost: bool = False
    check_ins: CheckIns | None = None


@dataclass(frozen=True)
class Preview:
    """The whole sensor as the fit step shows it: ``frame`` and ``event`` (H, W). ``number`` grows with each."""

    number: int
    frame: NDArray[np.uint8]
    event: NDArray[np.uint8]


@dataclass(frozen=True)
class TryOut:
    """What ten seconds gave. The pictures are in memory only."""

    pairs: tuple[Pair, ...]
    events: int
    frames: int


Change = Literal["everything", "next learning", "history"]


@dataclass(frozen=True)
class Span:
    """A part of a session and what its wearer says of it: an emotion, OTHER, SKIP or, not asked yet, None.

    ``predicted``: what the model saw most in it, None where it did not run. ``versions``: how often it was labelled;
    ``change``: what a label that changes now still reaches: everything, what is learned from then on, or the history
    alone, since the pictures are gone.
    """

    id: int
    start_us: int
    end_us: int
    label: str | None
    intensity: int | None
    predicted: str | None
    versions: int
    change: Change


@dataclass(frozen=True)
class Session:
    """A recording. ``raw_until``: when its pictures are deleted at the latest; ``raw_deleted``: they are gone."""

    id: str
    started: datetime.datetime
    seconds: float
    state: Literal["recording", "whole", "partial"]
    bytes: int
    raw_until: datetime.datetime | None
    raw_deleted: bool
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Prompt:
    """A question that waits: what was this span?"""

    id: int
    session: str
    span: int
    asked: datetime.datetime
    expires: datetime.datetime


class Wearable(Protocol):
    """The wearable as the page sees it."""

    async def status(self) -> Status: ...

    def changes(self) -> AsyncIterator[Status]:
        """The status at once, then whenever it has changed, at most ten times a second, until the wearable stops."""

    # First visit

    async def set_up(self, passphrase: str | None, kinds: Sequence[str], text: ConsentText) -> str | None:
        """Make the wearer's key and store and write down these consents: one step, before which nothing is stored.

        Returns the recovery key to be shown once; None without a passphrase (``keyfile``). Raises OutputExists.
        """

    async def unlock(self, words: str) -> None:
        """By passphrase or recovery key. Raises Locked."""

    async def lock(self) -> None: ...

    async def preview(self) -> Preview | None:
        """The newest picture of the whole sensor; None without a camera. Raises without consent to capture."""

    async def fit(self, geometry: Geometry) -> None:
        """Use and keep this geometry. Refused while recording."""

    async def try_out(self) -> TryOut:
        """Ten seconds of pictures, which are written nowhere, and kept for `tried_out` until they are deleted."""

    async def tried_out(self) -> TryOut:
        """The last try-out. It is gone once it was deleted, after two minutes, and with consent, key or wearer."""

    async def delete_try_out(self) -> None:
        """Forget its pictures."""

    # Every day

    async def start_recording(self) -> str:
        """The session's id."""

    async def stop_recording(self) -> str:
        """The id of the session that ended; returns when it can be replayed. It has a span if it is short enough."""

    async def save_last(self, seconds: float = 15.0) -> str:
        """What the camera saw in the last seconds, as a session with one span; its id."""

    async def discard(self, session: str) -> None:
        """Delete a session, its pictures and its labels for good. Raises DataMissing."""

    async def preview_span(self, session: str, from_us: int, to_us: int) -> list[Pair]:
        """The pictures of a part of a session (30 s at most). Raises DataMissing once they are deleted."""

    async def add_span(self, session: str, start_us: int, end_us: int, once: str = "") -> int:
        """A further part of a session to be labelled, 0.5 to 30 s; its id."""

    async def label(self, span: int, label: str, intensity: int | None, once: str = "") -> Span:
        """One of EMOTIONS, OTHER or SKIP; ``intensity`` 1 to 5. A new version; the ones before are kept."""

    async def undo(self, span: int, once: str = "") -> Span:
        """Back to what the span was called before the last version; without any, to no label."""

    async def trim(self, span: int, start_us: int, end_us: int, once: str = "") -> Span:
        """Other bounds, 0.5 to 30 s within the session."""

    async def discard_span(self, span: int) -> None:
        """Delete a span with all that was said of it; the recording stays. Raises DataMissing."""

    async def history(self) -> list[Session]:
        """All sessions, newest first."""

    async def session(self, session: str) -> Session:
        """Raises DataMissing."""

    async def keep_more(self, session: str) -> None:
        """Keep its pictures 14 days longer."""

    async def prompts(self) -> list[Prompt]:
        """The questions that wait, oldest first. A call counts as showing them. Labelling its span answers one."""

    async def snooze(self, prompt: int) -> None: ...

    async def marker(self, text: str, source: str) -> int:
        """Write down something that happened now; the camera's time of it in microseconds."""

    async def keep_model(self) -> None:
        """Go back to the model that ran before the newest, if that one runs."""

    async def take_model(self) -> None:
        """Run the newer model."""

    # Privacy

    async def consent(self, kind: str, text: ConsentText) -> None: ...

    async def join(self, invitation: Invitation) -> None:
        """Enrol in the fleet that invites, with the consents in force, among which are `learning` and `updates`.

        Raises ConsentMissing, OutputExists for a member, EnrolmentRefused, ServerUnreachable, DataInvalid.
        """

    async def withdraw(self, kind: str) -> None:
        """Ends at once what the consent allowed: for ``capture``, a recording and the preview."""

    def export(self) -> AsyncIterator[bytes]:
        """Everything about the wearer, as the bytes of a ZIP file that is written to no disk of the wearable."""

    async def forget(self) -> None:
        """Delete the wearer: key, store, recordings, models. The stage is ``new`` afterwards."""
