"""A study's export: what the wearer agreed to hand over, readable by its key alone."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from pathlib import Path

import aedat
import numpy as np
import pytest
from exported import SERIAL, Wearer, a_labelled_wearer
from recorded import read_independently, same
from toy_recordings import START_US
from typer.testing import CliRunner

from client.cli import app
from client.export.formats import STUDY_FORMATS, StudyFormat
from client.export.study import Handed, export_for_study
from mcoe_model.data.cache import open_clips
from mcoe_model.data.see import read_see
from mcoe_model.errors import (
    ConsentMissing,
    DataInvalid,
    DataMissing,
    ExitCode,
)
from mcoe_model.plain_tar import untar
from mcoe_model.study import PRIVATE_FILE, StudyKey, make_study_key, read_for_study, read_private_key


@pytest.fixture(scope="module")
def wearer(tmp_path_factory: pytest.TempPathFactory) -> Wearer:
    """Not to be changed."""
    return a_labelled_wearer(tmp_path_factory.mktemp("wearer") / "wearable")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study's key pair."""
    folder = tmp_path_factory.mktemp("study")
    make_study_key(folder)
    return folder


@pytest.fixture(scope="module")
def handed(wearer: Wearer, study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of each format."""
    folder = tmp_path_factory.mktemp("exports")
    for form in STUDY_FORMATS:
        hand_over(wearer, study, form, folder / form)
    return folder


@pytest.fixture(scope="module")
def exports(handed: Path, study: Path) -> dict[StudyFormat, dict[str, bytes]]:
    """What each format holds, by name."""
    return {form: opened(handed / form, study) for form in STUDY_FORMATS}


def public(study: Path) -> StudyKey:
    return StudyKey.from_line((study / "study.pub").read_text())


def hand_over(wearer: Wearer, study: Path, form: StudyFormat, out: Path) -> Handed:
    return export_for_study(wearer.store, wearer.key, public(study), form, out, wearer.folder)


def opened(file: Path, study: Path) -> dict[str, bytes]:
    content = read_for_study(file, read_private_key(study / PRIVATE_FILE))
    return {name: b"".join(portions) for name, portions in untar(content)}


def rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def test_see_is_read_by_what_reads_see(
    wearer: Wearer, exports: dict[StudyFormat, dict[str, bytes]], tmp_path: Path
) -> None:
    for name, content in exports["see"].items():
        (tmp_path / "see" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "see" / name).write_bytes(content)
    assert {path.name for path in (tmp_path / "see").iterdir()} == {"event", "frame", "emotion.json"}
    index = read_see(tmp_path / "see")
    assert [record.emotion for record in index.records] == ["happiness", "neutral"] and not index.skipped
    clips = open_clips(tmp_path / "see", size=90, cache=tmp_path / "cache")
    assert not clips.skipped
    ((subject, of_subject),) = clips.by_subject().items()
    assert subject.startswith("S") and len(of_subject) == 2
    frames, events = clips.pictures(0)
    assert abs(len(frames) - 18) <= 1 and frames.shape == events.shape  # 0.6 s at 30 a second
    assert set(np.unique(np.round(np.asarray(events) / 127.5))) == {0, 1, 2}


def test_aedat4_is_cut_to_the_span_and_tells_no_time_of_the_day(
    exports: dict[StudyFormat, dict[str, bytes]], wearer: Wearer, tmp_path: Path
) -> None:
    files = [name for name in exports["aedat4"] if name.endswith(".aedat4")]
    assert files == ["spans/0001.aedat4", "spans/0002.aedat4", "spans/0003.aedat4"]
    path = tmp_path / "span.aedat4"
    path.write_bytes(exports["aedat4"]["spans/0002.aedat4"])
    seen = read_independently([path])
    (session,) = wearer.store.sessions()
    whole = tmp_path / "whole.aedat4"
    whole.write_bytes(b"".join(wearer.store.open_segment(wearer.store.segments(session.id)[0])))
    all_of_it = read_independently([whole])
    begin, end = START_US + 800_000, START_US + 1_400_000
    wanted = all_of_it.events[(all_of_it.events["timestamp"] >= begin) & (all_of_it.events["timestamp"] <= end)]
    wanted["timestamp"] -= begin
    assert np.array_equal(seen.events, wanted) and len(wanted)
    inside = [frame for frame in all_of_it.frames if begin <= frame.start_us <= end]
    assert [frame.start_us for frame in seen.frames] == [frame.start_us - begin for frame in inside]
    assert np.array_equal(seen.frames[3].image, inside[3].image)
    assert seen.triggers == [(200_000, 1)] and len(seen.imu) == 601
    assert same(seen, read_independently([path]))


def test_csv_says_everything_of_each_column(exports: dict[StudyFormat, dict[str, bytes]]) -> None:
    files = exports["csv"]
    spans = rows(files["spans.csv"])
    assert [(one["label"], one["starts"], one["intensity"]) for one in spans] == [
        ("happiness", "0.200000", "3"), ("neutral", "0.800000", "3"), ("other", "1.000000", ""),
    ]  # fmt: skip
    ((at, number),) = {(one["at"], one["marker"]) for one in rows(files["markers.csv"])}
    assert (at, number) == ("0.300000", "1") and b"Heinz" not in b"".join(files.values())
    guesses = {(one["predicted"], one["confidence"], one["source"]) for one in spans}
    assert guesses == {("angry", "0.4000", "wearer")}
    book = rows(files["codebook.csv"])
    for name, content in files.items():
        kept = "events/*.csv" if name.startswith("events/") else name
        if name != "codebook.csv":
            explained = [one["column"] for one in book if one["file"] == kept]
            assert content.decode().splitlines()[0].split(",") == explained
    events = rows(files["events/0001.csv"])
    assert len(events) == pytest.approx(1_200, abs=20) and 0 <= int(events[0]["time"]) < 10_000
    assert len(rows(files["frames.csv"])) == pytest.approx(54, abs=3)
    assert all(one["meaning"] for one in book)


@pytest.mark.parametrize(
    ("change", "delays"),
    [
        ("", ["1", "1"]),
        ("UPDATE sessions SET clock_state = 'unsynchronised'", ["", ""]),
        ("UPDATE span_labels SET clock_state = 'unsynchronised'", ["", ""]),
        ("UPDATE span_labels SET clock_state = NULL", ["1", "1"]),
        ("UPDATE span_labels SET edited_us = 9", ["", ""]),
    ],
)
def test_where_clocks_cannot_tell_how_late_a_label_was_nothing_is_said(
    study: Path, tmp_path: Path, change: str, delays: list[str]
) -> None:
    made = Wearer(tmp_path / "wearable")
    made.label(made.record(), 0.0, 0.5, "fear")
    made.store.close()
    connection = sqlite3.connect(made.paths.store)
    connection.execute("UPDATE sessions SET clock_state = 'synchronised', started_us = started_us - 90000000")
    connection.execute("UPDATE span_labels SET clock_state = 'synchronised'")
    connection.execute(change)
    connection.commit()
    connection.close()
    made.store.unlock(made.key)
    hand_over(made, study, "csv", tmp_path / "out")
    files = opened(tmp_path / "out", study)
    assert [rows(files[name])[0]["label_delay"] for name in ("spans.csv", "versions.csv")] == delays


@pytest.mark.parametrize("form", STUDY_FORMATS)
def test_no_byte_names_anybody(
    exports: dict[StudyFormat, dict[str, bytes]], wearer: Wearer, form: StudyFormat, tmp_path: Path
) -> None:
    session = wearer.store.sessions()[0]
    names = [SERIAL, wearer.code, session.id, "Heinz", "/dev/shm", "mcoe-export"]
    places_and_times = [str(wearer.folder), str(tmp_path), str(START_US)[:9], str(session.started_us)[:7]]
    secrets = names + places_and_times
    for name, content in exports[form].items():
        found = [secret for secret in secrets if secret.encode() in name.encode() + content]
        assert not found, (name, found)
        if name.endswith(".aedat4"):
            (tmp_path / "span.aedat4").write_bytes(content)
            streams = str(aedat.Decoder(str(tmp_path / "span.aedat4")).id_to_stream())
            assert not [secret for secret in secrets if secret in streams]


def test_the_file_itself_tells_nothing(wearer: Wearer, study: Path, handed: Path, tmp_path: Path) -> None:
    again = hand_over(wearer, study, "csv", tmp_path / "again")
    assert again == Handed(again.wearer, 3, 0)
    assert opened(tmp_path / "again", study) == opened(handed / "csv", study)
    first, second = (handed / "csv").read_bytes(), (tmp_path / "again").read_bytes()
    assert again.wearer.encode() not in first and b"happiness" not in first
    alike = sum(a == b for a, b in zip(first[13:10_000], second[13:10_000], strict=True))
    assert alike < 200, "two exports share no key"
    assert (tmp_path / "again").stat().st_mode & 0o777 == 0o600


def test_pseudonyms_are_the_studys_own(
    wearer: Wearer, exports: dict[StudyFormat, dict[str, bytes]], tmp_path: Path
) -> None:
    make_study_key(tmp_path / "other")
    other = hand_over(wearer, tmp_path / "other", "csv", tmp_path / "export")
    ours, theirs = (
        rows(files["spans.csv"])[0] for files in (exports["csv"], opened(tmp_path / "export", tmp_path / "other"))
    )
    assert theirs["wearer"] == other.wearer != ours["wearer"]
    assert theirs["session"] != ours["session"]


def test_without_consent_nothing_is_handed_over(study: Path, tmp_path: Path) -> None:
    made = Wearer(tmp_path / "wearable", agreed=("capture", "labels"))
    made.label(made.record(), 0.1, 0.9, "fear")
    asked = ["export", "--study", "--format", "see", "--out", str(tmp_path / "out"), "--dir", str(made.folder)]
    done = CliRunner().invoke(app, [*asked, "--study-key", str(study / "study.pub")])
    assert done.exit_code == ExitCode.CONSENT_MISSING and not (tmp_path / "out").exists()
    made.store.answer_consents({"export": True}, made.text)
    done = CliRunner().invoke(app, [*asked, "--study-key", str(study / "study.pub"), "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["spans"] == 1, done.output


def test_without_the_consent_to_labels_none_is_handed_over_until_it_is_given_again(study: Path, tmp_path: Path) -> None:
    made = Wearer(tmp_path / "wearable")
    made.label(made.record(), 0.1, 0.9, "fear")
    made.store.withdraw("labels")
    with pytest.raises(ConsentMissing, match="labels"):
        hand_over(made, study, "csv", tmp_path / "out")
    made.store.answer_consents({"labels": True}, made.text)
    assert hand_over(made, study, "csv", tmp_path / "out").spans == 1


@pytest.mark.parametrize("kind", ["export", "labels"])
def test_withdrawal_ends_an_export_under_way(study: Path, tmp_path: Path, kind: str) -> None:
    made = Wearer(tmp_path / "wearable")
    session = made.record()
    made.label(session, 0.0, 0.5, "fear"), made.label(session, 0.4, 0.9, "fear")

    def progress(done: int, total: int, note: str) -> None:
        if done == 1:
            made.store.withdraw(kind)

    place = tmp_path / "stick"
    place.mkdir()
    with pytest.raises(ConsentMissing):
        export_for_study(made.store, made.key, public(study), "csv", place / "out", made.folder, progress)
    assert list(place.iterdir()) == []


def test_deleted_and_unlabelled_recordings_are_not_handed_over(study: Path, tmp_path: Path) -> None:
    made = Wearer(tmp_path / "wearable")
    session = made.record()
    made.label(session, 0.1, 0.9, "skip")
    with pytest.raises(DataMissing, match="label"):
        hand_over(made, study, "see", tmp_path / "out")
    made.label(session, 0.1, 0.9, "other")
    with pytest.raises(DataMissing, match="another format"):
        hand_over(made, study, "see", tmp_path / "out")
    made.store.delete_raw(session)
    with pytest.raises(DataMissing, match="label"):
        hand_over(made, study, "csv", tmp_path / "out")


def test_a_damaged_recording_is_refused_and_nothing_is_left(study: Path, tmp_path: Path) -> None:
    made = Wearer(tmp_path / "wearable")
    session = made.record()
    made.label(session, 0.1, 0.9, "fear")
    (sealed,) = (made.paths.recordings / session).iterdir()
    content = bytearray(sealed.read_bytes())
    content[len(content) // 2] ^= 1
    sealed.write_bytes(content)
    place = tmp_path / "stick"
    place.mkdir()
    with pytest.raises(DataInvalid):
        hand_over(made, study, "aedat4", place / "out")
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--format", "see"], "belong to --study"),
        (["--study"], "--format"),
        (["--study", "--format", "bids"], "bids"),
        (["--study", "--format", "see"], "no study is known"),
    ],
)
def test_settings_that_do_not_fit_are_named(wearer: Wearer, tmp_path: Path, wrong: list[str], says: str) -> None:
    done = CliRunner().invoke(app, ["export", *wrong, "--out", str(tmp_path / "o"), "--dir", str(wearer.folder)])
    assert done.exit_code == ExitCode.USAGE and says in done.stderr


def test_the_settings_name_the_study(wearer: Wearer, study: Path, tmp_path: Path) -> None:
    asked = ["export", "--study", "--format", "csv", "--out", str(tmp_path / "o"), "--dir", str(wearer.folder)]
    done = CliRunner(env={"MCOE_CLIENT_STUDY_KEY": str(study / "study.pub")}).invoke(app, asked)
    assert done.exit_code == 0 and public(study).fingerprint[:12] in done.stdout
