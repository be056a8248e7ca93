"""Members: the registry says who they are, and a real SuperLink is made to let in those and no others."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from migrated import migrated_file
from ports import free_port

from mcoe_model.errors import DataInvalid, DataMissing, EnrolmentRefused
from mcoe_model.files import write_bytes
from mcoe_model.invitation import Invitation
from mcoe_model.signed_request import RequestRefused, public_pem
from server.certificates import make_authority, make_server_certificate
from server.experiments import Experiments
from server.fleet import Fleet, canonical_key, read_key_file
from server.paths import ServerPaths
from server.registry import Registry
from server.registry.database import open_database, sqlite_url
from server.superlink.control import Control

SERVE = """
import sys
from pathlib import Path
from starlette.applications import Starlette
from mcoe_model.workers import end_with_parent
from server.superlink.process import SuperLink, serve
end_with_parent()
folder = Path(sys.argv[1])
serve(SuperLink(folder, folder / "superlink.sqlite", folder / "secret", "127.0.0.1", int(sys.argv[2]),
                int(sys.argv[3]), 1000, 1 << 26), Starlette(), "/v1/device/", lambda refusal: None)
"""


@pytest.fixture(scope="module")
def superlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerPaths, str]]:
    """The folder and the loopback address of a SuperLink of ours."""
    folder = tmp_path_factory.mktemp("superlink")
    make_authority(folder)
    make_server_certificate(folder, ["localhost"])
    write_bytes(folder / "secret", b"s" * 32)
    public, local = free_port(1), free_port(1)
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-c", SERVE, str(folder), str(public), str(local)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    address, ends = f"127.0.0.1:{local}", time.monotonic() + 120
    while True:
        try:
            httpx.get(f"http://{address}/health")
            break
        except httpx.TransportError:
            assert process.poll() is None and time.monotonic() < ends, (folder / "log").read_text()
            time.sleep(0.1)
    yield ServerPaths(folder), address
    process.terminate()
    process.wait(60)


@pytest.fixture
def fleet(superlink: tuple[ServerPaths, str], tmp_path: Path) -> Iterator[Fleet]:
    registry = Registry(open_database(sqlite_url(migrated_file(tmp_path / "registry.sqlite"))), "members")
    made = Fleet(registry, *superlink)
    made.register_members()  # of the tests before, nobody is a member here
    yield made
    registry.engine.dispose()


def known(fleet: Fleet) -> dict[str, int]:
    with closing(Control(fleet.control_address)) as control:
        return control.nodes()


def new_key() -> str:
    return public_pem(ec.generate_private_key(ec.SECP384R1()))


def test_an_invitation_names_server_authority_and_a_new_pseudonym(fleet: Fleet) -> None:
    first, second = (fleet.invite("fleet.example.org:8443", "0a" * 32) for _ in range(2))
    assert Invitation.from_line(first.to_line()) == first
    assert first.client_id != second.client_id and first.token != second.token
    assert [(row.id, row.state) for row in fleet.registry.clients()] == sorted(
        (invitation.client_id, "invited") for invitation in (first, second)
    )
    assert known(fleet) == {}


def test_a_token_is_kept_only_as_its_hash(fleet: Fleet, tmp_path: Path) -> None:
    token = fleet.invite("fleet:1", "0a" * 32, "a").token
    fleet.registry.engine.dispose()
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("registry.sqlite*"))
    assert b"invited" in kept and token.encode() not in kept


def test_an_invitation_that_nobody_could_read_is_not_made(fleet: Fleet) -> None:
    for address, client in (("fleet", "a"), ("fleet:8443", "my watch")):
        with pytest.raises(DataInvalid):
            fleet.invite(address, "0a" * 32, client)
    assert fleet.registry.clients() == []


def test_enrolment_tells_flower_and_only_of_this_key(fleet: Fleet) -> None:
    key = new_key()
    assert fleet.enrol(fleet.invite("fleet:1", "0a" * 32, "a").token, key) == "a"
    assert known(fleet) == {key: fleet.registry.client("a").node_id}
    assert Experiments([fleet]).of_key(key) == (fleet, "a")
    with pytest.raises(EnrolmentRefused, match="not enrolled"):
        Experiments([fleet]).of_key(new_key())


def test_an_enrolment_whose_answer_was_lost_may_be_asked_for_again_by_the_same_key(fleet: Fleet) -> None:
    key, token = new_key(), fleet.invite("fleet:1", "0a" * 32, "a").token
    assert fleet.enrol(token, key) == fleet.enrol(token, key) == "a"
    with pytest.raises(EnrolmentRefused, match="used before"):
        fleet.enrol(token, new_key())
    fleet.withdraw("a")
    with pytest.raises(EnrolmentRefused, match="used before"):
        fleet.enrol(token, key)
    assert known(fleet) == {}


def test_many_enrol_at_once_and_flower_knows_them_all(fleet: Fleet) -> None:
    tokens = [fleet.invite("fleet:1", "0a" * 32, f"c{index}").token for index in range(8)]
    keys = [new_key() for _ in tokens]
    with ThreadPoolExecutor(len(tokens)) as threads:
        found = list(threads.map(fleet.enrol, tokens, keys))
    assert found == [f"c{index}" for index in range(8)]
    assert known(fleet) == {row.public_key: row.node_id for row in fleet.registry.clients()}


def test_flower_is_made_to_agree_with_the_registry_whatever_it_knew(fleet: Fleet) -> None:
    """A key that the registry does not know goes; one that Flower does not know comes, whoever is only invited."""
    kept, missing, stranger = new_key(), new_key(), new_key()
    fleet.add("kept", kept)
    assert fleet.register_members() == 1
    before = known(fleet)
    fleet.add("missing", missing)
    with closing(Control(fleet.control_address)) as control:
        control.register(stranger)
    fleet.invite("fleet:1", "0a" * 32, "waiting")
    assert fleet.register_members() == 2
    after = known(fleet)
    assert after[kept] == before[kept] and after.keys() == {kept, missing}
    nodes = {row.id: row.node_id for row in fleet.registry.clients()}
    assert nodes == {"kept": after[kept], "missing": after[missing], "waiting": None}
    assert fleet.register_members() == 0


@pytest.mark.parametrize("end", ["revoke", "withdraw", "forget"])
def test_who_is_no_member_any_more_is_no_node(fleet: Fleet, end: str) -> None:
    key, other = new_key(), new_key()
    fleet.add("a", key)
    fleet.add("b", other)
    fleet.register_members()
    if end == "revoke":
        fleet.registry.revoke("a")
        fleet.register_members()
    elif end == "withdraw":
        fleet.withdraw("a")
    else:
        receipt = fleet.forget("a")
        assert (receipt.client_id, receipt.deleted["clients"]) == ("a", 1)
    assert known(fleet).keys() == {other}
    with pytest.raises(EnrolmentRefused):
        Experiments([fleet]).of_key(key)
    if end != "revoke":
        kept = [path.read_bytes() for path in fleet.paths.superlink.parent.glob("superlink.sqlite*")]
        assert kept and not any(key.encode() in content for content in kept)


@pytest.mark.parametrize("end", ["withdraw", "forget"])
def test_who_left_may_be_invited_again_with_the_old_key_or_a_new_one(fleet: Fleet, end: str) -> None:
    old, new = new_key(), new_key()
    fleet.enrol(fleet.invite("fleet:1", "0a" * 32, "a").token, old)
    for key in (old, new):
        getattr(fleet, end)("a")
        assert known(fleet) == {}
        assert fleet.enrol(fleet.invite("fleet:1", "0a" * 32, "a").token, key) == "a"
        assert known(fleet) == {key: fleet.registry.client("a").node_id}


def test_a_revoked_key_does_not_come_back_under_another_name(fleet: Fleet) -> None:
    key = new_key()
    fleet.enrol(fleet.invite("fleet:1", "0a" * 32, "a").token, key)
    fleet.registry.revoke("a")
    with pytest.raises(EnrolmentRefused, match="new one"):
        fleet.enrol(fleet.invite("fleet:1", "0a" * 32, "b").token, key)


def test_who_is_not_known_cannot_leave(fleet: Fleet) -> None:
    for leave in (fleet.withdraw, fleet.forget):
        with pytest.raises(DataMissing):
            leave("nobody")


# -- keys -----------------------------------------------------------------------------------------------------


def test_a_key_has_one_form_however_it_is_given(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    ssh = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    for text in (pem, ssh, ssh + " wearer@home\n", "\n" + pem, pem.replace("\n", "\r\n")):
        assert canonical_key(text) == pem
    (tmp_path / "node.pub").write_text(ssh)
    assert read_key_file(tmp_path / "node.pub") == pem


@pytest.mark.parametrize(
    "text", ["", "no key", "ecdsa-sha2-nistp384 AAAA", "ecdsa-sha2-mine AAAA", "ecdsa-sha2-nistp384", "\ud800"]
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(RequestRefused, match="public key"):
        canonical_key(text)


def test_a_key_of_another_kind_or_a_private_one_is_refused(tmp_path: Path) -> None:
    small, large = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP521R1())
    for key in (small, large, rsa.generate_private_key(65537, 2048)):
        ssh = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        with pytest.raises(RequestRefused):
            canonical_key(ssh.decode())
    secret = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "node").write_bytes(secret)
    (tmp_path / "garbage").write_bytes(b"\xff\xfe")
    for name in ("node", "garbage"):
        with pytest.raises(RequestRefused):
            read_key_file(tmp_path / name)
    with pytest.raises(DataMissing, match=r"node\.pub"):
        read_key_file(tmp_path / "nothing")
