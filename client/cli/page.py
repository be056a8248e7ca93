"""`mcoe-client page`: how a phone comes to the wearable's page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from client.cli.common import DEFAULT_FOLDER, AsJson, Folder, say, told
from client.control import ask
from mcoe_model.errors import WearableDown
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
    port = settings.page_port
    if unpair:
        pairing.unpair()
    invitation = Invitation(own.name, port, own.fingerprint, pairing.code())
    scheme = "https" if settings.page_tls else "http"
    addresses = [f"{scheme}://{address}:{port}" for address in own_addresses(settings.page_host)]
    said = asdict(invitation) | {
        "address": invitation.address,
        "addresses": addresses,
        "phones": pairing.phones(),
        "running": running,
    }
    lines = [
        f"page         {invitation.address}" + ("" if running else "   (the wearable does not run now)"),
        *(f"             {address}" for address in addresses),
        f"pairing code {invitation.code}   ({pairing.phones()} phones are paired)",
        f"certificate  SHA-256 {readable(invitation.fingerprint)}",
        "",
        terminal_qr(invitation.link),
    ]
    if sticker is not None:
        write_bytes(sticker, sticker_png(invitation))
        said["sticker"] = str(sticker)
        lines.append(f"sticker      {sticker}")
    say(said, as_json, "\n".join(lines))


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example:  mcoe-client page --sticker sticker.png")(page)
