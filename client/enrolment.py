"""Joining a fleet: a key that never leaves the wearable, and the server's authority, checked by its fingerprint."""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from client.deadline import ended_after
from client.said import Said
from client.traffic import Traffic
from mcoe_model.consent import Consent
from mcoe_model.errors import DataInvalid, DataMissing, EnrolmentRefused, McoeError, OutputExists, ServerUnreachable
from mcoe_model.files import write_bytes
from mcoe_model.invitation import Invitation
from mcoe_model.signed_request import public_pem, sign

_PEM = re.compile("-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\\s]{1,20000}?-----END CERTIFICATE-----\n?")
#: Bytes that are read of an answer that is no model.
_ANSWER_BYTES = 65_536
#: Seconds to wait for the server to say anything; twice as long for the whole of such an answer.
TIMEOUT_S = 20.0


@dataclass(frozen=True)
class ClientPaths:
    """The files of a wearer's folder."""

    folder: Path

    @property
    def membership(self) -> Path:
        """Which fleet the wearable belongs to."""
        return self.folder / "membership.toml"

    @property
    def key(self) -> Path:
        """The node key, mode 0600, as Flower reads it (OpenSSH)."""
        return self.folder / "node"

    @property
    def public_key(self) -> Path:
        return self.folder / "node.pub"

    @property
    def device_key(self) -> Path:
        """What the wearer's data are sealed with, as `client.keys` keeps it."""
        return self.folder / "device.key"

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
    def told(self) -> Path:
        """What the server says of this program's version, and when it wants to be asked again."""
        return self.folder / "told.json"

    @property
    def running(self) -> Path:
        """Which model runs."""
        return self.folder / "running.json"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def store(self) -> Path:
        """The database of `client.sessions`."""
        return self.folder / "store.sqlite"

    @property
    def recordings(self) -> Path:
        """Sealed segments, a folder for each session."""
        return self.folder / "recordings"

    @property
    def lessons(self) -> Path:
        """What labelled spans have become, sealed (`client.lesson_book`)."""
        return self.folder / "lessons"

    @property
    def health(self) -> Path:
        """What only the main process knows of the wearable's health (`client.health`)."""
        return self.folder / "health.json"

    @property
    def traffic(self) -> Path:
        """How many bytes went to and from the fleet (`client.traffic`)."""
        return self.folder / "traffic.json"

    @property
    def of_wearer(self) -> tuple[Path, ...]:
        """Everything that belongs to the wearer, and to nobody who wears the device later."""
        keys = (self.key, self.public_key, self.device_key, self.authority, self.membership)
        kept = (self.models, self.outbox, self.told, self.running, self.health, self.traffic, self.cache,
                self.recordings, self.lessons)  # fmt: skip
        return (*keys, *kept, *sorted(self.folder.glob(f"{self.store.name}*")))


class ReportedLost(EnrolmentRefused):
    """The server says that this wearable was reported lost."""


@dataclass(frozen=True)
class Membership:
    """Which server this wearable belongs to, under which pseudonym, and where its labelled clips are.

    ``clips`` is a folder in SEE's layout, of which the sequences of ``subject`` are the wearer's. Both are empty where
    the clips are what was recorded and labelled here.
    """

    address: str
    client_id: str
    clips: str
    subject: str


def enrol(
    paths: ClientPaths, invitation: Invitation, clips: Path | None, subject: str, consents: Sequence[Consent] = ()
) -> Membership:
    """Join the fleet that the invitation names. May be repeated after a failure: the key is made once.

    ``consents`` are what the wearer agreed to, for the server's record.

    Raises OutputExists for a wearable that has joined, ServerUnreachable, DataInvalid when somebody else answers at the
    server's address, EnrolmentRefused.
    """
    if paths.membership.exists():
        raise OutputExists(f"{paths.folder} has joined a fleet already; name another folder with --dir")
    key = make_key(paths)
    authority = _authority(invitation)
    write_bytes(paths.authority, authority.encode())
    agreed = [consent.to_plain() for consent in consents]
    url, asked = "/v1/device/enrol", json.dumps({"token": invitation.token, "consents": agreed}).encode()
    with _client(invitation.address, paths.authority) as client:
        client_id = _ask(client, "POST", url, "client_id", asked, sign(key, "POST", url, asked))
    where = "" if clips is None else str(clips.absolute())
    membership = Membership(invitation.address, client_id, where, subject)
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in asdict(membership).items()]
    write_bytes(paths.membership, ("\n".join(lines) + "\n").encode())
    return membership


def read_membership(paths: ClientPaths) -> Membership:
    """Raises DataMissing for a wearable that has not joined, DataInvalid for a file that was spoilt."""
    try:
        return Membership(**tomllib.loads(paths.membership.read_text()))
    except FileNotFoundError as fault:
        raise DataMissing(f"{paths.folder} has not joined a fleet; first: mcoe-client enrol INVITATION") from fault
    except (ValueError, TypeError) as fault:
        raise DataInvalid(f"{paths.membership} cannot be read ({fault}); mend it or enrol anew") from fault


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


def ask_newest(paths: ClientPaths, address: str) -> str:
    """The newest model's hash, which a member is told. Raises ServerUnreachable, EnrolmentRefused, ReportedLost."""
    url = "/v1/device/model"
    headers = sign(read_key(paths), "GET", url)
    with _client(address, paths.authority) as client:
        return _ask(client, "GET", url, "sha256", headers=headers)


def download_model(paths: ClientPaths, address: str, sha256: str | None = None) -> Path:
    """The model with this hash, by default the newest, from the server unless it is here; resumed where it broke off.

    Raises ServerUnreachable, EnrolmentRefused, DataInvalid when what arrives is not what was asked for.
    """
    key = read_key(paths)
    sha256 = ask_newest(paths, address) if sha256 is None else sha256
    with _client(address, paths.authority) as client:
        if re.fullmatch("[0-9a-f]{64}", sha256) is None:
            raise DataInvalid(f"the server at {address} named no model; ask its operator")
        path = paths.models / f"{sha256}.safetensors"
        if path.exists():
            return path
        partial = path.with_suffix(".partial")
        before = _size(partial)
        try:
            content = _fetch(client, key, f"/v1/device/models/{sha256}", partial)
        finally:
            Traffic(paths.traffic).add(max(0, _size(partial) - before))
    if hashlib.sha256(content).hexdigest() != sha256:
        partial.unlink(missing_ok=True)
        raise DataInvalid(f"the model {sha256[:12]} arrived damaged; try again")
    write_bytes(path, content)
    partial.unlink(missing_ok=True)
    return path


def ask_to_leave(paths: ClientPaths, address: str, way: str) -> Any:
    """What the server answers to ``withdraw`` or ``forget``, signed by the key in this folder.

    The authorities that the server names now are kept first: the fleet may change them while one waits to be let go.
    An answer that cannot be read is None. Raises ServerUnreachable for everything that may pass, such as a wrong clock,
    EnrolmentRefused for what will not, and DataMissing and DataInvalid for the key.
    """
    refresh_authorities(paths, address)
    url = f"/v1/device/{way}"
    headers = sign(read_key(paths), "POST", url)
    with _client(address, paths.authority) as client:
        status, content = _answer(client, "POST", url, headers=headers)
    if status in (403, 404):
        raise EnrolmentRefused(_reason(content))
    if status != 200:
        raise ServerUnreachable(f"{client.base_url} cannot do it now: {_reason(content)}")
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _fetch(client: httpx.Client, key: ec.EllipticCurvePrivateKey, url: str, partial: Path) -> bytes:
    """The bytes behind a signed address; what arrived before a break is kept and not asked for again."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    begin = _size(partial)
    headers = sign(key, "GET", url) | ({"range": f"bytes={begin}-"} if begin else {})
    try:
        with client.stream("GET", url, headers=headers) as answer:
            if answer.status_code == 416:  # nothing is left to send
                return partial.read_bytes()
            if answer.status_code not in (200, 206):
                raise _refused(client, answer.status_code, answer.read())
            with partial.open("ab" if answer.status_code == 206 else "wb") as file:
                for chunk in answer.iter_bytes():
                    file.write(chunk)
    except httpx.HTTPError as fault:
        raise _unreachable(client, fault) from fault
    return partial.read_bytes()


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def refresh_authorities(paths: ClientPaths, address: str) -> bool:
    """Trust the authorities that the server names now, over a connection that one known here vouches for.

    Whether they are others than before: while a fleet changes its authority there are two. Raises ServerUnreachable.
    """
    with _client(address, paths.authority) as client:
        status, content = _answer(client, "GET", "/v1/device/authority")
    found = "".join(_PEM.findall(content.decode(errors="replace")))
    if status != 200 or not found or found == paths.authority.read_text():
        return False
    try:
        ssl.create_default_context(cadata=found)
    except ssl.SSLError:
        return False
    write_bytes(paths.authority, found.encode())
    return True


def learn_authorities(paths: ClientPaths, other: ClientPaths) -> bool:
    """Trust those that another folder knows, too, when it belongs to the same server; whether there was a new one.

    ``paths`` may have waited while the fleet changed its authority; whoever enrolled there since knows the new one.
    """
    known = paths.authority.read_text()
    new = [found for found in _PEM.findall(other.authority.read_text()) if found.strip() not in known]
    if new:
        write_bytes(paths.authority, "".join([known.rstrip() + "\n", *new]).encode())
    return bool(new)


def _authority(invitation: Invitation) -> str:
    """The authority's certificate: read from anybody, believed by its fingerprint."""
    try:
        client = httpx.Client(base_url=f"https://{invitation.address}", verify=False, timeout=TIMEOUT_S)
    except httpx.InvalidURL as fault:
        says = "{address} is no address; look at the invitation again"
        raise DataInvalid(Said("privacy.no_invitation", says, address=invitation.address)) from fault
    with client:
        status, pem = _answer(client, "GET", "/v1/device/authority")
        if status == 429 or status >= 500:  # whoever it is, it says that it has no time
            raise _refused(client, status, pem)
    for found in _PEM.findall(pem.decode(errors="replace")):
        with suppress(ValueError):
            if hashlib.sha256(ssl.PEM_cert_to_DER_cert(found)).hexdigest() == invitation.fingerprint:
                return str(found)
    says = "whoever answers at {address} is not the server of this invitation; nothing was sent to it"
    raise DataInvalid(Said("privacy.other_server", says, address=invitation.address))


def _client(address: str, authority: Path) -> httpx.Client:
    trusted = ssl.create_default_context(cafile=str(authority))
    return httpx.Client(base_url=f"https://{address}", verify=trusted, timeout=TIMEOUT_S)


def _ask(
    client: httpx.Client, method: str, url: str, name: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> str:
    """What the answer calls ``name``. Raises ServerUnreachable, EnrolmentRefused."""
    status, content = _answer(client, method, url, body, headers)
    if status != 200:
        raise _refused(client, status, content)
    try:
        return str(json.loads(content)[name])
    except (ValueError, KeyError, TypeError, RecursionError) as fault:
        raise ServerUnreachable(f"{client.base_url} answers what cannot be read; try again") from fault


def _answer(
    client: httpx.Client, method: str, url: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """Status and content; of one that is longer than an answer is, a part. Raises ServerUnreachable."""
    content = b""
    try:
        with (
            ended_after(2 * TIMEOUT_S) as bounded,
            client.stream(method, url, content=body, headers=headers, extensions=bounded) as answer,
        ):
            for chunk in answer.iter_bytes():
                content += chunk
                if len(content) > _ANSWER_BYTES:
                    break
    except httpx.HTTPError as fault:
        raise _unreachable(client, fault) from fault
    return answer.status_code, content


def _refused(client: httpx.Client, status: int, content: bytes) -> McoeError:
    """What an answer that is no success means: a server that is busy or ailing is as good as one that is away."""
    if status == 410:
        return ReportedLost(f"the server refused: {_reason(content)}")
    if status == 429 or status >= 500:
        return ServerUnreachable(f"{client.base_url} has no time now: {_reason(content)}")
    return EnrolmentRefused(f"the server refused: {_reason(content)}")


def _reason(content: bytes) -> str:
    try:
        text = str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        text = "no reason given"
    return "".join(letter if letter.isprintable() else "?" for letter in text[:300])


def _unreachable(client: httpx.Client, fault: Exception) -> ServerUnreachable:
    if "unable to get local issuer" in str(fault) or "certificate signature failure" in str(fault):
        return ServerUnreachable(
            f"the server at {client.base_url} has a certificate of an authority that this wearable was never told of; "
            "ask its operator for an invitation and enrol again, in a new folder"
        )
    return ServerUnreachable(f"no answer from {client.base_url}: {fault}; check address, network and clock")
