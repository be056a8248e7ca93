"""What a wearer agreed to, as a wearable tells its server: which use, under which version of the text, and when.

The text itself and who agreed stay on the wearable.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Any

from mcoe_model.protocol import ProtocolError

#: What a wearer is asked about, each by itself.
CONSENTS = ("capture", "labels", "learning", "updates", "export")
_VERSION = re.compile(r"[0-9A-Za-z._-]{1,32}")


@dataclass(frozen=True)
class Consent:
    """``version`` is a short word or number that names the text, ``given`` the time in UTC."""

    kind: str
    version: str
    given: datetime.datetime

    def to_plain(self) -> dict[str, str]:
        return {"kind": self.kind, "version": self.version, "given": self.given.isoformat(timespec="seconds")}


def read_consents(plain: Any) -> tuple[Consent, ...]:
    """The consents of a message, each kind once. Raises ProtocolError for anything else, and for free text."""
    if not isinstance(plain, list) or len(plain) > len(CONSENTS):
        raise ProtocolError("consents must be a list, each kind once")
    found = tuple(_read(entry) for entry in plain)
    if len({consent.kind for consent in found}) < len(found):
        raise ProtocolError("consents must be a list, each kind once")
    return found


def _read(entry: Any) -> Consent:
    if not isinstance(entry, dict) or entry.keys() != {"kind", "version", "given"}:
        raise ProtocolError("a consent has kind, version and given")
    kind, version, given = entry["kind"], entry["version"], entry["given"]
    if kind not in CONSENTS:
        raise ProtocolError(f"a consent's kind must be one of {', '.join(CONSENTS)}")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise ProtocolError("a consent's version must be 1 to 32 letters, digits, dots, - and _")
    try:
        time = datetime.datetime.fromisoformat(given)
        time = time.replace(tzinfo=datetime.UTC) if time.tzinfo is None else time.astimezone(datetime.UTC)
    except (TypeError, ValueError, OverflowError) as fault:
        raise ProtocolError("a consent's time must be an ISO date") from fault
    return Consent(kind, version, time)
