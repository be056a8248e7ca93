"""The fleet's members: invitations, enrolment, and what Flower must know of them.

The registry says who is a member and by which key; Flower's own database only mirrors it and may be lost. So every step
writes the registry first, and `register_members` makes Flower agree with it, at every start and after every change.
"""

from __future__ import annotations

import datetime
import hashlib
import secrets
import threading
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from mcoe_model.consent import Consent
from mcoe_model.errors import DataMissing, EnrolmentRefused, McoeError
from mcoe_model.invitation import Invitation
from mcoe_model.signed_request import RequestRefused, read_public_key
from server.forgetting import run_errands, write_errand
from server.paths import ServerPaths
from server.registry import Registry
from server.registry.artifacts import Artifacts
from server.registry.database import open_database
from server.registry.members import MemberRow
from server.registry.privacy import Forgetting, Receipt
from server.settings import ServerSettings
from server.superlink.control import Control
from server.superlink.database import compact, remove_nodes

#: How long an invitation is good for, unless it is said.
INVITATION_SPAN = datetime.timedelta(days=3)


class Fleet:
    """Members of the registry's experiment. ``control_address`` is the SuperLink's on loopback.

    ``experiments`` are all of those that share the SuperLink, by name, its own among them.
    """

    def __init__(
        self, registry: Registry, paths: ServerPaths, control_address: str, experiments: Collection[str] = ()
    ) -> None:
        self.registry = registry
        self.paths = paths
        self.artifacts = Artifacts(paths.models)
        self.control_address = control_address
        self.experiments = frozenset({registry.experiment, *experiments})
        self._registering = threading.Lock()

    def invite(
        self,
        address: str,
        fingerprint: str,
        client_id: str | None = None,
        span: datetime.timedelta = INVITATION_SPAN,
    ) -> Invitation:
        """A new invitation to this server, good for ``span``, for a new pseudonymous client unless one is named.

        Raises EnrolmentRefused for a client that is enrolled, DataInvalid for an address or id that fits no line.
        """
        client_id = client_id or new_pseudonym()
        invitation = Invitation(address, fingerprint, secrets.token_urlsafe(24), client_id)
        self.registry.invite(client_id, token_hash(invitation.token), datetime.datetime.now(datetime.UTC) + span)
        return invitation

    def enrol(self, token: str, public_key: str, consents: Sequence[Consent] = ()) -> str:
        """Exchange an invitation's token for enrolment of this key (PEM); returns the client's id.

        A wearable that did not hear the answer may ask again with its key. Raises EnrolmentRefused for the token and
        for a key that another client holds or held, RequestRefused for what is no key.
        """
        key = canonical_key(public_key)
        try:
            client = self.registry.enrol(token_hash(token), key, None, consents)
        except EnrolmentRefused:
            if key not in self._members():
                raise
            client = self._members()[key].id
        self.register_members()
        return client

    def add(self, client_id: str, public_key: str) -> None:
        """Enrol a key that the operator was given; the SuperLink hears of it when it runs."""
        self.registry.add_client(client_id, canonical_key(public_key), None)

    def register_members(self) -> int:
        """Make Flower let in every enrolled key of all experiments and no other; returns how many changes that took."""
        changes = 0
        with self._registering, closing(Control(self.control_address)) as control:
            known = control.nodes()
            members = self._members()
            for key, client in members.items():
                if client.experiment not in self.experiments:  # another server's, or one that is paused
                    continue
                node = known.get(key)
                if node is None:
                    node = control.register(key)
                    changes += 1
                if client.node_id != node:
                    Registry(self.registry.engine, client.experiment).set_node(client.id, node)
            strangers = known.keys() - members.keys()
            remove_nodes(self.paths.superlink, strangers)
        return changes + len(strangers)

    def _members(self) -> dict[str, MemberRow]:
        """The enrolled clients of all experiments by their key."""
        return {member.public_key: member for member in self.registry.members()}

    def tell_flower(self) -> None:
        """`register_members` if the SuperLink runs; one that is down reads the registry when it starts."""
        with suppress(httpx.ConnectError):
            self.register_members()

    def withdraw(self, client_id: str) -> None:
        """A client leaves on its own word. A round that is not published goes on without it. Raises DataMissing."""
        self._unlink_updates(self.registry.withdraw(client_id))
        self.tell_flower()
        with suppress(McoeError):  # a database that is locked now is compacted within a day
            compact(self.paths.superlink)

    def forget(self, client_id: str, choice: Forgetting | None = None) -> Receipt:
        """Delete what is kept of a client, wherever that is, end its enrolment and issue the receipt.

        A round that is not published goes on without it. ``choice`` says what becomes of the models that descend from
        its updates. Raises DataMissing for a client that is not known and for a rollback without a model to go back to,
        DecisionNeeded without a choice that is needed; then nothing was deleted.
        """
        key = self.registry.client(client_id).public_key
        before = self.registry.outlook(client_id).before
        if choice == "rollback-before" and before and not self.artifacts.path(before.sha256).is_file():
            raise DataMissing(f"the file of version {before.version} is gone; restore it from a backup, or use --keep")
        experiment = self.registry.experiment
        receipt = self.registry.forget(
            client_id, choice, lambda receipt: write_errand(self.paths, experiment, key, receipt)
        )
        run_errands(self.paths, self.registry.engine)
        return receipt

    def _unlink_updates(self, update_ids: Iterable[str]) -> None:
        for update_id in update_ids:
            for path in self.paths.spool.rglob(f"{update_id}.safetensors"):
                path.unlink(missing_ok=True)


def open_fleet(paths: ServerPaths, settings: ServerSettings, experiments: Collection[str] = ()) -> Fleet:
    """One experiment's fleet, its registry at the newest schema; ``experiments`` are all of the server's.

    Raises SchemaTooNew.
    """
    database = open_database(paths.database_url(settings.database))
    registry = Registry(database, settings.experiment, settings.coarse, settings.private)
    return Fleet(registry, paths, f"127.0.0.1:{settings.local_port}", experiments)


def new_pseudonym() -> str:
    """A random id, which says nothing of whom it will be."""
    return f"w{secrets.token_hex(4)}"


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


def token_hash(token: str) -> str:
    """What the registry keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()
