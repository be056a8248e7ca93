"""`mcoe-client page`: how a phone comes to the wearable's page."""

from __future__ import annotations

import ipaddress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from client.cli.common import DEFAULT_FOLDER, AsJson, Folder, say, told
from client.control import ask
from mcoe_model.errors import SettingsError, WearableDown
from mcoe_model.files import write_bytes


@told
def page(
    sticker: Annotated[
        Path | None, typer.Option(help="Write a PNG to print: name, certificate's fingerprint, pairing code.")
    ] = None,
    unpair: Annotated[bool, typer.Option("--unpair", help="Forget every paired phone first.")] = False,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Where the page is, and the code that pairs a phone with it: once, within five tries."""
    from client.page.announcement import own_addresses
    from client.page.certificate import device_certificate, readable
    from client.page.pairing import Pairing
    from client.page.sticker import Invitation, sticker_png, terminal_qr
    from client.settings import load_settings

    own, pairing = device_certificate(folder / "page"), Pairing(folder / "page")
    try:
        settings, running = load_settings(folder, ask(folder, "page")), True
    except WearableDown:
        settings, running = load_settings(folder, {}), False
    port, tls = settings.page_port, settings.page_tls
    alone = ipaddress.ip_address(settings.page_host).is_loopback
    if sticker is not None and alone:
        here = f"page_host = {settings.page_host}"
        raise SettingsError([f"the page is for this machine alone ({here}): a sticker would lead no phone to it"])
    if sticker is not None and not port:
        raise SettingsError(["the page's port is chosen at the start (page_port = 0): set one for a sticker"])
    if unpair:
        pairing.unpair()
    invitation = Invitation("localhost" if alone else own.name, port, own.fingerprint, pairing.code(), tls)
    scheme = "https" if tls else "http"
    addresses = [f"{scheme}://{address}:{port}" for address in own_addresses(settings.page_host)] if port else []
    said = asdict(invitation) | {
        "address": invitation.address if port else None,
        "addresses": addresses,
        "phones": pairing.phones(),
        "running": running,
    }
    where = invitation.address if port else "at a port that is chosen at the start (page_port = 0)"
    notes = ["for this machine alone"] * alone + ["the wearable does not run now"] * (not running)
    lines = [
        f"page         {where}" + (f"   ({'; '.join(notes)})" if notes else ""),
        *(f"             {address}" for address in addresses),
        f"pairing code {invitation.code}   ({pairing.phones()} phones are paired)",
        *([f"certificate  SHA-256 {readable(invitation.fingerprint)}"] if tls else []),
        *(["", terminal_qr(invitation.link)] if port and not alone else []),
    ]
    if sticker is not None:
        write_bytes(sticker, sticker_png(invitation))
        said["sticker"] = str(sticker)
        lines.append(f"sticker      {sticker}")
    say(said, as_json, "\n".join(lines))


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example:  mcoe-client page --sticker sticker.png")(page)
