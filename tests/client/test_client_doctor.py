"""The check before a recording, on machines made of files: what the kernel says of cables, rules and memory."""

from __future__ import annotations

import datetime
import http.server
import importlib.metadata
import sqlite3
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from ports import free_port

from client.cameras.source import parse_device
from client.consent_text import read_consent_text
from client.doctor import (
    Finding,
    Premises,
    check_camera,
    check_clock,
    check_disk,
    check_memory,
    check_model,
    check_platform,
    check_power,
    check_server,
    check_udev,
    check_wearer,
    examine,
)
from client.model_import import import_model
from client.new_wearer import new_wearer
from client.sessions import Store
from client.settings import ClientSettings
from client.wearable.folders import is_memory
from client.wearers import Wearers
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, Normalisation, write_model
from mcoe_model.networks import build
from server.certificates import make_authority, make_server_certificate


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


def test_swap_on_a_disk_is_warned_of_and_swap_in_memory_is_not(premises: Premises, tmp_path: Path) -> None:
    premises = replace(premises, swaps=tmp_path / "swaps")
    heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    zram = "/dev/zram0                              partition\t1014412\t0\t5\n"
    for lines in ("", heading, heading + zram):
        premises.swaps.write_text(lines)
        assert states(examine(premises, [check_memory]))["swap"] == "ok"
    premises.swaps.write_text(f"{heading}{zram}/swapfile                               file\t\t2097148\t0\t-2\n")
    [found] = [one for one in examine(premises, [check_memory]) if one.check == "swap"]
    assert (found.state, found.what.split()[0], found.remedy.split(",")[0]) == ("warning", "1", "swapoff -a")


def test_a_clock_that_nothing_keeps_right_is_warned_of(premises: Premises) -> None:
    found = {}
    for state in ("synchronised", "unknown", "unsynchronised"):
        [found[state]] = examine(replace(premises, clock=lambda state=state: state), [check_clock])
    assert {state: one.state for state, one in found.items()} == {
        "synchronised": "ok", "unknown": "unknown", "unsynchronised": "warning",
    }  # fmt: skip
    assert "timedatectl set-ntp true" in found["unsynchronised"].remedy and not found["synchronised"].remedy
    assert states(examine(premises, [check_clock]))["clock"] in ("ok", "unknown", "warning"), "this machine's own"


def test_the_power_mode_is_what_the_jetson_calls_it(
    premises: Premises, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    [none] = examine(premises, [check_power])
    assert (none.state, none.remedy) == ("unknown", "") and "no nvpmodel" in none.what
    program = tmp_path / "bin" / "nvpmodel"
    program.parent.mkdir()
    said = {"NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN_SUPER\n2": "MAXN_SUPER", "15W": "15W"}
    for text, mode in said.items():
        program.write_text(f"#!/bin/sh\n[ \"$*\" = -q ] && echo '{text}'\n")
        program.chmod(0o755)
        [found] = examine(premises, [check_power])
        assert (found.state, found.what) == ("ok", mode) and "nvpmodel -m" in found.remedy
    for nothing in ("echo not root; exit 1", "exit 0"):
        program.write_text(f"#!/bin/sh\n{nothing}\n")
        assert states(examine(premises, [check_power])) == {"power mode": "unknown"}


@pytest.mark.parametrize(
    ("release", "state", "what", "remedy"),
    [
        ("", "ok", "no Jetson: Python", ""),
        ("# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic", "ok", "JetPack 7", ""),
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic", "ok", "JetPack 6", ""),
        ("# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref", "wrong", "Tegra R35", "JetPack 6 or 7"),
        ("damaged", "wrong", "Tegra R?", "JetPack 6 or 7"),
    ],
)
def test_the_case_of_jetpack_python_and_torch_is_named(
    premises: Premises, tmp_path: Path, release: str, state: str, what: str, remedy: str
) -> None:
    if release:
        (tmp_path / "nv_tegra_release").write_text(f"{release}\n")
    [found] = examine(replace(premises, release=tmp_path / "nv_tegra_release"), [check_platform])
    assert found.state == state and what in found.what
    assert remedy in found.remedy and bool(found.remedy) == bool(remedy)


def test_a_device_without_torch_cannot_recognise(premises: Premises, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", none)
    [found] = examine(premises, [check_platform])
    assert (found.state, found.remedy) == ("wrong", "install torch for this device: docs/client.md")


@contextmanager
def a_server(folder: Path, status: HTTPStatus = HTTPStatus.OK) -> Iterator[str]:
    """A fleet's server that answers /health over TLS with its authority's certificate; its address."""

    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else HTTPStatus.NOT_FOUND)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    folder.mkdir()
    make_authority(folder)
    make_server_certificate(folder, ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health) as served:
        served.socket = context.wrap_socket(served.socket, server_side=True)
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"127.0.0.1:{served.server_address[1]}"
        finally:
            served.shutdown()
            thread.join()


def join(premises: Premises, address: str, authority: bytes) -> None:
    """Be a member of the fleet at this address."""
    premises.paths.membership.write_text(f'address = "{address}"\nclient_id = "w1"\nclips = ""\nsubject = ""\n')
    premises.paths.authority.write_bytes(authority)


def server_lines(premises: Premises) -> dict[str, Finding]:
    return {one.check: one for one in examine(premises, [check_server])}


def test_a_server_that_answers_with_the_fleets_certificate_is_fine(premises: Premises, tmp_path: Path) -> None:
    with a_server(tmp_path / "server") as address:
        join(premises, address, (tmp_path / "server" / "ca.crt").read_bytes())
        found = server_lines(premises)
    assert {name: (one.state, one.remedy) for name, one in found.items()} == {
        "server": ("ok", ""), "certificate": ("ok", ""),
    }  # fmt: skip
    assert "200" in found["server"].what and "3650 days" in found["certificate"].what


def test_a_server_that_is_away_ill_or_another_is_warned_of(premises: Premises, tmp_path: Path) -> None:
    with a_server(tmp_path / "server") as address, a_server(tmp_path / "ill", HTTPStatus.SERVICE_UNAVAILABLE) as ill:
        authority = (tmp_path / "server" / "ca.crt").read_bytes()
        found = {}
        for name, at, trusted in (
            ("away", f"127.0.0.1:{free_port(1)}", authority),
            ("ill", ill, (tmp_path / "ill" / "ca.crt").read_bytes()),
            ("another", ill, authority),
            ("damaged authority", address, b"nothing that is a certificate"),
        ):
            join(premises, at, trusted)
            found[name] = server_lines(premises)["server"]
        premises.paths.authority.unlink()
        found["no authority"] = server_lines(premises)["server"]
    assert {one.state for one in found.values()} == {"warning"}
    assert all(one.remedy for one in found.values())
    assert "503" in found["ill"].what and "certificate" in found["another"].what
    assert "its certificate is the fleet's" not in found["another"].what
    premises.paths.membership.write_text("no membership")
    broken = server_lines(premises)["server"]
    assert (broken.state, broken.remedy) == ("wrong", "enrol again")


@pytest.mark.parametrize(("days", "state"), [(30, "ok"), (13, "warning"), (-1, "warning")])
def test_an_authority_that_ends_soon_is_warned_of(premises: Premises, days: int, state: str) -> None:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mcoe fleet authority")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(days=99))
        .not_valid_after(now + datetime.timedelta(days=days, hours=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    join(premises, f"127.0.0.1:{free_port(1)}", made.public_bytes(serialization.Encoding.PEM))
    found = server_lines(premises)["certificate"]
    assert found.state == state and f"{days} days" in found.what
    assert bool(found.remedy) == (state == "warning")
