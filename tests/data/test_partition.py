"""Splits by subject: disjoint at every level, each subject tested once, every stratum in every part."""

import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from see_folder import SeeFolder

from mcoe_model.data.cache import open_clips
from mcoe_model.data.partition import (
    Split,
    deal_iid,
    deal_label_skew,
    published_split,
    read_split,
    split_subjects,
    write_split,
)
from mcoe_model.data.reader import ClipRecord
from mcoe_model.data.sampling import window_law
from mcoe_model.data.see import read_see
from mcoe_model.errors import DataInvalid, DataMissing, SettingsError, TooFewSubjects
from mcoe_model.names import EMOTIONS

PARTS = ("base", "clients", "validation", "test")
MakeRecord = Callable[..., ClipRecord]


@pytest.fixture
def published(published_names: list[str], as_record: MakeRecord) -> list[ClipRecord]:
    return [as_record(name) for name in published_names]


def people(as_record: MakeRecord, sequences: list[int], lighting: str = "normal") -> list[ClipRecord]:
    """One subject for each number of sequences."""
    return [
        as_record(f"{100 * who + take}_{who:03d}_man_22_Master_{lighting}_{EMOTIONS[take % 7]}_20_take000")
        for who, count in enumerate(sequences)
        for take in range(count)
    ]


def test_shares_of_the_published_subjects(published: list[ClipRecord]) -> None:
    for fold in range(5):
        split = split_subjects(published, seed=3, fold=fold)
        sizes = {part: len(getattr(split, part)) / 89 for part in PARTS}
        assert sizes == pytest.approx({"base": 0.36, "clients": 0.36, "validation": 0.08, "test": 0.20}, abs=0.02)


@pytest.mark.parametrize("folds", [2, 5, 89])
def test_every_subject_is_tested_exactly_once(published: list[ClipRecord], folds: int) -> None:
    tested = Counter(
        subject for fold in range(folds) for subject in split_subjects(published, seed=1, fold=fold, folds=folds).test
    )
    assert set(tested) == {record.subject for record in published} and set(tested.values()) == {1}


def test_disjoint_at_every_level(see: SeeFolder, tmp_path: Path) -> None:
    clips = open_clips(see.root, size=8, cache=tmp_path)
    files = read_see(see.root).records
    by_subject = clips.by_subject()
    split = Split(base=("001",), clients=("002",), validation=("003",), test=("004",))
    levels: dict[str, dict[str, set[object]]] = {part: {} for part in PARTS}
    for part in PARTS:
        subjects = getattr(split, part)
        chosen = [clip for subject in subjects for clip in by_subject[subject]]
        levels[part] = {
            "subjects": set(subjects),
            "clips": set(chosen),
            "sequences": {clips.records[clip].name for clip in chosen},
            "pictures": {
                files[clip].picture(modality, index)
                for clip in chosen for modality in ("frame", "event") for index in range(clips.n_frames(clip))
            },
            "windows": {
                (clip, tuple(window)) for clip in chosen for window in window_law(clips.n_frames(clip)).windows.tolist()
            },
            "pixels": {picture.tobytes() for clip in chosen for both in clips.pictures(clip) for picture in both},
        }  # fmt: skip
    for one, other in itertools.combinations(PARTS, 2):
        for level, members in levels[one].items():
            assert members and not members & levels[other][level], f"{one} and {other} share {level}"


@given(
    sequences=st.lists(st.integers(1, 9), min_size=1, max_size=40),
    seed=st.integers(0, 9),
    fold=st.integers(0, 4),
)
def test_any_subjects_are_split_fully_or_refused(sequences: list[int], seed: int, fold: int) -> None:
    records = [
        ClipRecord(f"{who}-{take}", f"{who:03d}", "", "normal", EMOTIONS[take % 7], "testing", 20)
        for who, count in enumerate(sequences) for take in range(count)
    ]  # fmt: skip
    try:
        split = split_subjects(records, seed=seed, fold=fold)
    except TooFewSubjects:
        able = sum(count > 1 for count in sequences)
        assert len(sequences) < 5 or able < 6, "enough people were refused"
        return
    everyone = [subject for part in PARTS for subject in getattr(split, part)]
    assert sorted(everyone) == [f"{who:03d}" for who in range(len(sequences))]
    assert all(getattr(split, part) for part in PARTS)
    assert all(sequences[int(subject)] > 1 for subject in split.clients)


def test_deterministic_in_seed_and_fold(published: list[ClipRecord]) -> None:
    split = split_subjects(published, seed=5, fold=2)
    assert split == split_subjects(list(reversed(published)), seed=5, fold=2)
    assert split.sha256 == split_subjects(published, seed=5, fold=2).sha256
    assert split.test != split_subjects(published, seed=6, fold=2).test
    assert split.test != split_subjects(published, seed=5, fold=3).test


def test_every_part_gets_its_share_of_each_lighting(published: list[ClipRecord]) -> None:
    lighting = {record.subject: record.lighting for record in published}
    of_lighting = Counter(lighting.values())  # 36, 22, 19 and 12 subjects
    for fold in range(5):
        split = split_subjects(published, seed=2, fold=fold)
        for part, share in (("base", 0.36), ("clients", 0.36), ("test", 0.2)):
            got = Counter(lighting[subject] for subject in getattr(split, part))
            for name, subjects in of_lighting.items():
                assert abs(got[name] - share * subjects) <= 2.5, f"fold {fold}: {part} has {got[name]} of {name}"


def test_emotion_coverage_favours_no_part(published: list[ClipRecord]) -> None:
    of_subject = Counter(record.subject for record in published)
    able = [record for record in published if of_subject[record.subject] > 1]
    emotions = {subject: len({r.emotion for r in able if r.subject == subject}) for subject in of_subject}
    splits = [split_subjects(able, seed=seed) for seed in range(40)]
    mean = {part: np.mean([emotions[s] for split in splits for s in getattr(split, part)]) for part in PARTS}
    assert mean["base"] == pytest.approx(mean["clients"], abs=0.1)
    assert mean["test"] == pytest.approx(mean["clients"], abs=0.2)
    assert mean["validation"] == pytest.approx(mean["clients"], abs=0.4)


def test_subjects_with_one_sequence_are_never_clients(as_record: MakeRecord) -> None:
    records = people(as_record, [1] * 10 + [6] * 10)
    single = {f"{who:03d}" for who in range(10)}
    for fold in range(5):
        split = split_subjects(records, seed=0, fold=fold)
        assert not single & {*split.clients, *split.validation}
        assert single <= {*split.base, *split.test}


def test_subjects_under_several_lightings_are_a_stratum_of_their_own(as_record: MakeRecord) -> None:
    both = people(as_record, [4] * 10) + people(as_record, [4] * 10, "Low")
    only = [record for record in people(as_record, [0] * 10 + [4] * 10)]
    for fold in range(5):
        split = split_subjects(both + only, seed=0, fold=fold)
        assert sum(int(subject) < 10 for subject in split.test) == 2


@pytest.mark.parametrize(
    ("sequences", "folds", "words"),
    [
        ([5, 5, 5], 5, "3 subjects cannot be tested in 5 folds"),
        ([5, 5, 5], 3, r"nobody is left for \w+: of 3 subjects 1 are tested and 0 have a single"),
        ([1] * 9, 5, "nobody is left for clients and validation: of 9 subjects 2 are tested and 7 have"),
        ([], 5, "0 subjects"),
    ],
)
def test_too_few_subjects(as_record: MakeRecord, sequences: list[int], folds: int, words: str) -> None:
    with pytest.raises(TooFewSubjects, match=words):
        split_subjects(people(as_record, sequences), seed=0, folds=folds)


def test_impossible_folds_are_refused_together(published: list[ClipRecord]) -> None:
    with pytest.raises(SettingsError) as fault:
        split_subjects(published, seed=0, fold=7, folds=1)
    assert len(fault.value.faults) == 2


def test_published_split_reports_who_is_on_both_sides(as_record: MakeRecord) -> None:
    records = [
        as_record("1_001_man_24_Master_normal_angry_20_take000", "training"),
        as_record("2_001_man_24_Master_normal_angry_20_take001", "testing"),
        as_record("3_001_man_24_Master_normal_fear_20_take000", "testing"),
        as_record("4_002_man_24_Master_normal_fear_20_take000", "training"),
        as_record("5_003_man_24_Master_normal_fear_20_take000", "testing"),
    ]
    split = published_split(records)
    assert split.training == (records[0].name, records[3].name)
    assert split.testing == (records[1].name, records[2].name, records[4].name)
    overlap = split.overlap
    assert (overlap.subjects_training, overlap.subjects_testing, overlap.subjects_both) == (2, 2, 1)
    assert overlap.subjects_untrained == 1
    assert (overlap.sequences_testing, overlap.sequences_testing_of_seen_subjects) == (3, 2)


def test_fold_files_round_trip(published: list[ClipRecord], tmp_path: Path) -> None:
    split = split_subjects(published, seed=5, fold=2)
    write_split(tmp_path / "fold.json", split)
    assert read_split(tmp_path / "fold.json", published) == split


def good(published: list[ClipRecord]) -> dict[str, list[str]]:
    split = split_subjects(published, seed=5)
    return {part: list(getattr(split, part)) for part in PARTS}


def test_fold_files_that_cannot_be_used(published: list[ClipRecord], tmp_path: Path) -> None:
    path = tmp_path / "fold.json"
    with pytest.raises(DataMissing, match="no fold file"):
        read_split(path, published)
    extra, number = json.dumps({**good(published), "extra": []}), json.dumps({**good(published), "base": [1]})
    for content in ("", "[]", "{}", extra, number):
        path.write_text(content)
        with pytest.raises(DataInvalid, match="is no fold file"):
            read_split(path, published)
    leaking = good(published)
    leaking["base"].append(leaking["test"][0])
    path.write_text(json.dumps(leaking))
    with pytest.raises(DataInvalid, match=f"subjects {leaking['test'][0]} are in two parts"):
        read_split(path, published)
    path.write_text(json.dumps({**good(published), "base": ["999"]}))
    with pytest.raises(DataInvalid, match="1 subjects have no usable sequence: 999"):
        read_split(path, published)
    path.write_text(json.dumps({**good(published), "clients": []}))
    with pytest.raises(TooFewSubjects, match="nobody in clients"):
        read_split(path, published)


@given(st.integers(1, 30), st.integers(0, 60), st.integers(0, 5))
def test_dealing_iid_gives_every_client_as_many(clients: int, more: int, seed: int) -> None:
    owners = deal_iid([f"clip {number}" for number in range(clients + more)], clients, seed=seed)
    sizes = np.bincount(owners, minlength=clients)
    assert len(sizes) == clients and sizes.max() - sizes.min() <= 1


def test_a_small_alpha_leaves_clients_few_labels_and_a_large_one_all() -> None:
    labels = [number % 7 for number in range(700)]
    shares = {}
    for alpha in (0.1, 1000.0):
        owners = np.array(deal_label_skew(labels, 10, alpha, seed=1))
        counts = np.array([np.bincount(np.array(labels)[owners == client], minlength=7) for client in range(10)])
        assert counts.sum() == 700 and (counts.sum(axis=1) > 0).all()
        shares[alpha] = (counts.max(axis=1) / counts.sum(axis=1)).mean()
    assert shares[0.1] > 0.5 and shares[1000.0] < 0.2
    assert deal_label_skew(labels, 10, 0.1, seed=1) == deal_label_skew(labels, 10, 0.1, seed=1)
    assert deal_label_skew(labels, 10, 0.1, seed=1) != deal_label_skew(labels, 10, 0.1, seed=2)


def test_dealings_that_leave_somebody_without_clips_are_refused() -> None:
    with pytest.raises(TooFewSubjects, match="2 sequences are too few for 3 clients"):
        deal_iid(["a", "b"], 3, seed=0)
    with pytest.raises(SettingsError, match="leaves some of 7 clients without clips"):
        deal_label_skew([0] * 7, 7, 1e-3, seed=0)
    with pytest.raises(SettingsError, match="alpha"):
        deal_label_skew([0, 1], 2, 0.0, seed=0)
