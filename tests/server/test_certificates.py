"""The fleet's authority and the server's certificate, judged by the library that wearables use to judge them."""

from __future__ import annotations

import datetime
import hashlib
import ssl
import stat
from pathlib import Path

import pytest

from mcoe_model.errors import DataInvalid, DataMissing, OutputExists
from server import certificates
from server.certificates import (
    AUTHORITY_DAYS,
    SERVER_DAYS,
    authorities,
    begin_rotation,
    days_left,
    fingerprint,
    finish_rotation,
    make_authority,
    make_server_certificate,
    read_certificate,
)

NAMES = ["fleet.example.org", "localhost", "127.0.0.1", "::1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_authority(tmp_path)
    make_server_certificate(tmp_path, NAMES)
    return tmp_path


def trusting(authority: Path) -> ssl.SSLContext:
    """What a wearable that enrolled with this authority trusts, as strictly as the library can."""
    context = ssl.create_default_context(cafile=str(authority))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def shake_hands(server: Path, client: ssl.SSLContext, name: str) -> str | None:
    """The TLS version of a handshake with the server of this folder, which is reached by this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server / "server.crt", server / "server.key")
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = context.wrap_bio(up, down, server_side=True)
    ours = client.wrap_bio(down, up, server_hostname=name)
    for _ in range(4):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ours.version()


@pytest.mark.parametrize("name", NAMES)
def test_a_wearable_believes_the_server_under_each_of_its_names(folder: Path, name: str) -> None:
    assert shake_hands(folder, trusting(folder / "ca.crt"), name) == "TLSv1.3"


@pytest.mark.parametrize("name", ["other.example.org", "example.org", "127.0.0.2"])
def test_under_another_name_it_does_not(folder: Path, name: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="match"):
        shake_hands(folder, trusting(folder / "ca.crt"), name)


def test_another_authority_with_the_same_name_is_not_believed(folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:  # fmt: skip
    other = tmp_path_factory.mktemp("other")
    make_authority(other)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(folder, trusting(other / "ca.crt"), "localhost")


def test_the_servers_certificate_cannot_sign_another(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever steals the server's key cannot make other servers of the fleet."""
    thief = tmp_path_factory.mktemp("thief")
    for name in ("key", "crt"):
        (thief / f"ca.{name}").write_bytes((folder / f"server.{name}").read_bytes())
    make_server_certificate(thief, ["elsewhere"])
    (thief / "server.crt").write_bytes((thief / "server.crt").read_bytes() + (folder / "server.crt").read_bytes())
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(thief, trusting(folder / "ca.crt"), "elsewhere")


def test_keys_are_for_the_owner_alone(folder: Path) -> None:
    for name in ("ca.key", "server.key"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
        assert b"PRIVATE KEY" in (folder / name).read_bytes()
    for name in ("ca.crt", "server.crt"):
        assert b"PRIVATE" not in (folder / name).read_bytes()


def test_renewal_under_the_same_authority_changes_nothing_for_a_wearable(folder: Path) -> None:
    wearable = trusting(folder / "ca.crt")
    before = {name: (folder / name).read_bytes() for name in ("ca.crt", "ca.key", "server.crt", "server.key")}
    make_server_certificate(folder, NAMES)
    after = {name: (folder / name).read_bytes() for name in before}
    assert {name for name in before if before[name] != after[name]} == {"server.crt", "server.key"}
    assert shake_hands(folder, wearable, "fleet.example.org") == "TLSv1.3"


def test_a_change_of_authority_overlaps(folder: Path) -> None:
    """Who trusts both believes the server before and after; who trusts one, on its side of the change."""
    old = trusting(folder / "ca.crt")
    assert authorities(folder) == (folder / "ca.crt").read_text()
    begin_rotation(folder)
    both = ssl.create_default_context(cadata=authorities(folder))
    new = trusting(folder / "next-ca.crt")
    with pytest.raises(OutputExists, match="finish-rotation"):
        begin_rotation(folder)
    for wearable in (old, both):
        assert shake_hands(folder, wearable, "fleet.example.org") == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(folder, new, "fleet.example.org")
    finish_rotation(folder)
    for wearable in (both, new):
        assert {shake_hands(folder, wearable, name) for name in NAMES} == {"TLSv1.3"}
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(folder, old, "fleet.example.org")
    assert authorities(folder) == (folder / "ca.crt").read_text()
    assert sorted(path.name for path in folder.iterdir()) == ["ca.crt", "ca.key", "server.crt", "server.key"]
    assert stat.S_IMODE((folder / "ca.key").stat().st_mode) == 0o600
    make_server_certificate(folder, NAMES)  # by the new key
    assert shake_hands(folder, new, "fleet.example.org") == "TLSv1.3"
    with pytest.raises(DataMissing, match="rotate-authority"):
        finish_rotation(folder)


def test_a_change_of_authority_that_was_killed_at_any_point_is_finished(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed_at(name: str, call: int) -> None:
        """The program ends before this call of a function that the steps use."""
        whole, calls = getattr(certificates, name), iter(range(100))

        def until(*given: object, **named: object) -> object:
            if next(calls) == call:
                raise Killed
            return whole(*given, **named)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(certificates, name, until)
            step(folder)

    step = begin_rotation
    killed_at("_write_key", 0)
    assert authorities(folder) == (folder / "ca.crt").read_text()
    begin_rotation(folder)
    both = ssl.create_default_context(cadata=authorities(folder))
    step = finish_rotation
    killed_at("write_bytes", 1)  # the server has its new key and its old certificate
    finish_rotation(folder)
    assert shake_hands(folder, both, "fleet.example.org") == "TLSv1.3"
    begin_rotation(folder)
    (folder / "next-ca.crt").replace(folder / "ca.crt")  # killed between the two last renames
    finish_rotation(folder)
    make_server_certificate(folder, NAMES)
    assert shake_hands(folder, trusting(folder / "ca.crt"), "fleet.example.org") == "TLSv1.3"


def test_an_authority_lives_for_ten_years_and_a_server_for_one(folder: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    authority, server = (read_certificate(folder / f"{name}.crt") for name in ("ca", "server"))
    assert AUTHORITY_DAYS - 1 < days_left(authority, now) < AUTHORITY_DAYS
    assert SERVER_DAYS - 1 < days_left(server, now) < SERVER_DAYS
    assert days_left(server, now + datetime.timedelta(days=SERVER_DAYS + 1)) < 0
    for certificate in (authority, server):  # a wearable's clock may be a little behind
        assert certificate.not_valid_before_utc < now - datetime.timedelta(minutes=50)


def test_the_fingerprint_is_the_hash_of_the_certificate_itself(folder: Path) -> None:
    der = ssl.PEM_cert_to_DER_cert((folder / "ca.crt").read_text())
    assert fingerprint(read_certificate(folder / "ca.crt")) == hashlib.sha256(der).hexdigest()


def test_what_is_missing_or_spoilt_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="mcoe-server init"):
        make_server_certificate(tmp_path, ["localhost"])
    (tmp_path / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")
    with pytest.raises(DataInvalid, match=r"ca\.crt is no certificate"):
        read_certificate(tmp_path / "ca.crt")


@pytest.mark.parametrize("name", ["bücher.example", "", "two words", "https://fleet.example.org"])
def test_a_name_that_no_host_can_have_is_refused_and_writes_nothing(tmp_path: Path, name: str) -> None:
    make_authority(tmp_path)
    with pytest.raises(DataInvalid, match="host name or address"):
        make_server_certificate(tmp_path, [name, "localhost"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.crt", "ca.key"]


def test_an_expired_certificate_is_refused_by_whoever_trusts_its_authority(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "SERVER_DAYS", -0.01)  # it was good for three quarters of an hour
    make_server_certificate(folder, NAMES)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
        shake_hands(folder, trusting(folder / "ca.crt"), "localhost")


def test_a_certificate_of_an_expired_authority_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "AUTHORITY_DAYS", -0.01)
    make_authority(tmp_path)
    make_server_certificate(tmp_path, NAMES)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
        shake_hands(tmp_path, trusting(tmp_path / "ca.crt"), "localhost")
