"""Streams: what comes when, what is held out, and what data cannot show."""

import dataclasses
import json

import numpy as np
import pytest

from mcoe_model.data.reader import with_takes
from mcoe_model.data.see import SequenceRecord, parse_name
from mcoe_model.data.synthetic.design import plan
from mcoe_model.data.synthetic.settings import SyntheticSettings
from mcoe_model.errors import DataInvalid, DataMissing, SettingsError, TooFewSubjects
from mcoe_model.names import EMOTIONS
from simulations.label_noise import confusion, given_label
from simulations.streams import DESIGN, device_streams, lessons, people_of, session_order


def records(design, subjects=8, sequences=None):
    found = []
    for clip in plan(SyntheticSettings(subjects, sequences, 64, design)):
        said = parse_name(clip.name)
        record = SequenceRecord(clip.name, *said, "training", 0, said.length, "", "").clip
        found.append(dataclasses.replace(record, session=str(clip.session or "")))
    return found


def people(found, count=5):
    subjects = sorted({record.subject for record in found})
    return subjects[:count], subjects[count:]


@pytest.mark.parametrize("kind", ["sessions", "lighting", "emotions", "subjects"])
def test_held_out_and_unseen_clips_are_never_learned_and_every_clip_is_used(kind):
    found = records(DESIGN[kind], subjects=16)
    learners, unseen = people(found, 12)
    if kind == "subjects":
        learners, unseen = [s for n, s in enumerate(learners + unseen) if n % 4], (learners + unseen)[::4]
    streams = device_streams(kind, found, learners, unseen, seed=0)
    for one in streams:
        learned = [clip for stage in one.stages for clip in stage.learned]
        held_out = [clip for stage in one.stages for clip in stage.held_out]
        mine = {found[clip].subject for clip in learned}
        assert len(set(learned + held_out)) == len(learned + held_out)
        assert not {found[c].subject for stage in one.stages for c in stage.unseen} & set(learners)
        assert set(learned + held_out) == {i for i, record in enumerate(found) if record.subject in mine}
    assert streams == device_streams(kind, found, learners, unseen, seed=0)
    assert streams != device_streams(kind, found, learners, unseen, seed=1)


def test_sessions_come_in_their_order():
    found = records("wearable", subjects=3)
    (one, *_) = device_streams("sessions", found, ["001", "002"], ["003"], seed=0)
    assert [{found[c].take // 100 for c in stage.learned} for stage in one.stages] == [{n} for n in range(1, 7)]
    for stage in one.stages:
        assert {found[c].emotion for c in stage.learned} == set(EMOTIONS) == {found[c].emotion for c in stage.held_out}
        lightings = {found[c].lighting for c in (*stage.learned, *stage.held_out)}
        assert {found[c].lighting for c in stage.unseen} == lightings and len(lightings) == 1


def test_sessions_are_told_by_the_data_whatever_numbers_the_takes_have():
    """Other readers count takes anew in every session, and call sessions what they like."""
    found = records("wearable", subjects=3)
    days = {str(number): f"day {number + 4}" for number in range(1, 7)}  # day 10 comes after day 9
    other = with_takes(dataclasses.replace(record, session=days[record.session]) for record in found)
    assert {record.take for record in other} < {0, 1, 2}
    (one, *_), (same, *_) = (device_streams("sessions", r, ["001", "002"], ["003"], seed=0) for r in (found, other))
    assert [stage.name for stage in same.stages] == [f"session day {number}" for number in range(5, 11)]
    for theirs, ours in zip(same.stages, one.stages, strict=True):
        assert sorted(theirs.learned) == sorted(ours.learned)
        assert (theirs.held_out, theirs.unseen) == (ours.held_out, ours.unseen)


def test_sessions_are_in_the_order_of_numbers_and_dates():
    named = ["2", "10", "9", "", "2024-10-02", "2024-09-30", "day 2", "day 10"]
    assert sorted(named, key=session_order) == ["", "day 2", "day 10", "2", "9", "10", "2024-09-30", "2024-10-02"]


def test_light_changes_stage_by_stage_and_a_relit_performance_stays_held_out():
    found = records("crossed", subjects=6, sequences=14)
    streams = device_streams("lighting", found, ["001", "002", "003"], ["004"], seed=0)
    for one in streams:
        assert one.stages[0].name == "normal" and len(one.stages) == 4
        performances = [
            {(found[c].emotion, found[c].take) for stage in one.stages for c in getattr(stage, part)}
            for part in ("learned", "held_out")
        ]
        assert not performances[0] & performances[1]
        for stage in one.stages:
            assert {found[c].lighting for c in (*stage.learned, *stage.held_out, *stage.unseen)} == {stage.name}
    assert len({tuple(stage.name for stage in one.stages) for one in streams}) > 1


def test_emotions_come_in_blocks_of_two_or_three():
    found = records("wearable", subjects=3)
    for one in device_streams("emotions", found, ["001", "002"], ["003"], seed=0):
        blocks = [{found[c].emotion for c in stage.learned} for stage in one.stages]
        assert sorted(map(len, blocks)) == [2, 2, 3] and set.union(*blocks) == set(EMOTIONS)
        assert [{found[c].emotion for c in stage.unseen} for stage in one.stages] == blocks


def test_on_see_like_data_people_arrive_lighting_by_lighting_and_other_streams_of_light_or_days_are_refused():
    found = records("see-like", subjects=16)
    subjects = sorted({record.subject for record in found})
    learners, unseen = [s for n, s in enumerate(subjects) if n % 4], subjects[::4]
    (one,) = device_streams("subjects", found, learners, unseen, seed=0)
    for stage in one.stages:
        assert {found[c].lighting for c in (*stage.learned, *stage.unseen)} == {stage.name}
    with pytest.raises(DataInvalid, match="light is confounded with person"):
        device_streams("lighting", found, learners, unseen, seed=0)
    with pytest.raises(DataInvalid, match=f"subject {learners[0]} has one session alone .*do not tell sessions apart"):
        device_streams("sessions", found, learners, unseen, seed=0)
    named = [dataclasses.replace(record, session="morning") for record in found]
    with pytest.raises(DataInvalid, match=r"has one session alone \(morning\)"):
        device_streams("sessions", named, learners, unseen, seed=0)


def test_people_with_different_numbers_of_sessions_are_not_compared():
    found = records("wearable", subjects=5)
    learners = sorted({record.subject for record in found})[:3]
    fewer = [
        dataclasses.replace(one, session="1") if one.subject == learners[1] and one.session != "6" else one
        for one in found
    ]
    with pytest.raises(DataInvalid, match=f"{learners[1]} has 2 stages .* {learners[2]} has 6"):
        device_streams("sessions", fewer, learners, ["004", "005"], seed=0)


def test_a_stage_with_nothing_to_learn_or_to_ask_is_refused():
    found = records("see-like", subjects=4, sequences=1)
    with pytest.raises(TooFewSubjects):
        device_streams("emotions", found, ["001"], ["002"], seed=0)


def test_lessons_are_a_stages_clips_in_their_order_and_as_equal_as_can_be():
    found = records("wearable", subjects=3)
    (one, *_) = device_streams("emotions", found, ["001"], ["002"], seed=0)
    cut = lessons(one.stages[0], 5)
    assert tuple(clip for lesson in cut for clip in lesson) == one.stages[0].learned
    assert {len(lesson) for lesson in cut} <= {4, 5}
    whole = dataclasses.replace(one.stages[0], learned=(3, 1, 2))
    assert lessons(whole, 8) == ((3, 1, 2),)
    assert lessons(dataclasses.replace(whole, learned=()), 8) == ()


def test_in_a_stream_of_people_everybody_has_a_device_of_his_own_with_lessons_in_one_stage():
    found = records("see-like", subjects=16)
    subjects = sorted({record.subject for record in found})
    learners, unseen = [s for n, s in enumerate(subjects) if n % 4], subjects[::4]
    (one,) = device_streams("subjects", found, learners, unseen, seed=0)
    each = people_of(one, found)
    assert [person.device for person in each] == learners
    for place, stage in enumerate(one.stages):
        parts = [person.stages[place] for person in each]
        assert sorted(c for part in parts for c in part.learned) == sorted(stage.learned)
        for part in parts:
            assert dataclasses.replace(part, learned=()) == dataclasses.replace(stage, learned=())
    for person in each:
        assert {found[c].subject for stage in person.stages for c in stage.learned} == {person.device}
        assert sum(bool(stage.learned) for stage in person.stages) == 1
    (alone, *_) = device_streams("emotions", found, learners[:1], unseen, seed=0)
    assert people_of(alone, found) == (alone,)


def test_labels_are_wrong_as_often_as_the_matrix_says():
    matrix = confusion("0.3")
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    given = [given_label(matrix, 2, f"clip {n}", seed=0) for n in range(2000)]
    assert np.mean(np.array(given) != 2) == pytest.approx(0.3, abs=0.04)
    assert given == [given_label(matrix, 2, f"clip {n}", seed=0) for n in range(2000)]
    assert all(given_label(confusion("0"), e, "clip", seed=0) == e for e in range(7))


def test_a_confusion_matrix_is_read_whole_or_refused(tmp_path):
    swap = np.eye(7)[[2, 1, 0, 3, 4, 5, 6]]
    (tmp_path / "swap.json").write_text(json.dumps(swap.tolist()))
    matrix = confusion(str(tmp_path / "swap.json"))
    assert [given_label(matrix, emotion, "clip", seed=0) for emotion in range(7)] == [2, 1, 0, 3, 4, 5, 6]
    for content in ("[[1]]", "no", json.dumps((swap * 2).tolist()), json.dumps([["a"] * 7] * 7)):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(SettingsError):
            confusion(str(tmp_path / "bad.json"))
    with pytest.raises(DataMissing):
        confusion(str(tmp_path / "none.json"))
    with pytest.raises(SettingsError):
        confusion("1.5")
