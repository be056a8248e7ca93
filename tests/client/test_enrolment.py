"""Joining a fleet and fetching its model, from servers that are not what they should be.

The server here is a real one over TLS that does as each test says; the fleet's own is in the integration tests.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from client.enrolment import ClientPaths, download_model, enrol, make_key, read_key, read_membership
from mcoe_model.consent import Consent
from mcoe_model.errors import DataInvalid, DataMissing, EnrolmentRefused, OutputExists, ServerUnreachable
from mcoe_model.invitation import Invitation
from mcoe_model.signed_request import public_pem
from server.certificates import fingerprint, make_authority, make_server_certificate, read_certificate

MODEL = bytes(range(256)) * 400
SHA256 = hashlib.sha256(MODEL).hexdigest()


class Played:
    """A server at an address of its own. ``answers`` are given in turn, by method and path; `asked` says what came."""

    def __init__(self, folder: Path) -> None:
        make_authority(folder)
        make_server_certificate(folder, ["127.0.0.1"])
        self.authority = folder / "ca.crt"
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.model = MODEL
        self.breaks_after: int | None = None
        self.knows_ranges = True
        self.refusal: bytes | None = None
        self.answer = json.dumps({"client_id": "w1"}).encode()
        played = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                played.asked.append((self.command, self.path, dict(self.headers), b""))
                if played.refusal is not None and self.path != "/v1/device/authority":
                    self._answer(403, played.refusal)
                elif self.path == "/v1/device/authority":
                    self._answer(200, played.authority.read_bytes())
                elif self.path == "/v1/device/model":
                    self._answer(200, json.dumps({"sha256": SHA256}).encode())
                else:
                    self._send_model()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                played.asked.append((self.command, self.path, dict(self.headers), body))
                if played.refusal is not None:
                    self._answer(403, played.refusal)
                else:
                    self._answer(200, played.answer)

            def _send_model(self) -> None:
                begin = int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
                if not played.knows_ranges:
                    begin = 0
                if begin >= len(played.model):
                    self._answer(416, b"")
                    return
                self.send_response(206 if begin else 200)
                self.send_header("content-length", str(len(played.model) - begin))
                self.end_headers()
                ends = len(played.model) if played.breaks_after is None else begin + played.breaks_after
                self.wfile.write(played.model[begin:ends])

            def _answer(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.crt", folder / "server.key")
        self.server.socket = context.wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def invitation(self, **changes: str) -> Invitation:
        usual = {
            "address": self.address,
            "fingerprint": fingerprint(read_certificate(self.authority)),
            "token": "t" * 32,
            "client_id": "w1",
        }
        return Invitation(**usual | changes)

    def ranges(self) -> list[str | None]:
        """From where the model was asked for, each time."""
        return [headers.get("range") for _, path, headers, _ in self.asked if path.startswith("/v1/device/models/")]


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    played = Played(tmp_path_factory.mktemp("server"))
    yield played
    played.server.shutdown()
    played.server.server_close()


@pytest.fixture
def wearable(tmp_path: Path) -> ClientPaths:
    return ClientPaths(tmp_path / "wearable")


@pytest.fixture
def member(server: Played, wearable: ClientPaths) -> ClientPaths:
    enrol(wearable, server.invitation(), Path("clips"), "001")
    server.asked.clear()
    return wearable


# -- joining --------------------------------------------------------------------------------------------------


def test_joining_sends_the_token_and_no_private_key_and_is_remembered(server: Played, wearable: ClientPaths) -> None:
    clips = Path('clips/"наши" 📁')
    agreed = Consent("updates", "2", datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC))
    membership = enrol(wearable, server.invitation(), clips, "001", [agreed])
    assert (membership.address, membership.client_id, membership.subject) == (server.address, "w1", "001")
    assert read_membership(wearable) == membership
    assert Path(membership.clips) == clips.absolute()
    (post,) = [asked for asked in server.asked if asked[0] == "POST"]
    assert json.loads(post[3]) == {"token": "t" * 32, "consents": [agreed.to_plain()]}
    private = wearable.key.read_text().splitlines()[2]
    assert private not in str(server.asked)
    assert wearable.authority.read_bytes() == server.authority.read_bytes()
    with pytest.raises(OutputExists, match="joined a fleet already"):
        enrol(wearable, server.invitation(), clips, "001")


def test_somebody_else_at_the_servers_address_is_told_nothing(server: Played, wearable: ClientPaths) -> None:
    with pytest.raises(DataInvalid, match="not the server of this invitation"):
        enrol(wearable, server.invitation(fingerprint="0" * 64), Path("clips"), "001")
    assert [(method, path) for method, path, _, _ in server.asked] == [("GET", "/v1/device/authority")]
    assert "t" * 32 not in str(server.asked)
    assert not wearable.authority.exists() and not wearable.membership.exists()


def test_whoever_only_knows_the_authoritys_certificate_is_told_nothing(
    server: Played, wearable: ClientPaths, tmp_path: Path
) -> None:
    """The certificate is public; the server's own must be signed by its key."""
    real = tmp_path / "real"
    make_authority(real)
    server.authority = real / "ca.crt"
    with pytest.raises(ServerUnreachable, match="certificate"):
        enrol(wearable, server.invitation(), Path("clips"), "001")
    assert [method for method, *_ in server.asked] == ["GET"]
    assert not wearable.membership.exists()


@pytest.mark.parametrize(
    "said", [b"", b"<html>", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"]
)
def test_an_answer_that_is_no_certificate_is_nobody(
    server: Played, wearable: ClientPaths, tmp_path: Path, said: bytes
) -> None:
    invitation = server.invitation()
    server.authority = tmp_path / "said"
    server.authority.write_bytes(said)
    with pytest.raises(DataInvalid, match="not the server"):
        enrol(wearable, invitation, Path("clips"), "001")


def test_a_refusal_is_one_printable_line_and_may_be_tried_again_with_the_same_key(
    server: Played, wearable: ClientPaths
) -> None:
    server.refusal = json.dumps({"error": "no\n\x1b[31m way " + "x" * 5000}).encode()
    with pytest.raises(EnrolmentRefused) as raised:
        enrol(wearable, server.invitation(), Path("clips"), "001")
    assert str(raised.value).isprintable() and len(str(raised.value)) < 400
    key = wearable.key.read_bytes()
    for refusal in (b"", b"[]", b"\xff", b'{"reason": "?"}'):
        server.refusal = refusal
        with pytest.raises(EnrolmentRefused, match="no reason given"):
            enrol(wearable, server.invitation(), Path("clips"), "001")
    server.refusal = None
    enrol(wearable, server.invitation(), Path("clips"), "001")
    assert wearable.key.read_bytes() == key


def test_nobody_at_the_address_is_said_in_one_line(wearable: ClientPaths) -> None:
    with closing(socket.socket()) as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ServerUnreachable, match="check address, network and clock"):
            enrol(wearable, Invitation(address, "0" * 64, "t" * 32, "w1"), Path("clips"), "001")


@pytest.mark.parametrize("answer", [b"", b"[]", b"1", b"torn {", b"[" * 70_000, b'{"client_id": "' + b"w" * 70_000])
def test_an_answer_that_cannot_be_read_enrols_nobody(server: Played, wearable: ClientPaths, answer: bytes) -> None:
    server.answer = answer
    with pytest.raises(ServerUnreachable, match="cannot be read"):
        enrol(wearable, server.invitation(), None, "")
    assert not wearable.membership.exists()


def test_an_address_that_is_none_is_said_in_one_line(wearable: ClientPaths) -> None:
    for address in ("[:1", "a:b:1"):
        with pytest.raises((DataInvalid, ServerUnreachable)):
            enrol(wearable, Invitation(address, "0a" * 32, "t" * 32, "w1"), None, "")


def test_the_key_is_made_once_and_for_the_owner_alone(wearable: ClientPaths) -> None:
    key = make_key(wearable)
    assert public_pem(make_key(wearable)) == public_pem(key) == public_pem(read_key(wearable))
    assert wearable.public_key.read_text() == public_pem(key)
    assert stat.S_IMODE(wearable.key.stat().st_mode) == 0o600
    assert wearable.key.read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY-----")


def test_a_key_that_is_missing_or_spoilt_is_named(wearable: ClientPaths) -> None:
    with pytest.raises(DataMissing, match="enrol again"):
        read_key(wearable)
    wearable.folder.mkdir()
    wearable.key.write_text("no key")
    with pytest.raises(DataInvalid, match="is no key"):
        read_key(wearable)


@pytest.mark.parametrize("content", [b"address = ", b'address = "a"', b'sudo = "b"', b"\xff\xfe", b""])
def test_a_membership_that_was_spoilt_is_named(wearable: ClientPaths, content: bytes) -> None:
    wearable.folder.mkdir()
    wearable.membership.write_bytes(content)
    with pytest.raises(DataInvalid, match=r"membership\.toml"):
        read_membership(wearable)


def test_who_has_not_joined_is_told_how_to(wearable: ClientPaths) -> None:
    with pytest.raises(DataMissing, match="mcoe-client enrol"):
        read_membership(wearable)


# -- the fleet's model ----------------------------------------------------------------------------------------


def test_the_newest_model_is_fetched_once_and_every_question_is_signed(server: Played, member: ClientPaths) -> None:
    path = download_model(member, server.address)
    assert (path.read_bytes(), path.name) == (MODEL, f"{SHA256}.safetensors")
    assert all("mcoe-signature" in {name.lower() for name in headers} for _, _, headers, _ in server.asked)
    assert download_model(member, server.address) == path
    assert server.ranges() == [None]
    assert [file.name for file in member.models.iterdir()] == [path.name]


def test_a_download_goes_on_where_it_broke_off(server: Played, member: ClientPaths) -> None:
    server.breaks_after = 40_000
    for _ in range(2):
        with pytest.raises(ServerUnreachable):
            download_model(member, server.address)
    server.breaks_after = None
    assert download_model(member, server.address).read_bytes() == MODEL
    assert server.ranges() == [None, "bytes=40000-", "bytes=80000-"]


def test_a_download_whose_last_step_was_killed_is_finished(server: Played, member: ClientPaths) -> None:
    """All bytes are there, only the name is not yet."""
    member.models.mkdir()
    (member.models / f"{SHA256}.partial").write_bytes(MODEL)
    assert download_model(member, server.address).read_bytes() == MODEL
    assert [file.suffix for file in member.models.iterdir()] == [".safetensors"]


def test_a_server_that_cannot_go_on_begins_again(server: Played, member: ClientPaths) -> None:
    member.models.mkdir()
    (member.models / f"{SHA256}.partial").write_bytes(MODEL[:1000])
    server.knows_ranges = False
    assert download_model(member, server.address).read_bytes() == MODEL


@pytest.mark.parametrize("partial", [b"x" * 1000, MODEL + b"more"])
def test_what_arrived_damaged_is_thrown_away_and_fetched_anew(
    server: Played, member: ClientPaths, partial: bytes
) -> None:
    member.models.mkdir()
    (member.models / f"{SHA256}.partial").write_bytes(partial)
    with pytest.raises(DataInvalid, match="damaged; try again"):
        download_model(member, server.address)
    assert list(member.models.iterdir()) == []
    assert download_model(member, server.address).read_bytes() == MODEL


def test_other_bytes_than_asked_for_are_no_model(server: Played, member: ClientPaths) -> None:
    server.model = MODEL[:-1] + b"!"
    for _ in range(2):
        with pytest.raises(DataInvalid, match="damaged"):
            download_model(member, server.address, SHA256)
    assert list(member.models.iterdir()) == []


@pytest.mark.parametrize("name", ["../../outside", "a/b", "", "Z" * 64, "0" * 63])
def test_a_server_cannot_name_a_file_outside_the_models(server: Played, member: ClientPaths, name: str) -> None:
    before = sorted(member.folder.rglob("*"))
    with pytest.raises(DataInvalid, match="no model"):
        download_model(member, server.address, name)
    assert sorted(member.folder.rglob("*")) == before


def test_a_refused_download_says_why(server: Played, member: ClientPaths) -> None:
    server.refusal = b'{"error": "this key is not enrolled"}'
    for sha256 in (None, SHA256):
        with pytest.raises(EnrolmentRefused, match="not enrolled"):
            download_model(member, server.address, sha256)


@pytest.mark.parametrize("before_tls", [True, False])
def test_a_server_that_trickles_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before_tls: bool
) -> None:
    """Every byte comes in time, and the answer never."""
    monkeypatch.setattr("client.enrolment.TIMEOUT_S", 0.5)
    make_authority(tmp_path)
    make_server_certificate(tmp_path, ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    trickles = threading.Event()

    def trickle(listening: socket.socket) -> None:
        connection = listening.accept()[0]
        if before_tls:
            connection.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 kB
        else:
            connection = context.wrap_socket(connection, server_side=True)
            connection.sendall(b"HTTP/1.1 200 OK\r\nx-waits: ")
        with closing(connection), suppress(OSError):
            while not trickles.wait(0.02):
                connection.sendall(b"x")

    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        server = threading.Thread(target=trickle, args=(listening,), daemon=True)
        server.start()
        invitation = Invitation(f"127.0.0.1:{listening.getsockname()[1]}", "f" * 64, "t" * 32, "w1")
        with pytest.raises(ServerUnreachable):
            enrol(ClientPaths(tmp_path / "member"), invitation, None, "")
        trickles.set()
        server.join(60)
