"""Invitations to be handed out: the address in them, and for each a file with its line and a QR picture of it."""

from __future__ import annotations

import datetime
import io
import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from mcoe_model.errors import MissingExtra, OutputExists, SettingsError
from mcoe_model.files import write_bytes
from mcoe_model.invitation import Invitation

#: Days that an invitation may be open at most: while one is, the route that enrols is, too.
LONGEST_DAYS = 90
_MODULE = 8  # pixels of one square of the picture
#: Names that every server's certificate has, and that mean another machine on each.
_THIS_MACHINE = ("localhost", "127.0.0.1")


def is_every_address(host: str) -> bool:
    """Whether a server that listens at this host listens at every address, so that the host is none to reach it by."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def reached_at(host: str, port: int, names: Sequence[str], address: str | None) -> str:
    """The address (HOST:PORT) in an invitation: the one that is given, or the server's own by its settings.

    A server that listens at every address is reached by the first of its certificate's ``names``. Raises SettingsError
    for a host that is none of them: every wearable would refuse it.
    """
    if address is None and is_every_address(host):
        host = next((name for name in names if name not in _THIS_MACHINE), "")
        if not host:
            raise SettingsError(
                ["the server listens at every address and its certificate names none by which wearables reach it; "
                 "add one with: mcoe-server certificates renew --name HOST"]
            )  # fmt: skip
    reached = address or f"{f'[{host}]' if ':' in host else host}:{port}"
    named = reached.rpartition(":")[0].strip("[]")
    if named.lower() not in {name.lower() for name in names}:
        raise SettingsError(
            [f"wearables would refuse {named!r}, which the server's certificate does not name; add it with: "
             f"mcoe-server certificates renew --name {named or 'HOST'}"]
        )  # fmt: skip
    return reached


def files_of(folder: Path, client_id: str) -> tuple[Path, Path]:
    """The line's file and the picture of a client's invitation, before it is made.

    Raises OutputExists when one of them is there, MissingExtra where no picture can be drawn.
    """
    _segno()
    files = folder / f"{client_id}.txt", folder / f"{client_id}.png"
    for file in files:
        if file.exists():
            raise OutputExists(f"{file} exists already; name another folder, nobody was invited")
    return files


def hand_out(invitation: Invitation, line: Path, picture: Path) -> None:
    """Write both, for the owner alone (mode 0600): whoever reads either first is the client. Raises DiskFull."""
    write_bytes(line, f"{invitation.to_line()}\n".encode())
    write_bytes(picture, qr_png(invitation.to_line()))


def qr_png(text: str) -> bytes:
    """A QR picture, black on white. Raises MissingExtra."""
    out = io.BytesIO()
    _segno().make(text, micro=False, error="m").save(out, kind="png", scale=_MODULE, border=4)
    return out.getvalue()


def read_span(text: str) -> datetime.timedelta:
    """A time such as 7d or 12h. Raises SettingsError for anything else, and beyond LONGEST_DAYS."""
    found = re.fullmatch(r"([0-9]{1,4})([dh])", text)
    span = datetime.timedelta(hours=int(found[1]) * {"d": 24, "h": 1}[found[2]]) if found else datetime.timedelta()
    if not datetime.timedelta() < span <= datetime.timedelta(days=LONGEST_DAYS):
        raise SettingsError([f"--expires is a time like 7d or 12h, {LONGEST_DAYS}d at most, not {text!r}"])
    return span


def _segno() -> ModuleType:
    try:
        import segno
    except ImportError as fault:
        raise MissingExtra(f"{fault.name} is not installed; run: pip install 'mcoe[server]'") from fault
    return segno
