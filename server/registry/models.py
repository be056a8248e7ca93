"""Models: versions of an experiment, their lineage and state, and what they scored."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mcoe_model.errors import DataMissing
from server.registry.store import Store, utc_now
from server.registry.tables import Evaluation, Model

ModelState = Literal["candidate", "canary", "released", "retired", "held"]
CANDIDATE, CANARY, RELEASED, RETIRED, HELD = get_args(ModelState)


@dataclass(frozen=True)
class ModelRow:
    """One version as stored. Its bytes are the artifact ``sha256``, which other versions may share."""

    experiment: str
    version: int
    sha256: str
    parent_sha256: str | None
    generation: str
    state: ModelState
    created: datetime.datetime


class ModelStore(Store):
    """The registry's models."""

    def add_first_model(self, sha256: str, generation: str) -> None:
        """Record version 1, whose artifact exists. A repeat changes nothing."""
        with self._writing() as session:
            if self._last_version(session) == 0:
                self._add_version(session, sha256, None, generation, RELEASED)

    def import_model(self, sha256: str, generation: str, state: ModelState = RELEASED) -> int:
        """Record a model that was made elsewhere and whose artifact exists; returns its version."""
        with self._writing() as session:
            version = self._add_version(session, sha256, None, generation, state)
            self._audit(session, "model imported", None, f"version {version}, {sha256}")
            return version

    def release_again(self, version: int) -> int:
        """Roll back: a new released version with an old one's bytes; returns its number. Raises DataMissing."""
        with self._writing() as session:
            old = self._find(session, version)
            again = self._add_version(session, old.sha256, old.parent_sha256, old.generation, RELEASED)
            self._audit(session, "model released again", None, f"version {version} as version {again}, {old.sha256}")
            return again

    def set_model_state(self, sha256: str, state: ModelState) -> None:
        """Promote, retire or hold these bytes, in every version that has them. Raises DataMissing."""
        with self._writing() as session:
            self._find(session, sha256)
            query = select(Model).where(Model.experiment == self.experiment, Model.sha256 == sha256)
            for model in session.scalars(query):
                model.state = state
            self._audit(session, f"model {state}", None, sha256)

    def newest_model(self) -> str | None:
        """The SHA-256 of the experiment's newest released model, or None before the first."""
        query = select(Model.sha256).where(Model.experiment == self.experiment, Model.state == RELEASED)
        with self._reading() as session:
            return session.scalars(query.order_by(Model.version.desc()).limit(1)).first()

    def models(self) -> list[ModelRow]:
        """Every version of the experiment, oldest first."""
        query = select(Model).where(Model.experiment == self.experiment).order_by(Model.version)
        with self._reading() as session:
            return [model_row(model) for model in session.scalars(query)]

    def model(self, version_or_sha: int | str) -> ModelRow:
        """One version; of a SHA-256, the newest that has it. Raises DataMissing."""
        with self._reading() as session:
            return model_row(self._find(session, version_or_sha))

    def record_evaluation(self, model_sha256: str, evaluation_set: str, scores: dict[str, Any]) -> None:
        """Store what a model scored on a named set; a repeat replaces it."""
        with self._writing() as session:
            session.merge(Evaluation(model_sha256=model_sha256, evaluation_set=evaluation_set, scores=scores))

    def evaluation(self, model_sha256: str, evaluation_set: str) -> dict[str, Any] | None:
        """What a model scored on a named set, or None."""
        with self._reading() as session:
            found = session.get(Evaluation, (model_sha256, evaluation_set))
            return found.scores if found else None

    def _find(self, session: Session, version_or_sha: int | str) -> Model:
        named = Model.version == version_or_sha if isinstance(version_or_sha, int) else Model.sha256 == version_or_sha
        query = select(Model).where(Model.experiment == self.experiment, named).order_by(Model.version.desc()).limit(1)
        found = session.scalars(query).first()
        if found is None:
            raise DataMissing(f"experiment {self.experiment} has no model {version_or_sha}")
        return found

    def _last_version(self, session: Session) -> int:
        return session.scalar(select(func.max(Model.version)).where(Model.experiment == self.experiment)) or 0

    def _add_version(
        self, session: Session, sha256: str, parent: str | None, generation: str, state: ModelState
    ) -> int:
        version = self._last_version(session) + 1
        session.add(
            Model(
                experiment=self.experiment,
                version=version,
                sha256=sha256,
                parent_sha256=parent,
                generation=generation,
                state=state,
                created=utc_now(),
            )
        )
        return version


def model_row(model: Model) -> ModelRow:
    """A version as a value."""
    return ModelRow(
        model.experiment,
        model.version,
        model.sha256,
        model.parent_sha256,
        model.generation,
        model.state,  # type: ignore[arg-type]
        model.created,
    )
