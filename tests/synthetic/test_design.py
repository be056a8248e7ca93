"""What the three designs hold, against SEE's published facts."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from mcoe_model.data.see import parse_name
from mcoe_model.data.synthetic import SyntheticSettings
from mcoe_model.data.synthetic.design import EMOTION_COUNTS, LONGEST, SHORTEST, Clip, plan
from mcoe_model.data.synthetic.writer import sessions
from mcoe_model.names import EMOTIONS, LIGHTINGS


@pytest.fixture(scope="module")
def see_like() -> tuple[Clip, ...]:
    return plan(SyntheticSettings())


def test_see_like_has_sees_counts(see_like: tuple[Clip, ...]) -> None:
    assert len(see_like) == 2405
    assert {clip.subject for clip in see_like} == set(range(1, 112))
    assert Counter(clip.split for clip in see_like) == {"training": 1638, "testing": 767}
    by_emotion = Counter(clip.emotion for clip in see_like)
    for emotion, count in zip(EMOTIONS, EMOTION_COUNTS, strict=True):
        assert by_emotion[emotion] == pytest.approx(count * 2405 / 767, abs=1)
    assert {clip.take for clip in see_like} == set(range(5))


def test_see_like_has_sees_lengths(see_like: tuple[Clip, ...]) -> None:
    lengths = np.array([clip.length for clip in see_like])
    assert lengths.min() >= SHORTEST == 18
    assert lengths.max() <= LONGEST == 131
    assert lengths.mean() == pytest.approx(53.5, abs=1.5)
    assert lengths.std() == pytest.approx(15.2, abs=1.5)
    means = {e: np.mean([clip.length for clip in see_like if clip.emotion == e]) for e in EMOTIONS}
    assert min(means, key=lambda e: means[e]) == "surprise"
    assert max(means, key=lambda e: means[e]) == "fear"


@pytest.mark.parametrize(("subjects", "per_lighting"), [(111, {27, 28}), (32, {8}), (4, {1})])
def test_see_like_has_one_lighting_per_person_in_blocks(subjects: int, per_lighting: set[int]) -> None:
    clips = plan(SyntheticSettings(subjects=subjects))
    of_person = {clip.subject: clip.lighting for clip in clips}
    assert all(of_person[clip.subject] == clip.lighting for clip in clips)
    in_order = [of_person[subject] for subject in sorted(of_person)]
    assert in_order == sorted(in_order, key=LIGHTINGS.index)
    assert set(Counter(in_order).values()) == per_lighting


def test_the_split_cuts_through_people(see_like: tuple[Clip, ...]) -> None:
    splits = defaultdict(set)
    for clip in see_like:
        splits[clip.subject].add(clip.split)
    assert sum(len(both) == 2 for both in splits.values()) > 100


def test_names_say_what_the_plan_says(see_like: tuple[Clip, ...]) -> None:
    for clip in see_like:
        name = parse_name(clip.name)
        assert name == (
            clip.number, f"{clip.subject:03d}", clip.sex, clip.age, clip.degree,
            clip.lighting, clip.emotion, clip.length, clip.take,
        )  # fmt: skip
    spelled = {clip.name.split("_")[5] for clip in see_like}
    assert spelled == {"normal", "Overexposed", "Low", "HDR"}
    assert {clip.name.split("_")[6] for clip in see_like} == set(EMOTIONS)
    assert {clip.folder for clip in see_like} == {*EMOTIONS} - {"neutral"} | {"neutraL"}


@pytest.mark.parametrize("design", ["see-like", "crossed", "wearable"])
def test_numbers_are_distinct_and_blocked_by_person(design: str) -> None:
    clips = plan(SyntheticSettings(subjects=6, design=design))
    numbers = [clip.number for clip in clips]
    assert numbers == sorted(set(numbers))
    assert [clip.subject for clip in clips] == sorted(clip.subject for clip in clips)


def test_takes_of_an_emotion_have_neighbouring_numbers(see_like: tuple[Clip, ...]) -> None:
    first = [clip for clip in see_like if clip.subject == 1]
    assert [clip.emotion for clip in first] == sorted((clip.emotion for clip in first), key=EMOTIONS.index)
    starts = defaultdict(set)
    for clip in first:
        starts[clip.emotion].add(clip.number - clip.take)
    assert all(len(start) == 1 for start in starts.values())


def test_people_are_the_same_in_all_their_sequences(see_like: tuple[Clip, ...]) -> None:
    people = {(clip.subject, clip.sex, clip.age, clip.degree) for clip in see_like}
    assert len(people) == 111
    assert {sex for _, sex, _, _ in people} == {"man", "woman"}
    assert {degree for _, _, _, degree in people} == {"undergraduate", "Master", "Doctor"}
    assert all(19 <= age <= 28 for _, _, age, _ in people)


def test_a_cap_keeps_every_emotion() -> None:
    for cap in (7, 14):
        per_person = defaultdict(Counter)
        for clip in plan(SyntheticSettings(subjects=32, sequences=cap)):
            per_person[clip.subject][clip.emotion] += 1
        assert all(counts.total() <= cap for counts in per_person.values())
        assert np.mean([len(counts) for counts in per_person.values()]) > 6.8


def test_a_capped_set_is_part_of_the_whole_one() -> None:
    def performances(settings: SyntheticSettings) -> set[tuple[int, str, int, int]]:
        return {(clip.subject, clip.emotion, clip.take, clip.length) for clip in plan(settings)}

    assert performances(SyntheticSettings(subjects=12, sequences=9)) < performances(SyntheticSettings(subjects=12))


def test_crossed_shows_each_performance_under_all_lightings() -> None:
    clips = plan(SyntheticSettings(subjects=4, sequences=8, design="crossed"))
    lightings = defaultdict(list)
    for clip in clips:
        lightings[clip.subject, clip.emotion, clip.take, clip.length].append(clip.lighting)
    assert {person for person, *_ in lightings} == {1, 2, 3, 4}
    assert all(sorted(found) == sorted(LIGHTINGS) for found in lightings.values())


def test_wearable_has_six_dated_sessions_of_fourteen_clips() -> None:
    settings = SyntheticSettings(subjects=3, design="wearable")
    clips = plan(settings)
    dated = sessions(clips, settings.seed)
    for subject in (1, 2, 3):
        own = [clip for clip in clips if clip.subject == subject]
        assert Counter(clip.session for clip in own) == dict.fromkeys(range(1, 7), 14)
        for session in range(1, 7):
            there = [clip for clip in own if clip.session == session]
            assert Counter(clip.emotion for clip in there) == dict.fromkeys(EMOTIONS, 2)
            assert len({clip.lighting for clip in there}) == 1
            assert {clip.take // 100 for clip in there} == {session}
        dates = [{dated[clip.name]["date"] for clip in own if clip.session == session} for session in range(1, 7)]
        assert all(len(days) == 1 for days in dates)
        in_order = [days.pop() for days in dates]
        assert in_order == sorted(set(in_order))
        assert {clip.lighting for clip in own} == set(LIGHTINGS)


def test_longer_wearable_sessions_stay_level() -> None:
    clips = plan(SyntheticSettings(subjects=1, design="wearable", sequences=96))
    assert Counter(clip.session for clip in clips) == dict.fromkeys(range(1, 7), 16)
    per_emotion = Counter((clip.session, clip.emotion) for clip in clips)
    assert set(per_emotion.values()) == {2, 3}


def test_the_plan_is_a_function_of_the_seed() -> None:
    assert plan(SyntheticSettings(subjects=5)) == plan(SyntheticSettings(subjects=5))
    assert plan(SyntheticSettings(subjects=5)) != plan(SyntheticSettings(subjects=5, seed=1))
