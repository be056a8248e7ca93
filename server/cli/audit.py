"""`mcoe-server audit`: what was done to clients and models, and whom the server refused."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.common import DEFAULT_FOLDER, AsJson, Experiment, Folder, opened, show, told


@told
def audit(
    client: Annotated[str | None, typer.Option(help="Only events of this client.")] = None,
    kind: Annotated[str, typer.Option(help="Only events whose kind holds this text, such as 'canary'.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="So many events.")] = 50,
    experiment: Experiment = None,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """The newest audit events, newest first. Those of a client that was forgotten name nobody."""
    _, _, fleet = opened(folder, experiment)
    found = fleet.registry.events(limit, client, kind)
    show(found, as_json, ("time", "kind", "client_id", "detail"), "no such event")
