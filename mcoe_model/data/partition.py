"""Who is base, client, validation and test: splits by subject, so that nobody is both learned from and tested on.

With five folds 36 % of the subjects train the base model, 36 % are clients, 8 % choose settings and 20 % test; over the
folds every subject is tested exactly once. Subjects are ordered by lighting, then by how many emotions they show, and
dealt out along that order, so that every part gets its share of each stratum. As many folds as subjects is leave one
subject out. Unlike SEE's own split, which is by sequence: ``published_split`` says how many subjects that one shares.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from mcoe_model.data.reader import ClipRecord
from mcoe_model.errors import DataInvalid, DataMissing, SettingsError, TooFewSubjects
from mcoe_model.files import write_json
from mcoe_model.streams import stream

_SHARES = {"base": 0.45, "clients": 0.45, "validation": 0.10}  # of the subjects that are not tested: 36 : 36 : 8


@dataclass(frozen=True)
class Split:
    """The subjects of each part, in ascending order. Raises DataInvalid when a subject is in two parts."""

    base: tuple[str, ...]
    clients: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        everyone = [*self.base, *self.clients, *self.validation, *self.test]
        twice = sorted({subject for subject in everyone if everyone.count(subject) > 1})
        if twice:
            raise DataInvalid(f"subjects {', '.join(twice[:5])} are in two parts of the split, or twice in one")

    @property
    def sha256(self) -> str:
        """Names this split in a run's record."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class SubjectOverlap:
    """How far SEE's own split is from testing on unseen people."""

    subjects_training: int
    subjects_testing: int
    subjects_both: int
    subjects_untrained: int  # tested, and without a training sequence
    sequences_testing: int
    sequences_testing_of_seen_subjects: int


@dataclass(frozen=True)
class PublishedSplit:
    """SEE's own split, by sequence name."""

    training: tuple[str, ...]
    testing: tuple[str, ...]
    overlap: SubjectOverlap


def split_subjects(records: Iterable[ClipRecord], *, seed: int, fold: int = 0, folds: int = 5) -> Split:
    """Split the subjects of ``records`` for one fold; the same for the same (subjects, seed, fold, folds).

    SEE's own training/testing mark plays no part: all sequences of a subject go with the subject. A subject with a
    single sequence cannot be a client, since nothing would be left to hold out: it joins the base unless it is tested.
    Raises SettingsError for an impossible fold and TooFewSubjects when a part would stay empty.
    """
    faults = []
    if folds < 2:
        faults.append(f"folds is {folds}, at least 2 are needed")
    if not 0 <= fold < max(folds, 1):
        faults.append(f"fold is {fold}, it counts from 0 to {folds - 1}")
    if faults:
        raise SettingsError(faults)
    sequences: dict[str, list[ClipRecord]] = defaultdict(list)
    for record in records:
        sequences[record.subject].append(record)
    if len(sequences) < folds:
        raise TooFewSubjects(f"{len(sequences)} subjects cannot be tested in {folds} folds; ask for fewer folds")

    test = _stratified(sequences, stream(seed, "split folds"), folds)[fold::folds]
    generator = stream(seed, "split parts", fold)
    rest = _stratified({s: r for s, r in sequences.items() if s not in test}, generator, 2)
    sizes = _sizes(len(rest))
    single = [subject for subject in rest if len(sequences[subject]) == 1]
    sizes["base"] = max(0, sizes["base"] - len(single))
    dealt = _deal([subject for subject in rest if subject not in single], sizes, generator)
    dealt["base"] += single
    empty = [part for part, subjects in dealt.items() if not subjects]
    if empty:
        raise TooFewSubjects(
            f"nobody is left for {' and '.join(empty)}: of {len(sequences)} subjects {len(test)} are tested and "
            f"{len(single)} have a single sequence and cannot be clients; add subjects or change the folds"
        )
    return Split(**{part: tuple(sorted(subjects)) for part, subjects in {**dealt, "test": test}.items()})


def published_split(records: Iterable[ClipRecord]) -> PublishedSplit:
    """SEE's own split and how many subjects its two sides share."""
    records = list(records)
    training = [record for record in records if record.split == "training"]
    testing = [record for record in records if record.split == "testing"]
    seen = {record.subject for record in training}
    tested = {record.subject for record in testing}
    return PublishedSplit(
        tuple(record.name for record in training),
        tuple(record.name for record in testing),
        SubjectOverlap(
            subjects_training=len(seen),
            subjects_testing=len(tested),
            subjects_both=len(seen & tested),
            subjects_untrained=len(tested - seen),
            sequences_testing=len(testing),
            sequences_testing_of_seen_subjects=sum(record.subject in seen for record in testing),
        ),
    )


def deal_iid(names: Sequence[str], clients: int, *, seed: int) -> tuple[int, ...]:
    """The client, 0..clients-1, of each sequence: dealt out like cards, so that all clients' clips are alike.

    Raises TooFewSubjects for fewer sequences than clients.
    """
    _enough(names, clients)
    order = stream(seed, "partition iid").permutation(len(names))
    owners = np.empty(len(names), np.int64)
    owners[order] = np.arange(len(names)) % clients
    return tuple(int(owner) for owner in owners)


def deal_label_skew(labels: Sequence[int], clients: int, alpha: float, *, seed: int) -> tuple[int, ...]:
    """The client of each sequence with this label: a label's clips fall to the clients in shares that are drawn from
    Dirichlet(alpha, ..., alpha); 0.1 leaves most clients with one or two labels, 100 is nearly iid.

    Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution", section 3
    (https://arxiv.org/abs/1909.06335). Differs: drawn per label over the clients, as Li et al. 2022 do
    (https://arxiv.org/abs/2102.02079, section 3.2), so that every clip is used once. Draws in which a client has
    nothing are drawn again. Raises SettingsError for an alpha that is not above 0, or so small that none of 1000 does,
    and TooFewSubjects for fewer sequences than clients.
    """
    if not 0 < alpha < float("inf"):
        raise SettingsError([f"alpha must be above 0 and finite, not {alpha}"])
    _enough(labels, clients)
    of = np.asarray(labels)
    for attempt in range(1000):
        generator = stream(seed, "partition label skew", attempt)
        owners = np.empty(len(of), np.int64)
        for label in np.unique(of):
            clips = generator.permutation(np.flatnonzero(of == label))
            edges = np.cumsum(generator.dirichlet(np.full(clients, alpha))) * len(clips)
            owners[clips] = np.searchsorted(edges[:-1], np.arange(len(clips)), side="right")
        if len(np.unique(owners)) == clients:
            return tuple(int(owner) for owner in owners)
    raise SettingsError([f"an alpha of {alpha:g} leaves some of {clients} clients without clips; take a larger one"])


def _enough(clips: Sequence[object], clients: int) -> None:
    if len(clips) < clients:
        raise TooFewSubjects(f"{len(clips)} sequences are too few for {clients} clients")


def write_split(path: Path, split: Split) -> None:
    """Write a fold file: JSON, one list of subjects per part."""
    write_json(path, asdict(split))


def read_split(path: Path, records: Iterable[ClipRecord]) -> Split:
    """Read a fold file for these records. Raises DataMissing when there is none, DataInvalid when it is damaged,
    names a subject twice or one that has no usable sequence, and TooFewSubjects when a part is empty."""
    if not path.is_file():
        raise DataMissing(f"no fold file {path}")
    try:
        content = json.loads(path.read_bytes())
        parts = {field.name: tuple(sorted(content.pop(field.name))) for field in fields(Split)}
        if content or not all(isinstance(subject, str) for subjects in parts.values() for subject in subjects):
            raise ValueError("something else is in it")
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise DataInvalid(f"{path} is no fold file (four lists of subjects: {', '.join(_names())}): {fault}") from fault
    known = {record.subject for record in records}
    unknown = sorted({subject for subjects in parts.values() for subject in subjects} - known)
    if unknown:
        raise DataInvalid(f"{path}: {len(unknown)} subjects have no usable sequence: {', '.join(unknown[:5])}")
    if not all(parts.values()):
        raise TooFewSubjects(f"{path}: nobody in {', '.join(part for part in parts if not parts[part])}")
    return Split(**parts)


def _stratified(sequences: dict[str, list[ClipRecord]], generator: np.random.Generator, block: int) -> list[str]:
    """The subjects by lighting (all of theirs, when there are several), then emotions shown; ties in random order.

    Each ``block`` neighbours are shuffled once more, or the first to be dealt to would always get the richest of them.
    """
    subjects = sorted(sequences)
    tie = dict(zip(subjects, generator.permutation(len(subjects)), strict=True))

    def stratum(subject: str) -> tuple[list[str], int, int]:
        lightings = sorted({record.lighting for record in sequences[subject]})
        emotions = {record.emotion for record in sequences[subject]}
        return lightings, -len(emotions), tie[subject]

    ordered = sorted(subjects, key=stratum)
    blocks = [ordered[begin : begin + block] for begin in range(0, len(ordered), block)]
    return [near[place] for near in blocks for place in generator.permutation(len(near))]


def _sizes(subjects: int) -> dict[str, int]:
    """Shares in whole subjects by largest remainder, at least one each while they last."""
    exact = {part: share * subjects for part, share in _SHARES.items()}
    sizes = {part: max(1, int(size)) for part, size in exact.items()}
    while sum(sizes.values()) < subjects:
        neediest = max(exact, key=lambda part: exact[part] - sizes[part])
        sizes[neediest] += 1
    return sizes


def _deal(subjects: Sequence[str], sizes: dict[str, int], generator: np.random.Generator) -> dict[str, list[str]]:
    """Deal ordered subjects so that, at every point of the order, each part has had its share of those dealt.

    Each part begins with a random fraction of a turn, so that none always takes the same places of the order.
    """
    dealt: dict[str, list[str]] = {part: [] for part in sizes}
    total = sum(sizes.values())
    fraction = dict(zip(sizes, generator.random(len(sizes)), strict=True))
    for done, subject in enumerate(subjects, start=1):
        open_parts = [part for part in sizes if len(dealt[part]) < sizes[part]]
        due = {part: fraction[part] + sizes[part] * done / total - len(dealt[part]) for part in open_parts}
        dealt[max(due, key=lambda part: due[part])].append(subject)
    return dealt


def _names() -> list[str]:
    return [field.name for field in fields(Split)]
