"""The life of a new model: candidate -> canary -> released, or held. The decisions alone, as pure functions.

A candidate is compared with its parent, on the operator's clips or on those of clients. A canary is run by a fixed
share of the clients for some check-ins. Whatever is not proven good is held, and its parent stays the newest.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import statistics
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from mcoe_model.errors import SettingsError
from mcoe_model.protocol import EvaluateReport

Release = Literal["auto", "manual"]
RELEASES: tuple[Release, ...] = get_args(Release)

#: With fewer reports than this, a single client that lies decides over the median.
FEWEST_REPORTS = 3


@dataclass(frozen=True)
class ReleasePolicy:
    """What a new model has to show before every client gets it.

    - ``margin``: it may recognise this share of clips less than its parent does.
    - ``evaluation_clients``: so many clients compare it with its parent, where the operator has no clips; 0: none.
    - ``canary_share``: the share of enrolled clients that runs it first, at least one of them; 0: none.
    - ``canary_check_ins``: so many check-ins of those clients are heard before it is released.
    - ``canary_hours``: hours that this may take.
    - ``release``: whether a model that has passed its comparison goes on by itself, or waits for the operator.
    """

    margin: float = 0.02
    evaluation_clients: int = 0
    canary_share: float = 0.0
    canary_check_ins: int = 5
    canary_hours: float = 168.0
    release: Release = "auto"

    def __post_init__(self) -> None:
        found = []
        if not 0 <= self.margin < math.inf:
            found.append(f"evaluation_margin must not be negative and be finite, not {self.margin}")
        if self.evaluation_clients < 0 or 0 < self.evaluation_clients < FEWEST_REPORTS:
            found.append(
                f"evaluation_clients must be 0 or at least {FEWEST_REPORTS}, not {self.evaluation_clients}: "
                "of fewer, one that lies decides"
            )
        if not 0 <= self.canary_share <= 1:
            found.append(f"canary_share must be between 0 and 1, not {self.canary_share}")
        if self.canary_check_ins < 1:
            found.append(f"canary_check_ins must be at least 1, not {self.canary_check_ins}")
        if not 0 < self.canary_hours < math.inf:
            found.append(f"canary_hours must be above 0 and finite, not {self.canary_hours}")
        if self.release not in RELEASES:
            found.append(f"release must be one of {', '.join(RELEASES)}, not {self.release!r}")
        if found:
            raise SettingsError(found)


@dataclass(frozen=True)
class Passed:
    """The model may take its next step."""

    reason: str


@dataclass(frozen=True)
class Failed:
    """The model is held."""

    reason: str


@dataclass(frozen=True)
class Undecided:
    """More has to be heard: from these clients, where it is known which."""

    reason: str
    awaited: tuple[str, ...] = ()


Decision = Passed | Failed | Undecided


@dataclass(frozen=True)
class CanaryClient:
    """What was heard of a client that a canary was offered to.

    ``check_ins`` at which it ran the canary; why it refused it; whether it ran another model after the canary.
    """

    client_id: str
    check_ins: int = 0
    refusal: str | None = None
    went_back: bool = False


def judge_reports(reports: Iterable[EvaluateReport], policy: ReleasePolicy) -> Decision:
    """Whether clients find a candidate as good as its parent.

    It is the median over clients of the difference between the shares of clips that the two recognise: a client counts
    once, however many clips it says it has, and less than half of them can say what they like.
    """
    differences = [(report.correct - report.parent_correct) / report.examples for report in reports]
    needed = policy.evaluation_clients
    if len(differences) < needed:
        return Undecided(f"{len(differences)} of {needed} clients have compared it with its parent")
    median = statistics.median(differences)
    found = f"{len(differences)} clients compared it with its parent: {100 * median:+.1f} % of clips, in the median"
    if round(median + policy.margin, 9) < 0:
        return Failed(f"{found}; {-100 * policy.margin:.1f} % is allowed")
    return Passed(found)


def canary_clients(clients: Collection[str], sha256: str, share: float) -> tuple[str, ...]:
    """The share of these clients, rounded up, that a model is offered to first, in id order.

    They are drawn by the hash of client and model: the same for the same arguments, others for every model.
    """
    count = math.ceil(round(share * len(clients), 9))
    return tuple(sorted(sorted(clients, key=lambda client: draw(client, sha256))[:count]))


def judge_canary(
    heard: Collection[CanaryClient], needed: int, ends: datetime.datetime, now: datetime.datetime
) -> Decision:
    """Whether a canary is released: after ``needed`` check-ins that ran it, of whichever of its clients.

    One refusal, or one client that runs another model again, stops it. So does the end of its time: nobody knows then
    what it is worth, and the model before it is known to be good.
    """
    refusals = [client.refusal for client in heard if client.refusal is not None]
    if refusals:
        return Failed(f"a client refused it: {refusals[0]}")
    if any(client.went_back for client in heard):
        return Failed("a client that ran it has gone back to another model")
    check_ins = sum(client.check_ins for client in heard)
    running = sum(client.check_ins > 0 for client in heard)
    found = f"{check_ins} of {needed} check-ins, {running} of {len(heard)} clients run it"
    if check_ins >= needed:
        return Passed(found)
    if now >= ends:
        return Failed(f"only {found} in the time that it had")
    return Undecided(found, tuple(client.client_id for client in heard if not client.check_ins))


def whom_to_ask(present: Mapping[str, bool], sha256: str) -> list[str]:
    """Present clients in the order in which they are asked to evaluate a model.

    ``present`` says of each whether the model learned from it: those come last, since it may know their clips by heart.
    """
    return sorted(present, key=lambda client: (present[client], draw(client, sha256)))


def draw(client_id: str, sha256: str) -> str:
    """What a client draws for a model: as good as random, and the same for ever."""
    return hashlib.sha256(f"{client_id}\x1f{sha256}".encode()).hexdigest()
