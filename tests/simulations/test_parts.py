"""Who learns what: sessions that come later are learned by nobody, and mixed clients own every clip once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mcoe_model.data.reader import ClipRecord, with_takes
from mcoe_model.data.see import SequenceRecord, parse_name
from mcoe_model.data.synthetic.design import plan
from mcoe_model.errors import TooFewSubjects
from simulations.parts import make_parts
from simulations.settings import SimulationSettings


def records_of(settings: SimulationSettings) -> list[ClipRecord]:
    assert settings.synthetic is not None
    records = []
    for clip in plan(settings.synthetic):
        said = parse_name(clip.name)
        folders = {"frame_folder": "", "event_folder": ""}
        record = SequenceRecord(clip.name, *said, split=clip.split, start=0, end=said.length, **folders).clip
        records.append(replace(record, session=str(clip.session or "")))
    return records


def test_a_wearers_last_two_sessions_are_set_aside() -> None:
    settings = SimulationSettings(design="wearable", subjects=10, sequences=0)
    records = records_of(settings)
    parts = make_parts(settings, records)
    session = {record.name: int(record.session) for record in records}
    subject = {record.name: record.subject for record in records}
    assert {session[name] for name in parts.clients} == {1, 2, 3, 4} and parts.owners == ()
    assert {session[name] for name in parts.later} == {5, 6}
    assert {subject[name] for name in parts.later} == {subject[name] for name in parts.clients}
    assert all(list(map(subject.get, parts.later)).count(who) >= 28 for who in {subject[name] for name in parts.later})
    for others in (parts.base, parts.validation, parts.test):
        assert {session[name] for name in others} == {1, 2, 3, 4, 5, 6}
        assert not {subject[name] for name in others} & {subject[name] for name in parts.clients}


def test_another_reader_of_the_same_wearers_sets_the_same_sessions_aside() -> None:
    """The table that other representations are read through counts takes anew in every session."""
    settings = SimulationSettings(design="wearable", subjects=10, sequences=0)
    records = records_of(settings)
    parts = make_parts(settings, with_takes(records))
    assert parts.later and parts == make_parts(settings, records)


@pytest.mark.parametrize("partition", ["iid", "label-skew"])
@pytest.mark.parametrize("protocol", ["unseen-subjects", "published"])
def test_mixed_clients_are_as_many_as_the_subjects_whose_clips_they_share(partition: str, protocol: str) -> None:
    settings = SimulationSettings(partition=partition, protocol=protocol, alpha=0.5)  # type: ignore[arg-type]
    records = records_of(settings)
    parts, plain = make_parts(settings, records), make_parts(SimulationSettings(protocol=protocol), records)  # type: ignore[arg-type]
    assert (parts.base, parts.clients, parts.validation, parts.test) == (
        plain.base, plain.clients, plain.validation, plain.test,
    )  # fmt: skip
    subjects = {record.subject for record in records if record.name in set(parts.clients)}
    assert len(parts.owners) == len(parts.clients) and len(set(parts.owners)) == len(subjects)


def test_a_base_that_saw_one_lighting_leaves_everybody_else_theirs() -> None:
    records = records_of(SimulationSettings(design="crossed"))
    whole = make_parts(SimulationSettings(design="crossed"), records)
    parts = make_parts(SimulationSettings(design="crossed", base_lighting="normal,hdr"), records)
    lighting = {record.name: record.lighting for record in records}
    assert parts.base == tuple(name for name in whole.base if lighting[name] in ("normal", "hdr")) != whole.base
    assert (parts.clients, parts.validation, parts.test) == (whole.clients, whole.validation, whole.test)
    normal = [record for record in records if record.lighting == "normal"]
    with pytest.raises(TooFewSubjects, match="base-lighting"):
        make_parts(SimulationSettings(base_lighting="low-light"), normal)
