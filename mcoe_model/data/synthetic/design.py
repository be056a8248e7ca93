"""Which sequences a synthetic data set holds: people, lightings, emotions, takes, lengths and SEE's names.

Source of the amounts: SEE's published sequence names (767 test sequences of 89 people; 2,405 sequences of 111 people
in all). Names have SEE's nine fields and spellings, numbers are blocked by person and emotion with gaps for takes that
were thrown away, and every person of `see-like` sits under one lighting, in contiguous blocks of ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mcoe_model.data.synthetic.settings import (
    SEE_SEQUENCES,
    SEE_SUBJECTS,
    WEARABLE_SESSION_CLIPS,
    WEARABLE_SESSIONS,
    SyntheticSettings,
)
from mcoe_model.names import EMOTIONS, LIGHTINGS, SEE_LIGHTINGS
from mcoe_model.streams import stream

Weights = NDArray[np.float64]

#: SEE's test sequences by emotion, in the order of EMOTIONS, and by take 0 to 4.
EMOTION_COUNTS = (119, 124, 113, 89, 92, 100, 130)
TAKE_COUNTS = (202, 176, 163, 152, 73)
#: Mean and spread of the logarithm of a sequence's length in pictures, by emotion, and SEE's shortest and longest.
LOG_LENGTH = {
    "angry": (3.913, 0.250), "disgust": (3.926, 0.280), "fear": (4.061, 0.265), "happiness": (4.002, 0.340),
    "neutral": (3.879, 0.130), "sadness": (4.034, 0.270), "surprise": (3.763, 0.265),
}  # fmt: skip
PERSON_SHARE = 0.45  # of the spread's variance: slow people are slow in every take
SHORTEST, LONGEST = 18, 131
#: Sex, and degree with the ages met in it: counts of people.
SEXES = {"man": 53, "woman": 36}
DEGREES = {"undergraduate": 56, "Master": 25, "Doctor": 8}
AGES = {
    "undergraduate": {19: 9, 20: 22, 21: 13, 22: 11, 23: 1},
    "Master": {22: 4, 23: 10, 24: 9, 25: 2},
    "Doctor": {25: 2, 26: 1, 27: 2, 28: 3},
}
#: Share of sequences in SEE's training subset (its split cuts through people).
TRAINING_SHARE = 1638 / 2405
#: Takes recorded per emotion, thrown-away ones included; a wearable session's takes are numbered from 100 x session.
RECORDED_TAKES = 5
SESSION_TAKES = 100


@dataclass(frozen=True)
class Clip:
    """One sequence to draw. ``session`` is 0 where a person sat only once."""

    number: int
    subject: int
    sex: str
    age: int
    degree: str
    lighting: str
    emotion: str
    length: int
    take: int
    split: str
    session: int

    @property
    def name(self) -> str:
        """SEE's name, e.g. ``186_007_man_23_Master_normal_angry_43_take000``."""
        lighting = SEE_LIGHTINGS[self.lighting]
        person = f"{self.subject:03d}_{self.sex}_{self.age}_{self.degree}"
        return f"{self.number}_{person}_{lighting}_{self.emotion}_{self.length}_take{self.take:03d}"

    @property
    def folder(self) -> str:
        """The emotion's folder, which is also its label in the annotation."""
        return emotion_folder(self.emotion)


def emotion_folder(emotion: str) -> str:
    """SEE's spelling of an emotion's folder."""
    return "neutraL" if emotion == "neutral" else emotion


@dataclass(frozen=True)
class Sitting:
    """One emotion's takes of one person under one lighting."""

    emotion: str
    lighting: str
    session: int
    takes: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """Numbers that the sitting uses up: one for every take up to the last one kept."""
        return max((take % SESSION_TAKES + 1 for take in self.takes), default=0)


def plan(settings: SyntheticSettings) -> tuple[Clip, ...]:
    """Every sequence of the data set, in the order of SEE's numbers."""
    sittings = {"see-like": _see_like, "crossed": _crossed, "wearable": _wearable}[settings.design](settings)
    clips: list[Clip] = []
    number = 0
    for subject, blocks in sittings.items():
        person = stream(settings.seed, "person", subject)
        sex = str(person.choice(list(SEXES), p=_shares(SEXES.values())))
        degree = str(person.choice(list(DEGREES), p=_shares(DEGREES.values())))
        age = int(person.choice(list(AGES[degree]), p=_shares(AGES[degree].values())))
        pace = float(person.normal())
        for block in blocks:
            for take in block.takes:
                clips.append(
                    Clip(
                        number=number + 1 + take % SESSION_TAKES, subject=subject, sex=sex, age=age, degree=degree,
                        lighting=block.lighting, emotion=block.emotion,
                        length=_length(settings.seed, subject, block.emotion, take, pace),
                        take=take, split="", session=block.session,
                    )
                )
            number += block.numbers
    return _with_splits(clips, settings.seed)


def block_lighting(subject: int, subjects: int) -> str:
    """`see-like`: the lighting of person ``subject`` (from 1): four contiguous blocks of ids, as equal as can be."""
    return LIGHTINGS[(subject - 1) * len(LIGHTINGS) // subjects]


def _see_like(settings: SyntheticSettings) -> dict[int, list[Sitting]]:
    takes = _see_takes(settings)
    return {
        subject: [
            Sitting(emotion, block_lighting(subject, settings.subjects), 0, kept)
            for emotion, kept in by_emotion.items()
        ]
        for subject, by_emotion in takes.items()
    }


def _crossed(settings: SyntheticSettings) -> dict[int, list[Sitting]]:
    takes = _see_takes(settings)
    return {
        subject: [
            Sitting(emotion, lighting, 0, kept)
            for lighting in LIGHTINGS
            for emotion, kept in by_emotion.items()
        ]
        for subject, by_emotion in takes.items()
    }


def _wearable(settings: SyntheticSettings) -> dict[int, list[Sitting]]:
    per_session = (settings.sequences or WEARABLE_SESSIONS * WEARABLE_SESSION_CLIPS) // WEARABLE_SESSIONS
    sittings: dict[int, list[Sitting]] = {}
    for subject in range(1, settings.subjects + 1):
        g = stream(settings.seed, "sessions", subject)
        lightings = [LIGHTINGS[i] for i in (*g.permutation(4), *g.permutation(4)[: WEARABLE_SESSIONS - 4])]
        sittings[subject] = []
        for session, lighting in enumerate(lightings, start=1):
            first = int(g.integers(len(EMOTIONS)))  # the emotion that gets one clip more where 7 does not divide
            for e, emotion in enumerate(EMOTIONS):
                extra = (e - first) % len(EMOTIONS) < per_session % len(EMOTIONS)
                kept = per_session // len(EMOTIONS) + extra
                takes = tuple(SESSION_TAKES * session + take for take in range(kept))
                sittings[subject].append(Sitting(emotion, lighting, session, takes))
    return sittings


def _see_takes(settings: SyntheticSettings) -> dict[int, dict[str, tuple[int, ...]]]:
    """Kept takes of each person and emotion: SEE's count and mix of emotions, in proportion to the people.

    A cap keeps emotions level: each emotion's first kept take before any emotion's second.
    """
    total = round(SEE_SEQUENCES * settings.subjects / SEE_SUBJECTS)
    diligence = np.array([stream(settings.seed, "diligence", s).uniform(0.6, 1.4) for s in _subjects(settings)])
    kept: dict[int, dict[str, list[int]]] = {s: {} for s in _subjects(settings)}
    for emotion, count in zip(EMOTIONS, _apportion(total, np.array(EMOTION_COUNTS, float)), strict=True):
        jitter = np.array([stream(settings.seed, "mood", s, emotion).uniform(0.7, 1.3) for s in _subjects(settings)])
        for subject, takes in zip(kept, _apportion(int(count), diligence * jitter, RECORDED_TAKES), strict=True):
            g = stream(settings.seed, "kept", subject, emotion)
            order = g.choice(RECORDED_TAKES, size=RECORDED_TAKES, replace=False, p=_shares(TAKE_COUNTS))
            kept[subject][emotion] = [int(take) for take in order[:takes]]
    if settings.sequences is not None:
        for subject, by_emotion in kept.items():
            _cap(by_emotion, settings.sequences, stream(settings.seed, "cap", subject))
    return {s: {e: tuple(sorted(takes)) for e, takes in by.items()} for s, by in kept.items()}


def _subjects(settings: SyntheticSettings) -> range:
    return range(1, settings.subjects + 1)


def _cap(takes: dict[str, list[int]], most: int, g: np.random.Generator) -> None:
    """Drop takes until ``most`` are left, always from an emotion that has most of them."""
    while sum(map(len, takes.values())) > most:
        longest = max(map(len, takes.values()))
        takes[str(g.choice([e for e in takes if len(takes[e]) == longest]))].pop()


def _apportion(total: int, weights: Weights, most: int | None = None) -> NDArray[np.int64]:
    """Whole numbers in proportion to ``weights`` that sum to ``total`` (largest remainders), none above ``most``."""
    if most is not None:
        total = min(total, most * weights.size)
    shares = np.zeros(weights.size, dtype=np.int64)
    while (left := total - int(shares.sum())) > 0:
        open_ = shares < most if most is not None else np.ones(weights.size, dtype=bool)
        wanted = np.where(open_, weights, 0.0) * left / weights[open_].sum()
        if most is not None:
            wanted = np.minimum(wanted, most - shares)
        whole = np.floor(wanted).astype(np.int64)
        if whole.sum() == 0:
            for i in np.argsort(-wanted, kind="stable")[:left]:
                whole[i] += bool(open_[i])
        shares += whole
    return shares


def _shares(counts: Iterable[int]) -> Weights:
    values = np.array(list(counts), dtype=np.float64)
    shares: Weights = values / values.sum()
    return shares


def _length(seed: int, subject: int, emotion: str, take: int, pace: float) -> int:
    """Pictures of one take; the same under every lighting."""
    mean, spread = LOG_LENGTH[emotion]
    own = stream(seed, "length", subject, emotion, take).normal()
    log_length = mean + spread * (PERSON_SHARE**0.5 * pace + (1 - PERSON_SHARE) ** 0.5 * own)
    return int(np.clip(round(float(np.exp(log_length))), SHORTEST, LONGEST))


def _with_splits(clips: list[Clip], seed: int) -> tuple[Clip, ...]:
    """Mark SEE's share of the sequences, drawn at random, as training and the others as testing."""
    training = round(len(clips) * TRAINING_SHARE)
    chosen = set(stream(seed, "split").permutation(len(clips))[:training].tolist())
    return tuple(replace(clip, split="training" if i in chosen else "testing") for i, clip in enumerate(clips))
