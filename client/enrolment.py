"""Joining a fleet: a key that never leaves the wearable, and the server's authority, checked by its fingerprint."""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mcoe_model.errors import DataInvalid, DataMissing, EnrolmentRefused, OutputExists, ServerUnreachable
from mcoe_model.files import write_bytes
from mcoe_model.invitation import Invitation
from mcoe_model.signed_request import public_pem, sign

#: Seconds to wait for the server.
TIMEOUT_S = 20.0


@dataclass(frozen=True)
class ClientPaths:
    """The files of a wearable's folder."""

    folder: Path

    @property
    def settings(self) -> Path:
        return self.folder / "mcoe-client.toml"

    @property
    def key(self) -> Path:
        """The node key, mode 0600, as Flower reads it (OpenSSH)."""
        return self.folder / "node"

    @property
    def public_key(self) -> Path:
        return self.folder / "node.pub"

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def outbox(self) -> Path:
        return self.folder / "outbox"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"


@dataclass(frozen=True)
class Membership:
    """Which server this wearable belongs to, under which pseudonym, and where its labelled clips are.

    ``clips`` is a folder in SEE's layout, of which the sequences of ``subject`` are the wearer's.
    """

    address: str
    client_id: str
    clips: str
    subject: str


def enrol(paths: ClientPaths, invitation: Invitation, clips: Path, subject: str) -> Membership:
    """Join the fleet that the invitation names. May be repeated after a failure: the key is made once.

    Raises OutputExists for a wearable that has joined, ServerUnreachable, DataInvalid when somebody else answers at the
    server's address, EnrolmentRefused.
    """
    if paths.settings.exists():
        raise OutputExists(f"{paths.folder} has joined a fleet already; name another folder with --dir")
    key = make_key(paths)
    authority = _authority(invitation)
    write_bytes(paths.authority, authority.encode())
    url, asked = "/v1/device/enrol", json.dumps({"token": invitation.token}).encode()
    with _client(invitation.address, paths.authority) as client:
        answer = _ask(client, "POST", url, asked, sign(key, "POST", url, asked))
    membership = Membership(invitation.address, str(answer["client_id"]), str(clips.absolute()), subject)
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in asdict(membership).items()]
    write_bytes(paths.settings, ("\n".join(lines) + "\n").encode())
    return membership


def read_membership(paths: ClientPaths) -> Membership:
    """Raises DataMissing for a wearable that has not joined, DataInvalid for a file that was spoilt."""
    try:
        return Membership(**tomllib.loads(paths.settings.read_text()))
    except FileNotFoundError as fault:
        raise DataMissing(f"{paths.folder} has not joined a fleet; first: mcoe-client enrol INVITATION") from fault
    except (ValueError, TypeError) as fault:
        raise DataInvalid(f"{paths.settings} cannot be read ({fault}); mend it or enrol anew") from fault


def make_key(paths: ClientPaths) -> ec.EllipticCurvePrivateKey:
    """The wearable's key, made at the first call. The private part is a file of mode 0600."""
    if paths.key.exists():
        return read_key(paths)
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    write_bytes(paths.public_key, public_pem(key).encode())
    write_bytes(paths.key, private)
    return key


def read_key(paths: ClientPaths) -> ec.EllipticCurvePrivateKey:
    """Raises DataMissing, DataInvalid."""
    try:
        key = serialization.load_ssh_private_key(paths.key.read_bytes(), None)
    except FileNotFoundError as fault:
        raise DataMissing(f"{paths.key} is not there; enrol again") from fault
    except ValueError as fault:
        raise DataInvalid(f"{paths.key} is no key ({fault}); enrol again") from fault
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def download_model(paths: ClientPaths, address: str, sha256: str | None = None) -> Path:
    """The model with this hash, by default the newest, from the server unless it is here; resumed where it broke off.

    Raises ServerUnreachable, EnrolmentRefused, DataInvalid when what arrives is not what was asked for.
    """
    key = read_key(paths)
    with _client(address, paths.authority) as client:
        if sha256 is None:
            newest = "/v1/device/model"
            sha256 = str(_ask(client, "GET", newest, headers=sign(key, "GET", newest))["sha256"])
        if re.fullmatch("[0-9a-f]{64}", sha256) is None:
            raise DataInvalid(f"the server at {address} named no model; ask its operator")
        path = paths.models / f"{sha256}.safetensors"
        if path.exists():
            return path
        content = _fetch(client, key, f"/v1/device/models/{sha256}", path.with_suffix(".partial"))
    if hashlib.sha256(content).hexdigest() != sha256:
        path.with_suffix(".partial").unlink(missing_ok=True)
        raise DataInvalid(f"the model {sha256[:12]} arrived damaged; try again")
    write_bytes(path, content)
    path.with_suffix(".partial").unlink(missing_ok=True)
    return path


def _fetch(client: httpx.Client, key: ec.EllipticCurvePrivateKey, url: str, partial: Path) -> bytes:
    """The bytes behind a signed address; what arrived before a break is kept and not asked for again."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    begin = partial.stat().st_size if partial.exists() else 0
    headers = sign(key, "GET", url) | ({"range": f"bytes={begin}-"} if begin else {})
    try:
        with client.stream("GET", url, headers=headers) as answer:
            if answer.status_code == 416:  # nothing is left to send
                return partial.read_bytes()
            if answer.status_code not in (200, 206):
                raise EnrolmentRefused(f"the server refused the model: {_reason(answer.read())}")
            with partial.open("ab" if answer.status_code == 206 else "wb") as file:
                for chunk in answer.iter_bytes():
                    file.write(chunk)
    except httpx.HTTPError as fault:
        raise _unreachable(client, fault) from fault
    return partial.read_bytes()


def _authority(invitation: Invitation) -> str:
    """The authority's certificate: read from anybody, believed by its fingerprint."""
    with httpx.Client(base_url=f"https://{invitation.address}", verify=False, timeout=TIMEOUT_S) as client:
        try:
            pem = client.get("/v1/device/authority").text
        except httpx.HTTPError as fault:
            raise _unreachable(client, fault) from fault
    try:
        found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    except ValueError:
        found = ""
    if found != invitation.fingerprint:
        raise DataInvalid(
            f"whoever answers at {invitation.address} is not the server of this invitation; nothing was sent to it"
        )
    return pem


def _client(address: str, authority: Path) -> httpx.Client:
    trusted = ssl.create_default_context(cafile=str(authority))
    return httpx.Client(base_url=f"https://{address}", verify=trusted, timeout=TIMEOUT_S)


def _ask(
    client: httpx.Client, method: str, url: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> dict[str, Any]:
    try:
        answer = client.request(method, url, content=body, headers=headers)
    except httpx.HTTPError as fault:
        raise _unreachable(client, fault) from fault
    if answer.status_code != 200:
        raise EnrolmentRefused(f"the server refused: {_reason(answer.content)}")
    return dict(answer.json())


def _reason(content: bytes) -> str:
    try:
        text = str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        text = "no reason given"
    return "".join(letter if letter.isprintable() else "?" for letter in text[:300])


def _unreachable(client: httpx.Client, fault: Exception) -> ServerUnreachable:
    return ServerUnreachable(f"no answer from {client.base_url}: {fault}; check address, network and clock")
