"""The check before a recording, on machines made of files: what the kernel says of cables, rules and memory."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from client.cameras.source import parse_device
from client.consent_text import read_consent_text
from client.doctor import (
    Finding,
    Premises,
    check_camera,
    check_disk,
    check_memory,
    check_model,
    check_server,
    check_udev,
    check_wearer,
    examine,
)
from client.model_import import import_model
from client.sessions import Store
from client.settings import ClientSettings
from client.wearable.folders import is_memory
from client.wearable.lifecycle import new_wearer
from client.wearers import Wearers
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, Normalisation, write_model
from mcoe_model.networks import build


@pytest.fixture
def premises(tmp_path: Path) -> Premises:
    """A wearable that is set up, and a machine without anything plugged in."""
    folder = tmp_path / "wearable"
    new_wearer(Wearers(folder), "P01", "correct horse")
    here = tmp_path / "usb", tmp_path / "nodes", (tmp_path / "rules",), Path("/dev/shm")
    return Premises(folder, parse_device("davis346"), ClientSettings(), None, *here)


def plug_in(premises: Premises, product: str = "841a", speed: str = "5000") -> None:
    """What Linux says of a camera at a port."""
    port = premises.usb / "2-1"
    port.mkdir(parents=True, exist_ok=True)
    texts = {"idVendor": "152a", "idProduct": product, "speed": speed, "busnum": "2", "devnum": "7"}
    for name, text in texts.items():
        (port / name).write_text(f"{text}\n")


def states(found: list[Finding]) -> dict[str, str]:
    return {one.check: one.state for one in found}


def test_a_camera_is_found_and_the_cable_that_it_hangs_on(premises: Premises) -> None:
    assert states(examine(premises, [check_camera])) == {"camera": "wrong"}
    plug_in(premises, product="841b")
    [other] = examine(premises, [check_camera])
    assert other.state == "wrong" and "no DAVIS346" in other.what
    plug_in(premises, speed="480")
    assert states(examine(premises, [check_camera])) == {"camera": "ok", "usb 3": "wrong"}
    plug_in(premises)
    assert states(examine(premises, [check_camera])) == {"camera": "ok", "usb 3": "ok"}


def test_the_rule_that_ships_is_the_one_that_is_missed(premises: Premises) -> None:
    [missing] = examine(premises, [check_udev])
    assert missing.state == "wrong"
    shipped = Path(missing.remedy.split()[2])
    premises.rules[0].mkdir()
    (premises.rules[0] / shipped.name).write_bytes(shipped.read_bytes())
    assert states(examine(premises, [check_udev])) == {"udev rule": "ok"}


def test_of_a_camera_that_is_there_it_counts_whether_it_may_be_opened_not_what_a_rule_says(premises: Premises) -> None:
    premises.rules[0].mkdir()
    (premises.rules[0] / "65-inivation.rules").write_text('ATTR{idVendor}=="152a"\n')
    plug_in(premises)
    [shut] = examine(premises, [check_udev])
    assert shut.state == "wrong" and "may not open" in shut.what
    node = premises.nodes / "002" / "007"
    node.parent.mkdir(parents=True)
    node.touch()
    (premises.rules[0] / "65-inivation.rules").unlink()
    assert states(examine(premises, [check_udev])) == {"udev rule": "ok"}


def test_the_mount_that_shows_decides_whether_a_place_is_memory(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("tmpfs /dev/shm tmpfs rw 0 0\n")
    assert is_memory(Path("/dev/shm/x"), mounts)
    mounts.write_text("tmpfs /dev/shm tmpfs rw 0 0\n/dev/sda1 /dev/shm ext4 rw 0 0\n")
    assert not is_memory(Path("/dev/shm/x"), mounts)


def test_other_cameras_need_neither_cable_nor_rule(premises: Premises, tmp_path: Path) -> None:
    simulated = replace(premises, device=parse_device("simulated"))
    assert states(examine(simulated, [check_camera, check_udev])) == {"camera": "ok"}
    recording = replace(premises, device=parse_device(f"recording:{tmp_path / 'none.aedat4'}"))
    assert states(examine(recording, [check_camera])) == {"camera": "wrong"}


def test_space_is_looked_at_beside_floor_and_quota(premises: Premises) -> None:
    assert states(examine(premises, [check_disk])) == {"disk": "ok", "quota": "ok"}
    small = replace(premises, settings=ClientSettings(disk_floor_gb=1e9, quota_gb=1e-9))
    sealed = Wearers(premises.folder).paths.recordings / "a" / "000000.sealed"
    sealed.parent.mkdir(parents=True)
    sealed.write_bytes(b"12")
    assert states(examine(small, [check_disk])) == {"disk": "wrong", "quota": "wrong"}


def test_memory_that_is_a_disk_is_refused(premises: Premises, tmp_path: Path) -> None:
    found = states(examine(premises, [check_memory]))
    assert found["tmpfs"] in ("ok", "warning") and found["swap"] in ("ok", "warning")
    assert states(examine(replace(premises, shared_memory=Path("/proc")), [check_memory]))["tmpfs"] == "wrong"


def test_a_damaged_model_is_named(premises: Premises, tmp_path: Path) -> None:
    assert states(examine(premises, [check_model])) == {"model": "warning"}
    tensors = tensors_of(build("mcoe-tiny", seed=1))
    generation = Generation("mcoe-tiny", backbone_sha256(tensors), 64, Normalisation(0.3, 0.2, 0.5, 0.1))
    write_model(tmp_path / "model", tensors, ModelCard(generation, "test"))
    paths = Wearers(premises.folder).paths
    imported = import_model(paths, tmp_path / "model")
    [fine] = examine(premises, [check_model])
    assert fine.state == "ok" and "mcoe-tiny" in fine.what
    path = paths.models / f"{imported.sha256}.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    assert states(examine(premises, [check_model])) == {"model": "wrong"}


def test_the_wearers_side_is_looked_at(premises: Premises, tmp_path: Path) -> None:
    found = states(examine(premises, [check_server, check_wearer]))
    assert found == {"server": "ok", "key": "ok", "enrolled": "ok", "consent": "wrong", "unlocked": "unknown"}
    version = ClientSettings().rules().consent_version
    running = {"stage": "locked", "consents": [{"kind": "capture", "version": version}]}
    locked = states(examine(replace(premises, now=running), [check_wearer]))
    assert (locked["consent"], locked["unlocked"]) == ("ok", "wrong")
    running["stage"] = "open"
    assert states(examine(replace(premises, now=running), [check_wearer]))["unlocked"] == "ok"
    running["consents"] = [{"kind": "capture", "version": "older"}]
    assert states(examine(replace(premises, now=running), [check_wearer]))["consent"] == "wrong"
    assert states(examine(replace(premises, folder=tmp_path / "new"), [check_wearer])) == {"key": "wrong"}


def test_it_only_looks_at_the_store(premises: Premises) -> None:
    paths = Wearers(premises.folder).paths
    with closing(Store(paths.store, paths.recordings, ClientSettings().rules())) as store:
        store.answer_consents({"capture": True}, read_consent_text(None, "en"))

    def contents() -> dict[str, tuple[bytes, int]]:
        files = [path for path in premises.folder.rglob("*") if path.is_file()]
        return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    before = contents()
    assert states(examine(premises, [check_wearer]))["consent"] == "ok"
    assert contents() == before
    with closing(sqlite3.connect(paths.store)) as database, database:
        database.execute("DELETE FROM alembic_version")  # as before the first schema
    before = contents()
    [said] = [one for one in examine(premises, [check_wearer]) if one.check == "consent"]
    assert (said.state, "earlier version" in said.what) == ("unknown", True)
    assert contents() == before
