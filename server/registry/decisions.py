"""What the operator decides over models, and what ends with it: work on a model that is no longer the newest one."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.registry.models import CANARY, CANDIDATE, HELD, RELEASED, RETIRED, ModelState
from server.registry.rounds import RoundStore
from server.registry.tables import CLOSED, OPEN, Model, Round, TrialRow

#: Why a round ends whose base is no longer the newest released model.
OVERTAKEN = "its model is no longer the newest released one"
NEW_GENERATION = "a model of another generation was released"


class DecisionStore(RoundStore):
    """The operator's decisions over models.

    A round that is not published, and a model that is undecided, end when what they were made from is no longer the
    newest released model: else they would bring back what was rolled back or held.
    """

    def import_model(self, sha256: str, generation: str, state: ModelState = RELEASED) -> int:
        """Record a model that was made elsewhere and whose artifact exists; returns its version.

        Releasing it decides over a model that is undecided, as `release_again` does. One of another generation than the
        newest released one begins a new generation, which is an event of its own.
        """
        with self._writing() as session:
            newest = self._newest(session)
            before = self._find(session, newest).generation if newest else generation
            begins = state == RELEASED and before != generation
            if state == RELEASED:
                self._overtake(session, sha256)
                self._leave_line(session, None)
            version = self._add_version(session, sha256, None, generation, state)
            self._audit(session, "model imported", None, f"version {version}, {sha256}")
            if begins:
                self._audit(session, "new generation", None, f"version {version}: {generation} after {before}")
            self._end_overtaken(session, NEW_GENERATION if begins else OVERTAKEN)
            return version

    def release_again(self, version: int) -> int:
        """Roll back: a new released version with an old one's bytes; returns its number. Raises DataMissing.

        A model that is candidate or canary is thereby decided: it is held, or released when it has the same bytes.
        """
        with self._writing() as session:
            again = self._release_again(session, version)
            self._end_overtaken(session)
            return again

    def set_model_state(self, sha256: str, state: ModelState) -> None:
        """Promote, retire or hold these bytes, in every version that has them. Raises DataMissing."""
        with self._writing() as session:
            if state in (HELD, RETIRED) and self._find(session, sha256).state not in (HELD, RETIRED):
                self._unlearn(session, {sha256})
            query = select(Model).where(Model.experiment == self.experiment, Model.sha256 == sha256)
            for model in session.scalars(query):
                model.state = state
                self._by_hand(session, model)
            self._audit(session, f"model {state}", None, sha256)
            self._end_overtaken(session)

    def end_overtaken(self) -> None:
        """End the round under way when its base is no longer the newest released model."""
        with self._writing() as session:
            self._end_overtaken(session)

    def _end_overtaken(self, session: Session, reason: str = OVERTAKEN) -> int | None:
        """End what was made from another model than the newest released one; the number of the round, if any."""
        newest = self._newest(session)
        undecided = select(Model).where(Model.experiment == self.experiment, Model.state.in_([CANDIDATE, CANARY]))
        for model in session.scalars(undecided.where(Model.parent_sha256 != newest)):
            model.state = HELD
            self._unlearn(session, {model.sha256})
            self._by_hand(session, model)
            self._audit(session, "model held", None, f"{model.sha256}: its parent is no longer the newest released one")
        mine = Round.experiment == self.experiment, Round.state.in_([OPEN, CLOSED])
        found = session.scalars(select(Round).where(*mine, Round.base_sha256 != newest)).first()
        if found is None:
            return None
        self._abandon(session, found, reason)
        return found.number

    def _release_again(self, session: Session, version: int) -> int:
        old = self._find(session, version)
        self._overtake(session, old.sha256)
        self._leave_line(session, old.sha256)
        lineage = (old.sha256, old.parent_sha256, old.generation)
        again = self._add_version(session, *lineage, RELEASED, old.moments_sha256)
        self._audit(session, "model released again", None, f"version {version} as version {again}, {old.sha256}")
        return again

    def _overtake(self, session: Session, sha256: str) -> None:
        """Decide over undecided models, now that these bytes are released by hand."""
        undecided = select(Model).where(Model.experiment == self.experiment, Model.state.in_([CANDIDATE, CANARY]))
        for model in session.scalars(undecided):
            model.state = RELEASED if model.sha256 == sha256 else HELD
            if model.state == HELD:
                self._unlearn(session, {model.sha256})
            self._by_hand(session, model)
            self._audit(session, f"model {model.state}", None, f"{model.sha256}: {sha256} was released by hand")

    def _leave_line(self, session: Session, sha256: str | None) -> None:
        """Go on from these bytes: what the newest released model learned and they did not is to be learned again."""
        lines = select(Model.sha256, Model.parent_sha256).where(Model.experiment == self.experiment)
        parents = {model: parent for model, parent in session.execute(lines)}
        self._unlearn(session, _line(self._newest(session), parents) - _line(sha256, parents))

    def _by_hand(self, session: Session, model: Model) -> None:
        """A trial that the operator ended waits for nothing any more."""
        trial = session.get(TrialRow, model.id)
        if trial is not None:
            trial.says = f"{model.state} by hand"


def _line(sha256: str | None, parents: Mapping[str, str | None]) -> set[str]:
    """A model and those that it descends from."""
    found: set[str] = set()
    while sha256 is not None and sha256 not in found:
        found.add(sha256)
        sha256 = parents.get(sha256)
    return found
