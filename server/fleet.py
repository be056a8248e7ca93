"""The fleet's members: invitations, enrolment, and what Flower must know of them.

The registry says who is a member and by which key; Flower's own database only mirrors it and may be lost. So every step
writes the registry first, and `register_members` makes Flower agree with it, at every start and after every change.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
import secrets
import threading
from contextlib import closing, suppress
from pathlib import Path

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from mcoe_model.errors import DataMissing, EnrolmentRefused
from mcoe_model.invitation import Invitation
from mcoe_model.signed_request import RequestRefused, read_public_key
from server.registry import Registry
from server.registry.artifacts import Artifacts
from server.registry.database import open_database
from server.registry.fleet import ENROLLED, ClientRow
from server.registry.privacy import Receipt
from server.settings import ServerPaths, ServerSettings
from server.spool import spool_path
from server.superlink.control import Control

#: Hours that an invitation is good for.
INVITATION_HOURS = 72

log = logging.getLogger("mcoe")


class Fleet:
    """Members of the registry's experiment. ``control_address`` is the SuperLink's on loopback."""

    def __init__(self, registry: Registry, artifacts: Artifacts, spool: Path, control_address: str) -> None:
        self.registry = registry
        self.artifacts = artifacts
        self.spool = spool
        self.control_address = control_address
        self._registering = threading.Lock()

    def invite(self, address: str, fingerprint: str, client_id: str | None = None) -> Invitation:
        """A new invitation to this server, for a new pseudonymous client unless one is named.

        Raises EnrolmentRefused for a client that is enrolled, DataInvalid for an address or id that fits no line.
        """
        client_id = client_id or f"w{secrets.token_hex(4)}"
        invitation = Invitation(address, fingerprint, secrets.token_urlsafe(24), client_id)
        expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=INVITATION_HOURS)
        self.registry.invite(client_id, _hash(invitation.token), expires)
        return invitation

    def enrol(self, token: str, public_key: str) -> str:
        """Exchange an invitation's token for enrolment of this key (PEM); returns the client's id.

        A wearable that did not hear the answer may ask again with its key. Raises EnrolmentRefused for the token and
        for a key that has left the fleet, RequestRefused for what is no key.
        """
        key = canonical_key(public_key)
        with closing(Control(self.control_address)) as control:
            if key in control.retired():
                raise EnrolmentRefused("this key has left the fleet; enrol in a new folder, with a new key")
        try:
            client = self.registry.enrol(_hash(token), key, None)
        except EnrolmentRefused:
            if key not in self._members():
                raise
            client = self._members()[key].id
        self.register_members()
        return client

    def add(self, client_id: str, public_key: str) -> None:
        """Enrol a key that the operator was given; the SuperLink hears of it when it runs."""
        self.registry.add_client(client_id, canonical_key(public_key), None)

    def client_of_key(self, public_key: str) -> str:
        """The enrolled client that holds this key. Raises EnrolmentRefused."""
        client = self._members().get(public_key)
        if client is None:
            raise EnrolmentRefused("this key is not enrolled")
        return client.id

    def register_members(self) -> int:
        """Make Flower let in every enrolled key and no other; returns how many changes that took."""
        changes = 0
        with self._registering, closing(Control(self.control_address)) as control:
            known, retired = control.nodes(), control.retired()
            members = self._members()
            for key, client in members.items():
                if key in retired:  # as after a restored backup; the others must not suffer from it
                    log.error("%s cannot connect: Flower has retired its key. Delete superlink.sqlite* while the "
                              "server is down, or let it enrol with a new key", client.id)  # fmt: skip
                    continue
                node = known.get(key)
                if node is None:
                    node = control.register(key)
                    changes += 1
                if client.node_id != node:
                    self.registry.set_node(client.id, node)
            for key, node in known.items():
                if key not in members:
                    control.unregister(node)
                    changes += 1
        return changes

    def _members(self) -> dict[str, ClientRow]:
        """The enrolled clients by their key."""
        return {c.public_key: c for c in self.registry.clients() if c.state == ENROLLED and c.public_key}

    def tell_flower(self) -> None:
        """`register_members` if the SuperLink runs; one that is down reads the registry when it starts."""
        with suppress(httpx.ConnectError):
            self.register_members()

    def withdraw(self, client_id: str) -> None:
        """A client leaves on its own word. Raises DataMissing."""
        self.registry.withdraw(client_id)
        self.tell_flower()

    def forget(self, client_id: str) -> Receipt:
        """Delete what is kept of a client, its updates in the spool included, and end its enrolment.

        A round that is not published goes on without it. Raises DataMissing for a client that is not known.
        """
        self.registry.client(client_id)
        receipt = self.registry.forget(client_id)
        for pending in receipt.pending:
            folder = self.spool / f"round-{pending.number}-{pending.attempt}"  # as RoundRow.spool_name
            spool_path(folder, pending.update_id).unlink(missing_ok=True)
        self.tell_flower()
        return receipt


def open_fleet(paths: ServerPaths, settings: ServerSettings) -> Fleet:
    """The fleet of a data folder, its registry at the newest schema. Raises SchemaTooNew."""
    database = open_database(paths.database_url(settings))
    registry = Registry(database, settings.experiment, settings.coarse, settings.private)
    return Fleet(registry, Artifacts(paths.models), paths.spool, f"127.0.0.1:{settings.local_port}")


def canonical_key(text: str) -> str:
    """A public key, PEM or OpenSSH, as PEM. Raises RequestRefused for anything but one on the curve P-384."""
    if text.startswith("ecdsa-sha2-"):
        try:
            loaded = serialization.load_ssh_public_key(text.encode())
        except (ValueError, UnsupportedAlgorithm) as fault:
            raise RequestRefused("the public key cannot be read") from fault
        text = loaded.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()
    key = read_public_key(text)
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def read_key_file(path: Path) -> str:
    """A public key from a file. Raises DataMissing, RequestRefused."""
    try:
        return canonical_key(path.read_text())
    except FileNotFoundError as fault:
        raise DataMissing(f"there is no key {path}; the wearable's is node.pub in its folder") from fault
    except UnicodeDecodeError as fault:
        raise RequestRefused("the public key cannot be read") from fault


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
