"""Reading SEE's folders: sound ones, and every way they were thought to be broken."""

import os
import shutil
from pathlib import Path

import pytest
from see_folder import NAMES, SEE_ORDER, SeeFolder

from mcoe_model.data.see import parse_name, read_see
from mcoe_model.errors import DataInvalid, DataMissing, McoeError


def reasons(see: SeeFolder) -> dict[str, str]:
    see.annotate()
    return dict(read_see(see.root).skipped)


def test_reads_names_places_and_segments(see: SeeFolder) -> None:
    see.database[NAMES[2]]["annotations"]["segment"] = [1, 5]
    see.annotate()
    index = read_see(see.root)
    assert [record.name for record in index.records] == NAMES  # by number, 2 before 10
    assert index.skipped == ()
    assert index.labels == tuple(SEE_ORDER)
    first, neutral, fear = index.records[:3]
    assert (first.number, first.subject, first.sex, first.age, first.degree) == (1, "001", "man", 24, "Master")
    assert (first.lighting, first.emotion, first.length, first.take) == ("normal", "angry", 6, 0)
    assert [record.split for record in index.records[:2]] == ["training", "testing"]
    assert (fear.start, fear.end, fear.n_frames, fear.class_index) == (1, 5, 4, 2)
    assert neutral.event_folder == f"event/neutraL/{NAMES[1]}"
    assert neutral.picture("frame", 3) == f"frame/neutraL/{NAMES[1]}/00003.jpg"
    assert [record.lighting for record in index.records] == ["normal", "normal", "overexposed", "low-light", "hdr"]


@pytest.mark.parametrize("absent", ["", "emotion.json", "event", "frame"])
def test_absent_parts_are_named(see: SeeFolder, absent: str) -> None:
    path = see.root / absent
    path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(DataMissing, match=str(path)):
        read_see(see.root)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"labels": []}', b'{"labels": ["angry"], "database": {}}', b"\xff\xfe",
     b'{"labels": [1], "database": {}}', b'{"labels": [], "database": {"a": {"annotations": {"label": 3}}}}'],
)  # fmt: skip
def test_a_damaged_annotation_is_an_error(see: SeeFolder, content: bytes) -> None:
    (see.root / "emotion.json").write_bytes(content)
    with pytest.raises(DataInvalid, match=r"emotion\.json") as fault:
        read_see(see.root)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("90_005_man_24_Master_normal_joy_6_take000", "unknown emotion 'joy'"),
        ("90_005_man_24_Master_dusk_angry_6_take000", "unknown lighting 'dusk'"),
        ("90_005_man_24_Master_normal_angry_6", "8 fields instead of 9"),
        ("90_005_man_old_Master_normal_angry_6_take000", "age 'old' is not a number"),
        ("../../../secret", "1 fields"),
    ],
)
def test_a_name_that_is_not_understood_is_an_error(see: SeeFolder, name: str, words: str) -> None:
    see.database[name] = see.database[NAMES[0]]
    see.annotate()
    with pytest.raises(DataInvalid, match=f"1 of 6 sequences not understood: .*{words}") as fault:
        read_see(see.root)
    assert "\n" not in str(fault.value)


def test_many_names_that_are_not_understood_are_counted(see: SeeFolder) -> None:
    for number in range(20, 30):
        see.database[f"{number}_005_man_24_Master_normal_joy_6_take000"] = see.database[NAMES[0]]
    see.annotate()
    with pytest.raises(DataInvalid, match=r"10 of 15 .*20_005.*22_005.*\.\.\.$"):
        read_see(see.root)


def test_an_unknown_label_is_an_error(see: SeeFolder) -> None:
    see.database[NAMES[0]]["annotations"]["label"] = "boredom"
    see.annotate()
    with pytest.raises(DataInvalid, match="unknown emotion 'boredom'"):
        read_see(see.root)


def test_absent_sequences_are_listed(see: SeeFolder) -> None:
    shutil.rmtree(see.folder("event", NAMES[0]))
    shutil.rmtree(see.folder("frame", NAMES[3]))
    assert reasons(see) == {
        NAMES[0]: f"no folder event/angry/{NAMES[0]}",
        NAMES[3]: f"no folder frame/surprise/{NAMES[3]}",
    }
    assert len(read_see(see.root).records) == 3


def test_folders_the_annotation_does_not_name_are_listed(see: SeeFolder) -> None:
    del see.database[NAMES[0]]
    assert "emotion.json does not name it" in reasons(see)[NAMES[0]]


@pytest.mark.parametrize(
    ("segment", "words"),
    [
        ([0, 0], "holds no picture"),
        ([4, 2], "holds no picture"),
        ([-1, 3], "holds no picture"),
        ([0, 7], "frame picture 00006.jpg of the segment [0, 7) is missing"),
        ([0, "6"], "is not [start, end]"),
        ([0, 2.5], "is not [start, end]"),
        (None, "is not [start, end]"),
    ],
)
def test_impossible_segments_are_listed(see: SeeFolder, segment: object, words: str) -> None:
    see.database[NAMES[0]]["annotations"]["segment"] = segment
    assert words in reasons(see)[NAMES[0]]


def test_pictures_outside_the_segment_are_no_fault(see: SeeFolder) -> None:
    see.database[NAMES[0]]["annotations"]["segment"] = [0, 4]
    for modality in ("event", "frame"):
        (see.folder(modality, NAMES[0]) / "00005.jpg").write_bytes(b"")  # broken, and never looked at
        (see.folder(modality, NAMES[0]) / "Thumbs.db").write_bytes(b"x")
    assert reasons(see) == {}


def test_modalities_of_different_length_are_listed(see: SeeFolder) -> None:
    (see.folder("event", NAMES[0]) / "00005.jpg").unlink()
    assert reasons(see) == {NAMES[0]: "frame has 6 pictures, event 5"}


def test_a_hole_in_a_sequence_is_listed(see: SeeFolder) -> None:
    for modality in ("event", "frame"):
        (see.folder(modality, NAMES[0]) / "00002.jpg").unlink()
    assert "frame picture 00002.jpg of the segment [0, 6) is missing" in reasons(see)[NAMES[0]]


def test_an_empty_picture_is_listed(see: SeeFolder) -> None:
    (see.folder("event", NAMES[0]) / "00003.jpg").write_bytes(b"")
    assert reasons(see) == {NAMES[0]: "event picture 00003.jpg is empty"}


def test_contradictions_are_listed(see: SeeFolder) -> None:
    see.database[NAMES[0]]["annotations"]["label"] = "fear"
    for modality in ("event", "frame"):
        folder = see.folder(modality, NAMES[0])
        folder.rename(see.root / modality / "fear" / NAMES[0])
    see.database[NAMES[3]]["subset"] = "validation"
    assert reasons(see) == {
        NAMES[0]: "labelled fear but named angry",
        NAMES[3]: "subset 'validation' is neither training nor testing",
    }


def test_nothing_usable_is_an_error(see: SeeFolder) -> None:
    for entry in see.database.values():
        entry["annotations"]["segment"] = [0, 0]
    see.annotate()
    with pytest.raises(DataInvalid, match=r"holds no usable sequence: 5 skipped: .*holds no picture"):
        read_see(see.root)


def test_the_fingerprint_follows_every_change(see: SeeFolder) -> None:
    picture = see.folder("event", NAMES[0]) / "00000.jpg"
    fingerprints = [read_see(see.root).fingerprint, read_see(see.root).fingerprint]
    assert fingerprints[0] == fingerprints[1]
    os.utime(picture, ns=(1, 1))
    fingerprints.append(read_see(see.root).fingerprint)
    picture.write_bytes(picture.read_bytes() + b"\0")
    os.utime(picture, ns=(1, 1))
    fingerprints.append(read_see(see.root).fingerprint)
    see.database[NAMES[0]]["subset"] = "testing"
    see.annotate()
    fingerprints.append(read_see(see.root).fingerprint)
    assert len(set(fingerprints)) == 4


def test_the_published_names_are_understood(published_names: list[str]) -> None:
    parsed = [parse_name(name) for name in published_names]
    assert len({name.subject for name in parsed}) == 89
    assert {name.lighting for name in parsed} == {"normal", "overexposed", "low-light", "hdr"}


def test_errors_carry_their_exit_code(tmp_path: Path) -> None:
    with pytest.raises(McoeError) as fault:
        read_see(tmp_path / "nowhere")
    assert fault.value.exit_code == 10
