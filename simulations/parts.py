"""Which sequences train the base, belong to the clients, choose and test: the protocols, by sequence name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mcoe_model.data.partition import (
    Split,
    SubjectOverlap,
    deal_iid,
    deal_label_skew,
    published_split,
    read_split,
    split_subjects,
)
from mcoe_model.data.reader import ClipRecord
from mcoe_model.errors import TooFewSubjects
from mcoe_model.files import write_json
from simulations.settings import SimulationSettings
from simulations.streams import session_order

PARTS = ("base", "clients", "validation", "test")
#: Sessions of a synthetic wearer that are learned; what comes after them is `later`.
LEARNED_SESSIONS = 4


@dataclass(frozen=True)
class Parts:
    """Sequence names of each part, in record order.

    ``owners`` says whose each clip of the clients is where clients mix several subjects; empty: its subject's.
    ``later`` are the clients' own clips of sessions after those that they learn, in the `wearable` design only.
    """

    base: tuple[str, ...]
    clients: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    owners: tuple[str, ...] = ()
    later: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Names this division in a run's record."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def test_sha256(self) -> str:
        """Names the clips that nobody learned, in the card of a model."""
        return hashlib.sha256(json.dumps(self.test).encode()).hexdigest()

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))

    @staticmethod
    def read(path: Path) -> Parts:
        return Parts(**{part: tuple(names) for part, names in json.loads(path.read_bytes()).items()})


def make_parts(settings: SimulationSettings, records: Sequence[ClipRecord]) -> Parts:
    """Divide the sequences as the protocol says, and the clients' among them as the partition does.

    `unseen-subjects`: by subject; nobody is in two parts. `published`: the test is SEE's own, by sequence, which shares
    most of its subjects with training; base, clients and validation are different subjects' training sequences.
    With ``base_lighting`` the base keeps the clips in those lightings alone, and all others theirs in every light.
    With the `wearable` design the clients' last two sessions are set aside as `later`.
    Raises TooFewSubjects, also for a base without clips, SettingsError for a label skew that leaves clients without
    any, and as `read_split`.
    """
    later: tuple[str, ...] = ()
    if (division := divide_subjects(settings, records)) is None:
        own = published_split(records)
        if not own.training or not own.testing:
            raise TooFewSubjects("the published protocol needs training and testing sequences; emotion.json lacks one")
        training = set(own.training)
        learned = [record for record in records if record.name in training]
        subjects = split_subjects(learned, seed=settings.seed)
        base = _names(learned, subjects.base + subjects.test[::2])
        clients = set(subjects.clients + subjects.test[1::2])
        validation, test = _names(learned, subjects.validation), own.testing
    else:
        learned, clients = list(records), set(division.clients)
        base, validation, test = (_names(records, getattr(division, part)) for part in ("base", "validation", "test"))
    lit = {record.name for record in learned if record.lighting in settings.lightings}
    base = tuple(name for name in base if name in lit)
    if not base:
        raise TooFewSubjects(f"the base's subjects have no clip in {settings.base_lighting}: see --base-lighting")
    wearers = [record for record in learned if record.subject in clients]
    if settings.design == "wearable":
        # by session, not by take: another reader counts takes anew in every session
        after = sorted({record.session for record in wearers}, key=session_order)[LEARNED_SESSIONS:]
        later = tuple(record.name for record in wearers if record.session in after)
        wearers = [record for record in wearers if record.session not in after]
    names = tuple(record.name for record in wearers)
    return Parts(base, names, validation, test, _owners(settings, wearers), later)


def divide_subjects(settings: SimulationSettings, records: Sequence[ClipRecord]) -> Split | None:
    """The subjects of each part, as a fold file says or dealt out; None under `published`, which divides sequences."""
    if settings.protocol == "published":
        return None
    if settings.split:
        return read_split(Path(settings.split), records)
    return split_subjects(records, seed=settings.seed, fold=int(settings.fold), folds=settings.folds)


def _owners(settings: SimulationSettings, records: Sequence[ClipRecord]) -> tuple[str, ...]:
    """Whose each of the clients' clips is; empty where it is its subject's."""
    clients = len({record.subject for record in records})
    match settings.partition:
        case "iid":
            dealt = deal_iid([record.name for record in records], clients, seed=settings.seed)
        case "label-skew":
            labels = [record.class_index for record in records]
            dealt = deal_label_skew(labels, clients, settings.alpha, seed=settings.seed)
        case _:
            return ()
    return tuple(f"mixed-{owner + 1:02d}" for owner in dealt)


def subject_overlap(settings: SimulationSettings, records: Sequence[ClipRecord]) -> SubjectOverlap | None:
    """How many subjects the published split shares between training and testing; None under another protocol."""
    return published_split(records).overlap if settings.protocol == "published" else None


def _names(records: Sequence[ClipRecord], subjects: Sequence[str]) -> tuple[str, ...]:
    wanted = set(subjects)
    return tuple(record.name for record in records if record.subject in wanted)
