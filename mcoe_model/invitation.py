"""An invitation to a fleet: one line that an operator gives to a wearer, and all that a wearable needs to enrol."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mcoe_model.errors import DataInvalid

_LINE = re.compile(
    r"mcoe-invitation:(?P<address>[A-Za-z0-9.\-\[\]:]+:(?P<port>\d{1,5}))/(?P<fingerprint>[0-9a-f]{64})"
    r"/(?P<token>[0-9A-Za-z_\-]{20,64})/(?P<client_id>[0-9A-Za-z_\-]{1,64})"
)


@dataclass(frozen=True)
class Invitation:
    """``address`` is host:port of the server, ``fingerprint`` the SHA-256 of its authority's certificate.

    ``token`` enrols one key once, under the pseudonymous ``client_id``: 1 to 64 letters, digits, - and _.
    Raises DataInvalid for parts that make no line.
    """

    address: str
    fingerprint: str
    token: str
    client_id: str

    def __post_init__(self) -> None:
        found = _LINE.fullmatch(self.to_line())
        if found is None or not 0 < int(found["port"]) < 65536:
            raise DataInvalid(
                f"an invitation needs HOST:PORT and a client's id of 1 to 64 letters, digits, - and _; "
                f"not {self.address!r} and {self.client_id!r}"
            )

    def to_line(self) -> str:
        return f"mcoe-invitation:{self.address}/{self.fingerprint}/{self.token}/{self.client_id}"

    @staticmethod
    def from_line(line: str) -> Invitation:
        """Raises DataInvalid for anything else."""
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise DataInvalid("this is no invitation: one line without spaces, beginning with mcoe-invitation:")
        return Invitation(found["address"], found["fingerprint"], found["token"], found["client_id"])
