"""How the page is served."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from client.consent_text import LANGUAGES
from mcoe_model.errors import SettingsError


@dataclass(frozen=True)
class PageSettings:
    """Where the page listens, and its own files.

    ``folder`` is the device's, not a wearer's: certificate, name, which phones are paired. Without ``tls`` the page
    listens on loopback alone. ``port`` 0: any that is free. ``consent_texts``: the coordinator's folder, if any.
    ``language``: for a phone that wants none of ours.
    """

    folder: Path
    host: str = "0.0.0.0"
    port: int = 8443
    tls: bool = True
    consent_texts: Path | None = None
    language: str = LANGUAGES[0]

    def __post_init__(self) -> None:
        found = []
        try:
            address = ipaddress.ip_address(self.host)
            if not (self.tls or address.is_loopback):
                found.append(f"without TLS the page listens on loopback only, not on {self.host}")
        except ValueError:
            found.append(f"the page listens on an address of this machine, such as 0.0.0.0, not on {self.host!r}")
        if not 0 <= self.port <= 65535:
            found.append(f"the page's port must be between 0 and 65535, not {self.port}")
        if found:
            raise SettingsError(found)
