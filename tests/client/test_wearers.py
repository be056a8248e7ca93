"""Wearers of one wearable: folders and keys of their own, moved and erased whole, whenever a process dies."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from session_times import agree, opened, record

from client.enrolment import ClientPaths, make_key, read_membership
from client.keys import make_keyfile
from client.wearers import FIRST_CODE, Wearers
from mcoe_model.errors import DataInvalid, DataMissing, OutputExists

MEMBERSHIP = 'address = "10.0.0.5:8443"\nclient_id = "c1"\nclips = "/clips"\nsubject = "001"\n'


def worn(paths: ClientPaths) -> None:
    """Files as a wearer has them: keys, a membership, an outbox, recordings."""
    make_key(paths)
    make_keyfile(paths.device_key)
    paths.membership.write_text(MEMBERSHIP)
    paths.outbox.mkdir()
    (paths.outbox / "u.sealed").write_bytes(b"sealed")
    with opened(paths.folder) as store:
        agree(store)
        record(store, paths.folder / "memory", b"eye")
    (paths.folder / "memory").rmdir()


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Killed(BaseException):
    """Nothing of the program runs after this, as after SIGKILL."""


def die_at_rename(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    real, calls = Path.rename, 0

    def rename(path: Path, target: Any) -> Path:
        nonlocal calls
        calls += 1
        if calls > number:
            raise Killed
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)


def test_a_new_wearable_has_no_wearer_and_its_folder_is_used_as_it_is(tmp_path: Path) -> None:
    wearers = Wearers(tmp_path)
    assert wearers.current is None and wearers.paths == ClientPaths(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataMissing):
        wearers.close("forget")
    with pytest.raises(DataMissing):
        wearers.adopt()


def test_two_wearers_share_neither_folder_nor_key(tmp_path: Path) -> None:
    wearers = Wearers(tmp_path)
    first = wearers.new("A1")
    worn(first)
    before = {name: content for name, content in everything(first.folder).items() if name.endswith(("key", "node"))}
    with pytest.raises(OutputExists):
        wearers.new("A2")
    wearers.close("withdraw")
    second = Wearers(tmp_path).new("A2")
    assert second.folder != first.folder and everything(second.folder) == {}
    worn(second)
    after = everything(tmp_path)
    assert before and not set(before.values()) & set(after.values())
    assert Wearers(tmp_path).current == "A2"
    assert second.folder.stat().st_mode & 0o777 == 0o700


def test_a_wearer_who_was_begun_and_has_no_key_is_begun_anew(tmp_path: Path) -> None:
    Wearers(tmp_path).new("A1")
    assert Wearers(tmp_path).current is None
    make_key(Wearers(tmp_path).new("A2"))
    assert Wearers(tmp_path).current == "A2"
    assert [path.name for path in (tmp_path / "wearers").iterdir()] == ["A2"]


@pytest.mark.parametrize("code", ["", "..", "a/b", ".closing-x", "Anna Meier", "x" * 33])
def test_codes_that_are_none_are_refused(tmp_path: Path, code: str) -> None:
    with pytest.raises(DataInvalid, match="code"):
        Wearers(tmp_path).new(code)


def test_a_wearer_without_a_code_can_be_given_a_folder_and_loses_nothing(tmp_path: Path) -> None:
    worn(ClientPaths(tmp_path))
    (tmp_path / "mcoe-client.toml").write_text("page_port = 1234\n")
    before = everything(tmp_path)
    with pytest.raises(OutputExists):
        Wearers(tmp_path).new("A1")
    paths = Wearers(tmp_path).adopt()
    settings = before.pop("mcoe-client.toml")
    assert everything(paths.folder) == before and paths == Wearers(tmp_path).paths
    assert (tmp_path / "mcoe-client.toml").read_bytes() == settings
    assert Wearers(tmp_path).current == FIRST_CODE
    assert read_membership(paths).client_id == "c1"


@pytest.mark.parametrize("renames", [0, 1, 4, 7])
def test_a_move_that_was_cut_short_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int) -> None:
    worn(ClientPaths(tmp_path))
    before = everything(tmp_path)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        die_at_rename(patched, renames)
        Wearers(tmp_path).adopt("A1")
    assert everything(Wearers(tmp_path).paths.folder) == before
    assert Wearers(tmp_path).current == "A1"


def test_closing_erases_everything_even_when_it_was_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wearers = Wearers(tmp_path)
    worn(wearers.new("A1"))
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("client.wearers._erase", lambda folder: (_ for _ in ()).throw(Killed))
        wearers.close("forget")
    assert Wearers(tmp_path).current is None
    assert everything(tmp_path) == {}


def test_a_wearer_without_a_code_is_closed_and_the_wearables_own_files_stay(tmp_path: Path) -> None:
    worn(ClientPaths(tmp_path))
    (tmp_path / "mcoe-client.toml").write_text("page_port = 1234\n")
    Wearers(tmp_path).close("forget")
    assert list(everything(tmp_path)) == ["mcoe-client.toml"]


def test_a_membership_of_version_0_1_is_found(tmp_path: Path) -> None:
    (tmp_path / "mcoe-client.toml").write_text(MEMBERSHIP)
    assert read_membership(Wearers(tmp_path).paths).address == "10.0.0.5:8443"
    assert not (tmp_path / "mcoe-client.toml").exists()


def test_folders_of_two_wearers_are_a_fault(tmp_path: Path) -> None:
    make_key(Wearers(tmp_path).new("A1"))
    shutil.copytree(tmp_path / "wearers" / "A1", tmp_path / "wearers" / "A2")
    with pytest.raises(DataInvalid, match="2 wearers"):
        _ = Wearers(tmp_path).paths
