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
    moments_sha256: str | None


class ModelStore(Store):
    """The registry's models."""

    def add_first_model(self, sha256: str, generation: str) -> None:
        """Record version 1, whose artifact exists. A repeat changes nothing."""
        with self._writing() as session:
            if self._last_version(session) == 0:
                self._add_version(session, sha256, None, generation, RELEASED)

    def newest_model(self) -> str | None:
        """The SHA-256 of the experiment's newest released model, or None before the first."""
        with self._reading() as session:
            return self._newest(session)

    def moments_of(self, sha256: str) -> str | None:
        """The moments to go on with from the newest version that has these bytes. Raises DataMissing.

        None for a model that no optimiser made, and when a later version was held back: what went wrong there may have
        been the momentum, which would only do it again.
        """
        with self._reading() as session:
            found = self._find(session, sha256)
            later = Model.experiment == self.experiment, Model.version > found.version, Model.state == HELD
            held = session.scalar(select(func.count()).where(*later))
            return None if held else found.moments_sha256

    def ancestors(self, sha256: str, most: int) -> tuple[str, ...]:
        """The models that this one descends from, its parent first, at most so many. Raises DataMissing."""
        found: list[str] = []
        with self._reading() as session:
            while len(found) < most:
                parent = self._find(session, found[-1] if found else sha256).parent_sha256
                if parent is None:
                    break
                found.append(parent)
        return tuple(found)

    def models(self) -> list[ModelRow]:
        """Every version of the experiment, oldest first."""
        query = select(Model).where(Model.experiment == self.experiment).order_by(Model.version)
        with self._reading() as session:
            return [model_row(model) for model in session.scalars(query)]

    def model(self, version_or_sha: int | str) -> ModelRow:
        """One version; of a SHA-256, the newest that has it. Raises DataMissing."""
        with self._reading() as session:
            return model_row(self._find(session, version_or_sha))

    def named_artifacts(self) -> frozenset[str]:
        """The artifacts that versions name, of whichever experiment: they share a folder."""
        with self._reading() as session:
            rows = session.execute(select(Model.sha256, Model.moments_sha256))
            return frozenset(sha256 for row in rows for sha256 in row if sha256 is not None)

    def has_model(self, sha256: str) -> bool:
        """Whether any version of the experiment has these bytes."""
        query = select(Model.id).where(Model.experiment == self.experiment, Model.sha256 == sha256).limit(1)
        with self._reading() as session:
            return session.scalars(query).first() is not None

    def is_outdated(self, sha256: str) -> bool:
        """Whether these bytes are a model of another generation than the newest released one's."""
        mine = select(Model.generation).where(Model.experiment == self.experiment)
        newest = mine.where(Model.state == RELEASED).order_by(Model.version.desc()).limit(1)
        with self._reading() as session:
            generation = session.scalar(mine.where(Model.sha256 == sha256).limit(1))
            return generation is not None and generation != session.scalar(newest)

    def record_evaluation(self, model_sha256: str, evaluation_set: str, scores: dict[str, Any]) -> None:
        """Store what a model scored on a named set; a repeat replaces it."""
        with self._writing() as session:
            session.merge(Evaluation(model_sha256=model_sha256, evaluation_set=evaluation_set, scores=scores))

    def evaluation(self, model_sha256: str, evaluation_set: str) -> dict[str, Any] | None:
        """What a model scored on a named set, or None."""
        with self._reading() as session:
            found = session.get(Evaluation, (model_sha256, evaluation_set))
            return found.scores if found else None

    def _newest(self, session: Session) -> str | None:
        query = select(Model.sha256).where(Model.experiment == self.experiment, Model.state == RELEASED)
        return session.scalars(query.order_by(Model.version.desc()).limit(1)).first()

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
        self,
        session: Session,
        sha256: str,
        parent: str | None,
        generation: str,
        state: ModelState,
        moments: str | None = None,
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
                moments_sha256=moments,
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
        model.moments_sha256,
    )
