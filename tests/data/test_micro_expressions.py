"""Reading a folder of micro-expressions: what counts, in which order, and why a row does not."""

import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mcoe_model.data.micro_expressions import CLASSES, decode, read_micro_expressions
from mcoe_model.errors import DataInvalid, DataMissing, MissingExtra


def write(root: Path, table: str, *folders: str, numbers: range = range(1, 13)) -> Path:
    (root / "labels.csv").write_text(table, encoding="utf-8")
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for number in numbers:
            # Not in the order of their names, which have no leading zeros.
            Image.new("RGB", (8, 4), (number, 100, 200)).save(root / folder / f"reg2_img{number}.png")
    return root


def test_reads_clips_of_several_databases(tmp_path: Path) -> None:
    table = (
        "Database,Subject,clip,Emotion,Onset,Offset,apex\n"
        "CASME2,sub01,casme2/sub01/EP02_01f,Happiness,9,11,10\n"
        "samm,01,samm/01/001_1,contempt,,,\n"
        "\n"
        "smic,01,smic/01/s01_su_01,surprise\n"
    )
    write(tmp_path, table, "casme2/sub01/EP02_01f", "samm/01/001_1", "smic/01/s01_su_01")
    (tmp_path / "samm/01/001_1/Thumbs.db").write_bytes(b"")
    index = read_micro_expressions(tmp_path)
    assert index.unusable == ()
    assert [(clip.database, clip.subject, CLASSES[clip.label], len(clip.pictures)) for clip in index.clips] == [
        ("casme2", "casme2/sub01", "positive", 3),
        ("samm", "samm/01", "negative", 12),
        ("smic", "smic/01", "surprise", 12),
    ]
    assert index.clips[0].pictures == tuple(f"casme2/sub01/EP02_01f/reg2_img{number}.png" for number in (9, 10, 11))


def test_a_table_of_one_database_needs_three_columns(tmp_path: Path) -> None:
    write(tmp_path, "\ufeffsubject,clip,emotion\ns1,a,negative\n", "a")
    (clip,) = read_micro_expressions(tmp_path).clips
    assert (clip.database, clip.subject, clip.line) == ("", "s1", 2)


def test_a_row_that_cannot_be_used_is_listed_with_its_line_and_reason(tmp_path: Path) -> None:
    faulty = [
        ("s1,a,anger,,", "is in line 2 already"),
        ("s1,b,others,,", "others is in none of the classes negative, positive, surprise"),
        (",c,anger,,", "names no subject"),
        ("s1,../a,anger,,", "../a is no place below the root"),
        ("s1,nowhere,anger,,", "there is no such folder or video"),
        ("s1,film.avi,anger,,", "is torn or no video"),
        ("s1,empty,anger,,", "the folder holds no numbered picture"),
        ("s1,d,anger,x,", "onset 'x' is not the number of a picture"),
        ("s1,e,anger,3,40", "there is no picture of the offset, 40; there are 1 to 12"),
        ("s1,f,anger,5,4", "the onset 5 comes after the offset 4"),
    ]  # fmt: skip
    table = "\n".join(["subject,clip,emotion,onset,offset", "s1,a,anger,,", *(row for row, _ in faulty)])
    write(tmp_path, table, *"abcdef")
    (tmp_path / "empty").mkdir()
    (tmp_path / "film.avi").write_bytes(b"RIFF")
    index = read_micro_expressions(tmp_path)
    assert [clip.name for clip in index.clips] == ["a"]
    assert [(fault.line, fault.reason) for fault in index.unusable] == [
        (line, reason) for line, (_, reason) in enumerate(faulty, start=3)
    ]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("", "has no column subject, clip, emotion"),
        ("subject;clip;emotion\n", "has no column subject, clip, emotion"),
        ("subject,emotion\ns1,anger\n", "has no column clip"),
        ('subject,clip,emotion\n"s1,a,anger\n', "is no table of comma-separated values in UTF-8"),
    ],
)
def test_a_table_that_cannot_be_understood_is_an_error(tmp_path: Path, table: str, words: str) -> None:
    with pytest.raises(DataInvalid, match=words) as error:
        read_micro_expressions(write(tmp_path, table))
    assert "\n" not in str(error.value)


def test_an_absent_table_is_named_with_its_columns(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"labels.csv; it has a row for each clip: database,subject,clip,emotion"):
        read_micro_expressions(tmp_path)


def test_decoding_spreads_over_the_clip_and_keeps_red_first(tmp_path: Path) -> None:
    write(tmp_path, "subject,clip,emotion\ns1,a,fear\n", "a", numbers=range(1, 20))
    (clip,) = read_micro_expressions(tmp_path).clips
    video = decode(tmp_path, clip, frames=10, size=2)
    assert isinstance(video, np.ndarray) and video.shape == (10, 2, 2, 3)
    assert video[:, 1, 1].tolist() == [[number, 100, 200] for number in range(1, 20, 2)]
    (tmp_path / clip.pictures[4]).write_bytes(b"\x89PNG torn")
    assert decode(tmp_path, clip, frames=10, size=2) == "a/reg2_img5.png is torn or no picture"


def test_the_pictures_of_a_video_are_those_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "subject,clip,emotion,onset,offset\ns1,a,fear,3,12\ns2,film.avi,fear,3,12\n", "a")
    with av.open(str(tmp_path / "film.avi"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 8, 4, "bgr0"  # without loss
        for number in range(1, 13):
            with Image.open(tmp_path / f"a/reg2_img{number}.png") as picture:
                container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    index = read_micro_expressions(tmp_path)
    folder, video = index.clips
    assert index.unusable == () and len(video.pictures) == 10
    decoded = decode(tmp_path, video, frames=10, size=4)
    assert isinstance(decoded, np.ndarray)
    assert decoded.tolist() == decode(tmp_path, folder, frames=10, size=4).tolist()  # type: ignore[union-attr]
    (tmp_path / "film.avi").write_bytes((tmp_path / "film.avi").read_bytes()[:1200])
    assert decode(tmp_path, video, frames=10, size=4) == "film.avi is torn or no video"


def test_reading_tells_how_far_it_is_before_the_first_clip_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "subject,clip,emotion\ns1,film.avi,fear\ns1,a,fear\ns2,b,others\n", "a", "b")
    (tmp_path / "film.avi").write_bytes(b"RIFF")
    told: list[object] = []
    monkeypatch.setattr("mcoe_model.data.micro_expressions.count_pictures", lambda path: told.append(path.name) or 3)
    read_micro_expressions(tmp_path, lambda done, total, note: told.append((done, total)))
    assert told == [(0, 3), "film.avi", (1, 3), (2, 3), (3, 3)]


def test_a_video_without_its_reader_is_an_error_that_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "subject,clip,emotion\ns1,film.avi,fear\n")
    (tmp_path / "film.avi").write_bytes(b"RIFF")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r"film.avi is a video, which needs PyAV: pip install 'mcoe\[video\]'"):
        read_micro_expressions(tmp_path)


def test_a_larger_picture_is_averaged_over_areas(tmp_path: Path) -> None:
    write(tmp_path, "subject,clip,emotion\ns1,a,fear\n", "a", numbers=range(1, 2))
    (clip,) = read_micro_expressions(tmp_path).clips
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:2, :2], pixels[:2, 2:4] = 40, 80
    Image.fromarray(pixels).save(tmp_path / clip.pictures[0])
    video = decode(tmp_path, clip, frames=1, size=2)
    assert isinstance(video, np.ndarray) and video[0, ..., 0].tolist() == [[60, 0], [0, 0]]
