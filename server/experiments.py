"""The experiments of one server: which of them a wearable belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mcoe_model.consent import Consent
from mcoe_model.errors import EnrolmentRefused, McoeError
from server.fleet import Fleet, open_fleet, token_hash
from server.forgetting import receipt_for
from server.paths import ServerPaths
from server.registry.refusals import Refusal
from server.registry.tables import LOST, REVOKED
from server.settings import ServerSettings


class DeviceLost(EnrolmentRefused):
    """The key is of a wearable that was reported lost, which is told so."""


class Experiments:
    """The fleets of experiments that share a registry and a SuperLink, by the experiment's name.

    A client is in one of them: it is asked, and shown models, by that one alone.
    """

    def __init__(self, fleets: Sequence[Fleet]) -> None:
        self.fleets = {fleet.registry.experiment: fleet for fleet in fleets}
        self._any = fleets[0]

    def enrol(self, token: str, public_key: str, consents: Sequence[Consent] = ()) -> str:
        """Exchange an invitation's token for enrolment in the experiment that it is for; see `Fleet.enrol`."""
        experiment = self._any.registry.experiment_of_token(token_hash(token))
        return self.fleets.get(experiment or "", self._any).enrol(token, public_key, consents)

    def expect_somebody(self) -> bool:
        """Whether an invitation to any of them is open."""
        return any(fleet.registry.is_expecting() for fleet in self.fleets.values())

    def any_round_under_way(self) -> bool:
        """Whether a round of any of them is open, or closed but not published.

        Others of the database, which are paused or another server's, do not count.
        """
        return any(fleet.registry.unfinished_round() for fleet in self.fleets.values())

    def is_member(self, public_key: str) -> bool:
        """Whether an enrolled client holds this key."""
        return self._any.registry.member(public_key) is not None

    def of_key(self, public_key: str) -> tuple[Fleet, str]:
        """The enrolled client that holds this key, and its experiment's fleet. Raises EnrolmentRefused, DeviceLost."""
        member = self._any.registry.member(public_key)
        ended = self._any.registry.ended(public_key) if member is None else None
        if ended == LOST:
            raise DeviceLost("this wearable was reported lost")
        if ended == REVOKED:
            raise EnrolmentRefused(
                "the operator has ended this wearable's part in the fleet; to take part again, ask for an invitation"
            )
        if member is None or member.experiment not in self.fleets:
            raise EnrolmentRefused("this key is not enrolled")
        return self.fleets[member.experiment], member.id

    def of_leaver(self, public_key: str) -> tuple[Fleet, str]:
        """The same for one that asks to be let go, also after it has withdrawn.

        Raises EnrolmentRefused for a key that no such client holds, and another McoeError while its experiment is not
        served here: that may be asked again.
        """
        leaver = self._any.registry.leaver(public_key)
        if leaver is None:
            raise EnrolmentRefused("this key is not enrolled")
        if leaver.experiment not in self.fleets:
            raise McoeError(f"experiment {leaver.experiment} is not served at the moment")
        return self.fleets[leaver.experiment], leaver.id

    def receipt_for(self, public_key: str) -> dict[str, Any] | None:
        """The receipt of whoever held this key and was forgotten, or None."""
        return receipt_for(self._any.paths, self._any.registry.engine, public_key)

    def record_refusals(self, counted: Mapping[Refusal, int]) -> None:
        """Write what was refused to the audit trails."""
        self._any.registry.record_refusals(counted, self.fleets)

    def register_members(self) -> int:
        """As `Fleet.register_members`, which is for all of them."""
        return self._any.register_members()


def open_experiments(paths: ServerPaths, settings: Sequence[ServerSettings]) -> Experiments:
    """The fleets of all these experiments. Raises SchemaTooNew."""
    names = [one.experiment for one in settings]
    return Experiments([open_fleet(paths, one, names) for one in settings])
