"""Which sequences train the base, belong to the clients, choose and test: the protocols, by sequence name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mcoe_model.data.partition import SubjectOverlap, published_split, split_subjects
from mcoe_model.data.reader import ClipRecord
from mcoe_model.errors import TooFewSubjects
from mcoe_model.files import write_json
from simulations.settings import SimulationSettings

PARTS = ("base", "clients", "validation", "test")


@dataclass(frozen=True)
class Parts:
    """Sequence names of each part, in record order."""

    base: tuple[str, ...]
    clients: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Names this division in a run's record."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))

    @staticmethod
    def read(path: Path) -> Parts:
        return Parts(**{part: tuple(names) for part, names in json.loads(path.read_bytes()).items()})


def make_parts(settings: SimulationSettings, records: Sequence[ClipRecord]) -> Parts:
    """Divide the sequences as the protocol says.

    `unseen-subjects`: by subject; nobody is in two parts. `published`: the test is SEE's own, by sequence, which shares
    most of its subjects with training; base, clients and validation are different subjects' training sequences.
    Raises TooFewSubjects.
    """
    if settings.protocol == "published":
        own = published_split(records)
        if not own.training or not own.testing:
            raise TooFewSubjects("the published protocol needs training and testing sequences; emotion.json lacks one")
        training = set(own.training)
        learned = [record for record in records if record.name in training]
        subjects = split_subjects(learned, seed=settings.seed)
        return Parts(
            _names(learned, subjects.base + subjects.test[::2]),
            _names(learned, subjects.clients + subjects.test[1::2]),
            _names(learned, subjects.validation),
            own.testing,
        )
    subjects = split_subjects(records, seed=settings.seed, fold=int(settings.fold), folds=settings.folds)
    return Parts(*(_names(records, getattr(subjects, part)) for part in PARTS))


def subject_overlap(settings: SimulationSettings, records: Sequence[ClipRecord]) -> SubjectOverlap | None:
    """How many subjects the published split shares between training and testing; None under another protocol."""
    return published_split(records).overlap if settings.protocol == "published" else None


def _names(records: Sequence[ClipRecord], subjects: Sequence[str]) -> tuple[str, ...]:
    wanted = set(subjects)
    return tuple(record.name for record in records if record.subject in wanted)
