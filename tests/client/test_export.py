"""Exports: the wearer gets everything; a study gets what was agreed to, readable by its key alone."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import aedat
import numpy as np
import pytest
from exported import SECOND, SERIAL, Wearer
from recorded import read_independently, same
from toy_recordings import START_US
from typer.testing import CliRunner

from client.cli import app
from client.consent_text import ConsentTexts
from client.export.everything import ExportFile, everything
from client.export.folder import write_folder, zipped
from client.export.formats import STUDY_FORMATS, StudyFormat
from client.export.place import check_file, check_place
from client.export.study import Handed, export_for_study
from client.filesystem import filesystem, is_remote
from client.wearable import Wearable
from mcoe_model.consent import CONSENTS
from mcoe_model.data.cache import open_clips
from mcoe_model.data.see import read_see
from mcoe_model.errors import (
    ConsentMissing,
    DataInvalid,
    DataMissing,
    DiskFull,
    ExitCode,
    Locked,
    OutputExists,
    SettingsError,
)
from mcoe_model.plain_tar import untar
from mcoe_model.study import PRIVATE_FILE, StudyKey, make_study_key, read_for_study, read_private_key


@pytest.fixture(scope="module")
def wearer(tmp_path_factory: pytest.TempPathFactory) -> Wearer:
    """Two seconds: happiness, neutral, other, skipped, and one without a label. Not to be changed."""
    made = Wearer(tmp_path_factory.mktemp("wearer") / "wearable")
    session = made.record(seconds=2)
    for start_s, label in ((0.2, "happiness"), (0.8, "neutral"), (1.0, "other"), (1.2, "skip")):
        made.label(session, start_s, start_s + 0.6, label)
    made.store.add_span(session, START_US, START_US + SECOND)
    made.store.add_marker("wearer", "my boss Heinz came in", session_id=session, camera_us=START_US)
    return made


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


class TestEverything:
    def test_the_wearer_gets_all_there_is_readable_by_others(self, wearer: Wearer, tmp_path: Path) -> None:
        out = tmp_path / "mine"
        done = CliRunner().invoke(app, ["export", "--out", str(out), "--dir", str(wearer.folder)])
        assert done.exit_code == 0 and "not encrypted" in done.stdout, done.output
        assert out.stat().st_mode & 0o777 == 0o700 and not list(tmp_path.glob("*.partial"))
        assert json.loads((out / "wearer.json").read_bytes())["wearer"] == wearer.code
        (session,) = json.loads((out / "sessions.json").read_bytes())
        assert [span["label"] and span["label"]["said"] for span in session["spans"]] == [
            None, "happiness", "neutral", "other", "skip",
        ]  # fmt: skip
        labelled = session["spans"][1]
        assert labelled["label_versions"][0]["label"] == {"said": "happiness", "intensity": 3}
        assert labelled["predicted"]["probabilities"][0] == 0.4
        assert session["markers"][0]["text"] == "my boss Heinz came in"
        answers = json.loads((out / "consents.json").read_bytes())
        assert [answer["kind"] for answer in answers if answer["given"]] == list(CONSENTS)
        assert [path.read_text() for path in (out / "consent_texts").iterdir()] == [wearer.text.text]
        (file,) = sorted((out / "recordings" / session["id"]).iterdir())
        seen = read_independently([file])
        assert (len(seen.events), len(seen.frames), len(seen.imu), len(seen.triggers)) == (4_000, 60, 2_000, 2)
        assert seen.events["timestamp"][0] == START_US
        assert not any(SERIAL.encode() in path.read_bytes() for path in out.rglob("*") if path.is_file())

    def test_the_pages_zip_holds_the_same(self, wearer: Wearer, tmp_path: Path) -> None:
        write_folder(tmp_path / "mine", everything(wearer.store, wearer.code), 0)
        portions = list(zipped(everything(wearer.store, wearer.code)))
        archive = zipfile.ZipFile(io.BytesIO(b"".join(portions)))
        assert archive.testzip() is None
        files = {str(path.relative_to(tmp_path / "mine")) for path in (tmp_path / "mine").rglob("*") if path.is_file()}
        assert set(archive.namelist()) == files
        assert all(
            archive.read(name) == (tmp_path / "mine" / name).read_bytes() for name in files - {"wearer.json"}
        )

    def test_a_long_zip_comes_in_portions(self) -> None:
        content = os.urandom(3 << 20)
        portions = list(zipped(iter([("a", content), ("b", b"")])))
        assert len(portions) > 2 and max(map(len, portions)) < 2 << 20
        assert zipfile.ZipFile(io.BytesIO(b"".join(portions))).read("a") == content

    def test_the_wearable_that_runs_gives_it_to_its_page(self, tmp_path: Path) -> None:
        made = Wearer(tmp_path / "wearable")
        made.label(made.record(), 0.1, 0.9, "fear")
        made.store.close()

        async def exported() -> bytes:
            wearable, stopping = Wearable(made.folder, "none", made.store.rules, ConsentTexts(None)), asyncio.Event()
            await wearable.open()
            content = b"".join([portion async for portion in wearable.export()])
            stopping.set()
            await wearable.run(stopping)
            return content

        content = asyncio.run(exported())
        assert {"sessions.json", "wearer.json"} < set(zipfile.ZipFile(io.BytesIO(content)).namelist())

    def test_what_cannot_be_read_is_named_and_the_rest_is_there(self, tmp_path: Path) -> None:
        made = Wearer(tmp_path / "wearable")
        first, second = made.record(), made.record()
        (sealed,) = (made.paths.recordings / first).iterdir()
        sealed.write_bytes(sealed.read_bytes()[:-1])
        write_folder(tmp_path / "mine", everything(made.store, made.code), 0)
        told = json.loads((tmp_path / "mine" / "wearer.json").read_bytes())
        assert told["unreadable"] == [f"recordings/{first}/000000.aedat4"]
        assert len(read_independently([tmp_path / "mine" / "recordings" / second / "000000.aedat4"]).events) == 2_000

    def test_an_export_that_breaks_off_leaves_nothing(self, tmp_path: Path) -> None:
        def files() -> Iterator[ExportFile]:
            yield "a/b.txt", b"secret"
            assert (tmp_path / "mine.partial" / "a" / "b.txt").exists()
            raise Locked("locked meanwhile")

        with pytest.raises(Locked):
            write_folder(tmp_path / "mine", files(), 0)
        assert list(tmp_path.iterdir()) == []

    def test_a_locked_wearable_asks_for_the_passphrase(self, tmp_path: Path) -> None:
        folder = str(tmp_path / "wearable")
        asked = ["wearer", "new", "P07", "--dir", folder]
        assert CliRunner().invoke(app, asked, input="correct horse\n").exit_code == 0
        asked = ["export", "--out", str(tmp_path / "mine"), "--dir", folder]
        assert CliRunner().invoke(app, asked, input="battery staple\n").exit_code == ExitCode.LOCKED
        assert not (tmp_path / "mine").exists()
        assert CliRunner().invoke(app, asked, input="correct horse\n").exit_code == 0
        assert json.loads((tmp_path / "mine" / "sessions.json").read_bytes()) == []


class TestPlace:
    def test_only_a_new_name_beside_the_wearables_folder_with_room_will_do(self, tmp_path: Path) -> None:
        own, medium = tmp_path / "wearable", tmp_path / "stick"
        own.mkdir(), medium.mkdir()
        (medium / "link").symlink_to(own)
        check_place(medium / "mine", own, 1000)
        for wrong in (own / "mine", medium / "link" / "mine", own / ".." / "wearable" / "recordings"):
            with pytest.raises(SettingsError, match="own folder"):
                check_place(wrong, own, 1000)
        with pytest.raises(OutputExists):
            check_place(medium, own, 1000)
        with pytest.raises(OutputExists):
            check_place(medium / "link", own, 1000)
        with pytest.raises(DataMissing, match="medium"):
            check_place(tmp_path / "nowhere" / "mine", own, 1000)
        with pytest.raises(DiskFull, match="are free"):
            check_place(medium / "mine", own, 1 << 60)
        (medium / "mine.partial").mkdir()
        with pytest.raises(OutputExists, match="broken off"):
            write_folder(medium / "mine", [], 0)

    def test_a_stick_that_takes_no_large_file_is_named(self) -> None:
        check_file("vfat", 4 * 10**9), check_file("exfat", 5 * 10**9)
        with pytest.raises(SettingsError, match="exFAT"):
            check_file("vfat", 5 * 10**9)

    def test_other_machines_are_told_from_media(self, tmp_path: Path) -> None:
        mounts = tmp_path / "mounts"
        mounts.write_text(
            "/dev/mmcblk0p1 / ext4 rw 0 0\nnas:/home /mnt/nas nfs4 rw 0 0\n/dev/sda1 /media/my\\040stick vfat rw 0 0\n"
            "me@there: /home/me/there fuse.sshfs rw 0 0\n"
        )
        kinds = {
            place: filesystem(Path(place), mounts)
            for place in ("/home/me/x", "/mnt/nas/a/b", "/media/my stick/mine", "/home/me/there/x")
        }
        assert list(kinds.values()) == ["ext4", "nfs4", "vfat", "fuse.sshfs"]
        assert [is_remote(kind) for kind in kinds.values()] == [False, True, False, True]


class TestStudy:
    def test_see_is_read_by_what_reads_see(
        self, wearer: Wearer, exports: dict[StudyFormat, dict[str, bytes]], tmp_path: Path
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
        self, exports: dict[StudyFormat, dict[str, bytes]], wearer: Wearer, tmp_path: Path
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

    def test_csv_says_everything_of_each_column(self, exports: dict[StudyFormat, dict[str, bytes]]) -> None:
        files = exports["csv"]
        spans = rows(files["spans.csv"])
        assert [(one["label"], one["starts"], one["intensity"]) for one in spans] == [
            ("happiness", "0.200000", "3"), ("neutral", "0.800000", "3"), ("other", "1.000000", ""),
        ]  # fmt: skip
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

    @pytest.mark.parametrize("form", STUDY_FORMATS)
    def test_no_byte_names_anybody(
        self, exports: dict[StudyFormat, dict[str, bytes]], wearer: Wearer, form: StudyFormat, tmp_path: Path
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

    def test_the_file_itself_tells_nothing(self, wearer: Wearer, study: Path, handed: Path, tmp_path: Path) -> None:
        again = hand_over(wearer, study, "csv", tmp_path / "again")
        assert again == Handed(again.wearer, 3, 0)
        assert opened(tmp_path / "again", study) == opened(handed / "csv", study)
        first, second = (handed / "csv").read_bytes(), (tmp_path / "again").read_bytes()
        assert again.wearer.encode() not in first and b"happiness" not in first
        alike = sum(a == b for a, b in zip(first[13:10_000], second[13:10_000], strict=True))
        assert alike < 200, "two exports share no key"
        assert (tmp_path / "again").stat().st_mode & 0o777 == 0o600

    def test_pseudonyms_are_the_studys_own(
        self, wearer: Wearer, exports: dict[StudyFormat, dict[str, bytes]], tmp_path: Path
    ) -> None:
        make_study_key(tmp_path / "other")
        other = hand_over(wearer, tmp_path / "other", "csv", tmp_path / "export")
        ours, theirs = (
            rows(files["spans.csv"])[0] for files in (exports["csv"], opened(tmp_path / "export", tmp_path / "other"))
        )
        assert theirs["wearer"] == other.wearer != ours["wearer"]
        assert theirs["session"] != ours["session"]

    def test_without_consent_nothing_is_handed_over(self, study: Path, tmp_path: Path) -> None:
        made = Wearer(tmp_path / "wearable", agreed=("capture", "labels"))
        made.label(made.record(), 0.1, 0.9, "fear")
        asked = ["export", "--study", "--format", "see", "--out", str(tmp_path / "out"), "--dir", str(made.folder)]
        done = CliRunner().invoke(app, [*asked, "--study-key", str(study / "study.pub")])
        assert done.exit_code == ExitCode.CONSENT_MISSING and not (tmp_path / "out").exists()
        made.store.answer_consents({"export": True}, made.text)
        done = CliRunner().invoke(app, [*asked, "--study-key", str(study / "study.pub"), "--json"])
        assert done.exit_code == 0 and json.loads(done.stdout)["spans"] == 1, done.output

    def test_withdrawal_ends_an_export_under_way(self, study: Path, tmp_path: Path) -> None:
        made = Wearer(tmp_path / "wearable")
        session = made.record()
        made.label(session, 0.0, 0.5, "fear"), made.label(session, 0.4, 0.9, "fear")

        def progress(done: int, total: int, note: str) -> None:
            if done == 1:
                made.store.withdraw("export")

        place = tmp_path / "stick"
        place.mkdir()
        with pytest.raises(ConsentMissing):
            export_for_study(made.store, made.key, public(study), "csv", place / "out", made.folder, progress)
        assert list(place.iterdir()) == []

    def test_deleted_and_unlabelled_recordings_are_not_handed_over(self, study: Path, tmp_path: Path) -> None:
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

    def test_a_damaged_recording_is_refused_and_nothing_is_left(self, study: Path, tmp_path: Path) -> None:
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
    def test_settings_that_do_not_fit_are_named(
        self, wearer: Wearer, tmp_path: Path, wrong: list[str], says: str
    ) -> None:
        done = CliRunner().invoke(app, ["export", *wrong, "--out", str(tmp_path / "o"), "--dir", str(wearer.folder)])
        assert done.exit_code == ExitCode.USAGE and says in done.stderr

    def test_the_settings_name_the_study(self, wearer: Wearer, study: Path, tmp_path: Path) -> None:
        asked = ["export", "--study", "--format", "csv", "--out", str(tmp_path / "o"), "--dir", str(wearer.folder)]
        done = CliRunner(env={"MCOE_CLIENT_STUDY_KEY": str(study / "study.pub")}).invoke(app, asked)
        assert done.exit_code == 0 and public(study).fingerprint[:12] in done.stdout
