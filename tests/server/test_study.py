"""A study's key, and files for it: nothing in them is believed before it was checked, nobody else can open them."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mcoe_model.data.see import read_see
from mcoe_model.errors import DataInvalid, DataMissing, ExitCode, McoeError, OutputExists
from mcoe_model.plain_tar import tar, untar
from mcoe_model.study import (
    PRIVATE_FILE,
    PUBLIC_FILE,
    StudyKey,
    make_study_key,
    read_private_key,
    read_public_key,
    write_for_study,
)
from server.cli import app
from server.study import open_study

MOST = 10**8


@pytest.fixture
def study(tmp_path: Path) -> Path:
    make_study_key(tmp_path / "study")
    return tmp_path / "study"


def handed(study: Path, content: bytes, name: str = "export") -> Path:
    path = study.parent / name
    write_for_study(path, read_public_key(study / PUBLIC_FILE), [content[:100], content[100:]])
    return path


def archive(**files: bytes) -> bytes:
    return b"".join(tar((name.replace("__", "/"), content) for name, content in files.items()))


def see(subject: str) -> bytes:
    """One sequence of one picture, in SEE's layout."""
    name = f"1_{subject}_unknown_0_unknown_normal_fear_1_take000"
    entry = {name: {"subset": "training", "annotations": {"label": "fear", "segment": [0, 1]}}}
    labels = ["angry", "disgust", "fear", "happiness", "neutraL", "sadness", "surprise"]
    files = {f"{kind}/fear/{name}/00000.jpg": b"jpeg" for kind in ("event", "frame")}
    return b"".join(tar([*files.items(), ("emotion.json", json.dumps({"labels": labels, "database": entry}).encode())]))


def refused(study: Path, file: Path, error: type[McoeError] = DataInvalid) -> str:
    """What is said of a file that is refused: and nothing of it is left."""
    before = sorted(study.parent.rglob("*"))
    with pytest.raises(error) as fault:
        open_study([file], read_private_key(study / PRIVATE_FILE), study.parent / "out", MOST)
    assert sorted(study.parent.rglob("*")) == before
    return str(fault.value)


class TestKey:
    def test_the_private_part_is_private_and_never_written_over(self, tmp_path: Path) -> None:
        done = CliRunner().invoke(app, ["study", "new", str(tmp_path / "study"), "--json"])
        said = json.loads(done.stdout)
        private = tmp_path / "study" / PRIVATE_FILE
        assert private.stat().st_mode & 0o777 == 0o600
        assert StudyKey.from_line(said["public_key"]) == read_public_key(tmp_path / "study" / PUBLIC_FILE)
        assert len(said["public_key"].splitlines()) == 1 and said["fingerprint"] in str(said)
        assert private.read_text().split(":")[1].strip() not in done.stdout
        before = private.read_bytes()
        again = CliRunner().invoke(app, ["study", "new", str(tmp_path / "study")])
        assert again.exit_code == ExitCode.OUTPUT_EXISTS and private.read_bytes() == before

    @pytest.mark.parametrize("line", ["", "mcoe-study:", f"mcoe-study:{'A' * 43}", f"mcoe-study-private:{'A' * 43}="])
    def test_other_lines_are_no_public_key(self, line: str) -> None:
        with pytest.raises(DataInvalid, match="public key"):
            StudyKey.from_line(line)

    def test_keys_are_not_taken_for_one_another(self, study: Path) -> None:
        with pytest.raises(DataInvalid, match="no study's private key"):
            read_private_key(study / PUBLIC_FILE)
        with pytest.raises(DataInvalid, match="public key"):
            read_public_key(study / PRIVATE_FILE)
        with pytest.raises(DataMissing):
            read_private_key(study / "other.key")

    def test_a_key_that_protects_nothing_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataInvalid, match="protects nothing"):
            write_for_study(tmp_path / "export", StudyKey(bytes(32)), [b"content"])
        assert list(tmp_path.iterdir()) == []


class TestOpening:
    def test_what_was_handed_over_comes_out(self, study: Path, tmp_path: Path) -> None:
        big = os.urandom(300_000)
        file = handed(study, archive(spans__0001_aedat4=big, a_csv=b"", b_csv=b"x" * 512))
        asked = ["study", "open", str(file), "--key", str(study / PRIVATE_FILE), "--out", str(tmp_path / "out")]
        done = CliRunner().invoke(app, asked)
        assert done.exit_code == 0, done.output
        out = tmp_path / "out"
        found = {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}
        assert set(found) == {"spans/0001_aedat4", "a_csv", "b_csv"}
        assert found["spans/0001_aedat4"].read_bytes() == big and found["b_csv"].read_bytes() == b"x" * 512
        assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700 and not list(tmp_path.glob("*.partial"))
        assert CliRunner().invoke(app, asked).exit_code == ExitCode.OUTPUT_EXISTS

    def test_several_see_exports_become_one_data_set(self, study: Path, tmp_path: Path) -> None:
        files = [handed(study, see(subject), subject) for subject in ("Sa", "Sb")]
        key = read_private_key(study / PRIVATE_FILE)
        assert open_study(files, key, tmp_path / "out", MOST) == 5
        assert [record.subject for record in read_see(tmp_path / "out").records] == ["Sa", "Sb"]
        with pytest.raises(DataInvalid, match="same spans"):
            open_study([files[0], files[0]], key, tmp_path / "twice", MOST)
        with pytest.raises(DataInvalid, match="layout"):
            open_study([files[0], handed(study, archive(a=b"1"))], key, tmp_path / "mixed", MOST)
        assert not (tmp_path / "twice").exists() and not list(tmp_path.glob("*.partial"))

    def test_another_studys_key_opens_nothing(self, study: Path, tmp_path: Path) -> None:
        file = handed(study, archive(a=b"1"))
        make_study_key(tmp_path / "other")
        assert "another study" in refused(tmp_path / "other", file)

    @pytest.mark.parametrize("place", [0, 13, 40, 60, 100, 140, 150, 165, 70_000, -1])
    def test_a_file_with_another_byte_is_refused(self, study: Path, place: int) -> None:
        file = handed(study, archive(a=bytes(100_000)))
        content = bytearray(file.read_bytes())
        content[place] ^= 1
        file.write_bytes(content)
        assert refused(study, file), "in one line"

    @pytest.mark.parametrize("length", [0, 5, 100, 105, 200, 65_700, 90_000, -1])
    def test_a_torn_file_is_refused(self, study: Path, length: int) -> None:
        file = handed(study, archive(a=bytes(100_000)))
        file.write_bytes(file.read_bytes()[:length])
        assert refused(study, file), "in one line"

    @pytest.mark.parametrize(
        "name",
        ["../a", "/etc/a", "a/../../b", "a/./b", ".ssh/key", "a//b", "a\\b", "a\nb", "ä", "-rf", "a b",
         f"{'x' * 90}/{'y' * 80}/.."],
    )  # fmt: skip
    def test_names_that_lead_elsewhere_are_refused(self, study: Path, name: str) -> None:
        info = tarfile.TarInfo(name)
        info.size = 1
        content = info.tobuf(tarfile.USTAR_FORMAT, "utf-8") + b"1" + bytes(511) + bytes(1024)
        assert "nothing of it" in refused(study, handed(study, content))

    @pytest.mark.parametrize(
        "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.XHDTYPE,
                 tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE, tarfile.AREGTYPE],
    )  # fmt: skip
    def test_whatever_is_no_plain_file_is_refused(self, study: Path, kind: bytes) -> None:
        info = tarfile.TarInfo("a")
        info.type, info.linkname = kind, "/etc/passwd"
        content = info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
        assert "no plain file" in refused(study, handed(study, content))

    def test_a_name_twice_and_a_file_in_the_place_of_a_folder_are_refused(self, study: Path) -> None:
        assert "twice" in refused(study, handed(study, b"".join(tar([("a", b"1"), ("a", b"2")]))))
        assert "one name" in refused(study, handed(study, b"".join(tar([("a", b"1"), ("a/b", b"2")]))))
        assert "one name" in refused(study, handed(study, b"".join(tar([("a/b", b"1"), ("a", b"2")]))))

    def test_an_archive_that_ends_too_early_or_too_late_is_refused(self, study: Path) -> None:
        whole = archive(a=bytes(2000))
        assert "cut off" in refused(study, handed(study, whole[:1500]))
        assert "cut off" in refused(study, handed(study, whole[:-1024]))
        assert "after its end" in refused(study, handed(study, whole + b"more"))
        assert "damaged" in refused(study, handed(study, b"no tar" * 200))

    def test_there_is_a_bound_on_the_whole(self, study: Path, tmp_path: Path) -> None:
        file = handed(study, archive(a=bytes(1000), b=bytes(1000)))
        key = read_private_key(study / PRIVATE_FILE)
        with pytest.raises(DataInvalid, match="--most-gb"):
            open_study([file], key, tmp_path / "out", 1999)
        assert not (tmp_path / "out").exists()
        assert open_study([file], key, tmp_path / "out", 2000) == 2

    def test_what_is_there_is_left_alone(self, study: Path, tmp_path: Path) -> None:
        file = handed(study, archive(a=b"1"))
        (tmp_path / "out.partial").mkdir()
        with pytest.raises(OutputExists, match="broken off"):
            open_study([file], read_private_key(study / PRIVATE_FILE), tmp_path / "out", MOST)
        assert (tmp_path / "out.partial").is_dir()

    def test_what_is_no_export_is_refused(self, study: Path, tmp_path: Path) -> None:
        assert "no export" in refused(study, study / PUBLIC_FILE)
        refused(study, tmp_path / "nothing", DataMissing)


def test_our_tar_is_everybodys(tmp_path: Path) -> None:
    files = {"a.txt": b"1" * 513, f"event/surprise/{'n' * 90}/00000.jpg": b""}
    content = b"".join(tar(files.items()))
    with tarfile.open(fileobj=io.BytesIO(content)) as other:
        members = {member.name: other.extractfile(member).read() for member in other}  # type: ignore[union-attr]
        assert members == files
        assert all((member.mtime, member.uname, member.uid) == (0, "", 0) for member in other)
    assert {name: b"".join(portions) for name, portions in untar([content[:700], content[700:]])} == files
