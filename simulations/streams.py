"""Streams: in which order a device gets to see clips, stage by stage, and what is asked of it after each.

What comes one after another differs by stream. No method is told where a stage begins: it sees lessons alone, which
are a few clips each.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mcoe_model.data.reader import ClipRecord
from mcoe_model.errors import DataInvalid, TooFewSubjects
from mcoe_model.names import EMOTIONS, LIGHTINGS
from mcoe_model.streams import stream

StreamName = Literal["sessions", "lighting", "emotions", "subjects"]
#: The synthetic design that each stream runs on unless another is asked for.
DESIGN: dict[StreamName, str] = {
    "sessions": "wearable",
    "lighting": "crossed",
    "emotions": "wearable",
    "subjects": "see-like",
}
#: Groups of subjects that arrive one after another, where lighting does not make the groups.
GROUPS = 4

Clips = tuple[int, ...]


@dataclass(frozen=True)
class Stage:
    """Indices of clips: learned in this order; of the same people and domain, never learned; of unseen people."""

    name: str
    learned: Clips
    held_out: Clips
    unseen: Clips


@dataclass(frozen=True)
class DeviceStream:
    """What one device sees: its name, a subject's or ``everyone``, and its stages."""

    device: str
    stages: tuple[Stage, ...]

    @property
    def clips(self) -> Clips:
        """Every clip that is learned or asked, once, ascending."""
        return tuple(sorted({c for s in self.stages for c in (*s.learned, *s.held_out, *s.unseen)}))


def device_streams(
    kind: StreamName, records: Sequence[ClipRecord], learners: Iterable[str], unseen: Iterable[str], *, seed: int
) -> tuple[DeviceStream, ...]:
    """The stream of every learner, or the one of all learners with ``subjects``.

    - ``sessions``: the subject's sessions in the order of their names (`session_order`).
    - ``lighting``: normal light, which the base knows, then the other lightings in an order drawn for each subject.
    - ``emotions``: every clip of the subject, two or three emotions a stage, in an order drawn for each subject.
    - ``subjects``: new people arrive in groups, on one device: lighting by lighting where everybody was recorded under
      one lighting, else in groups that are drawn.

    Of a session's performances, by emotion and take, every second one is held out; one that is there under several
    lightings is learned under all or held out under all. Raises DataInvalid when the data cannot show such a stream,
    and TooFewSubjects when a stage would have nothing to learn or to ask.
    """
    people, others = sorted(set(learners)), set(unseen)
    of_subject: dict[str, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        of_subject[record.subject].append(index)
    asked = [index for subject in sorted(others) for index in of_subject[subject]]
    held_out = {index for subject in people for index in _held_out(records, of_subject[subject])}

    def stage(name: str, own: Iterable[int], elsewhere: Iterable[int], device: str) -> Stage:
        mine = list(own)
        learned = [index for index in mine if index not in held_out]
        order = stream(seed, "stage", device, name).permutation(len(learned))
        made = Stage(
            name,
            tuple(learned[place] for place in order),
            tuple(index for index in mine if index in held_out),
            tuple(elsewhere),
        )
        if not (made.learned and made.held_out and made.unseen):
            raise TooFewSubjects(
                f"stage {name} of {device}: {len(made.learned)} clips to learn, {len(made.held_out)} held out, "
                f"{len(made.unseen)} of unseen people; add subjects or sequences"
            )
        return made

    if kind == "subjects":
        groups = _groups(records, people, of_subject, seed)
        stages = tuple(
            stage(
                name,
                [index for subject in members for index in of_subject[subject]],
                [index for index in asked if name not in LIGHTINGS or records[index].lighting == name],
                "everyone",
            )
            for name, members in groups.items()
        )
        return (DeviceStream("everyone", stages),)
    streams = tuple(
        DeviceStream(
            subject,
            tuple(
                stage(
                    name,
                    own,
                    [i for i in asked if _alike(kind, records[i], [records[o] for o in own])],
                    subject,
                )
                for name, own in _domains(kind, records, subject, of_subject[subject], seed).items()
            ),
        )
        for subject in people
    )
    stages_of = {len(one.stages): one.device for one in streams}
    if len(stages_of) > 1:
        (fewer, one), (more, other) = min(stages_of.items()), max(stages_of.items())
        raise DataInvalid(
            f"{one} has {fewer} stages in a stream of {kind} and {other} has {more}: stages are compared one by one, "
            "so everybody needs as many; leave out whoever has fewer"
        )
    return streams


def people_of(one: DeviceStream, records: Sequence[ClipRecord]) -> tuple[DeviceStream, ...]:
    """What of a stream everybody in it has on a device of his own: a stage without clips of his is one without lessons.

    The stream of one subject is that itself.
    """
    subjects = sorted({records[clip].subject for stage in one.stages for clip in stage.learned})
    return tuple(
        DeviceStream(
            subject,
            tuple(
                replace(stage, learned=tuple(clip for clip in stage.learned if records[clip].subject == subject))
                for stage in one.stages
            ),
        )
        for subject in subjects
    )


def session_order(session: str) -> tuple[tuple[int, str], ...]:
    """Sorts sessions by name, a number in it as a number: 10 after 9, a date (year first) after an earlier one."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", session) if part)


def lessons(stage: Stage, clips: int) -> tuple[Clips, ...]:
    """A stage's clips to learn as lessons of at most ``clips``, as equal as can be; none where there are no clips."""
    if not stage.learned:
        return ()
    parts = -(-len(stage.learned) // clips)
    return tuple(tuple(int(i) for i in part) for part in np.array_split(np.array(stage.learned), parts))


def _domains(
    kind: StreamName, records: Sequence[ClipRecord], subject: str, own: Sequence[int], seed: int
) -> dict[str, list[int]]:
    """A subject's clips by stage, in the order of the stages."""
    if kind == "sessions":
        sessions = sorted({records[i].session for i in own}, key=session_order)
        if len(sessions) < 2:
            only = sessions[0] or "without a name: these data do not tell sessions apart, as SEE does not"
            raise DataInvalid(
                f"subject {subject} has one session alone ({only}), and a stream of sessions needs two; name them in "
                "sessions.json, use the synthetic design wearable (--design wearable), or --stream emotions"
            )
        return {f"session {session}": [i for i in own if records[i].session == session] for session in sessions}
    if kind == "lighting":
        under = {records[i].lighting for i in own}
        if len(under) < 2:
            raise DataInvalid(
                f"subject {subject} was recorded under one lighting only, as everybody in SEE: light is confounded "
                "with person and time of recording, so there is no stream of lightings within a subject; use --stream "
                "subjects, where groups of subjects arrive lighting by lighting, or the synthetic design crossed"
            )
        rest = [name for name in LIGHTINGS if name in under and name != "normal"]
        drawn = [rest[place] for place in stream(seed, "lightings", subject).permutation(len(rest))]
        order = [name for name in ("normal", *drawn) if name in under]
        return {name: [i for i in own if records[i].lighting == name] for name in order}
    order = [EMOTIONS[place] for place in stream(seed, "emotions", subject).permutation(len(EMOTIONS))]
    blocks = [order[:2], order[2:4], order[4:]]
    return {" + ".join(block): [i for i in own if records[i].emotion in block] for block in blocks}


def _alike(kind: StreamName, record: ClipRecord, own: Sequence[ClipRecord]) -> bool:
    """Whether an unseen person's clip is of the domain of a stage: its emotions, or its lightings."""
    if kind == "emotions":
        return record.emotion in {one.emotion for one in own}
    return record.lighting in {one.lighting for one in own}


def _groups(
    records: Sequence[ClipRecord], people: Sequence[str], of_subject: dict[str, list[int]], seed: int
) -> dict[str, list[str]]:
    lightings = {subject: {records[i].lighting for i in of_subject[subject]} for subject in people}
    if all(len(found) == 1 for found in lightings.values()):
        groups = {name: [subject for subject in people if lightings[subject] == {name}] for name in LIGHTINGS}
        groups = {name: members for name, members in groups.items() if members}
    else:
        drawn = [people[place] for place in stream(seed, "groups").permutation(len(people))]
        groups = {f"group {place + 1}": sorted(drawn[place::GROUPS]) for place in range(min(GROUPS, len(drawn)))}
    if len(groups) < 2:
        raise TooFewSubjects(f"{len(people)} subjects make {len(groups)} group; a stream needs two; add subjects")
    return groups


def _held_out(records: Sequence[ClipRecord], own: Sequence[int]) -> set[int]:
    """Of a subject's performances in a session, by emotion and take, every second one, under all of its lightings."""
    performances = sorted({(records[i].session, records[i].emotion, records[i].take) for i in own})
    sessions = {session for session, _, _ in performances}
    out = {one for session in sessions for one in [p for p in performances if p[0] == session][1::2]}
    return {i for i in own if (records[i].session, records[i].emotion, records[i].take) in out}
