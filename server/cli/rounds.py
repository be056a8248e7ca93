"""`mcoe-server rounds`: what happened in every round."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from mcoe_model.errors import DataMissing
from server.cli.common import DEFAULT_FOLDER, AsJson, Folder, opened, say, show, told
from server.rounds import RoundEngine, RoundSettings

app = typer.Typer(no_args_is_help=True, help="What happened in every round.")


@app.command("list", epilog="Example:  mcoe-server rounds list")
@told
def list_rounds(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Every round with its state and what it made."""
    _, _, fleet = opened(folder)
    columns = ("number", "attempt", "state", "base_sha256", "published_sha256", "reason")
    show(fleet.registry.rounds(), as_json, columns, "no rounds yet")


@app.command("show", epilog="Example:  mcoe-server rounds show 3")
@told
def show_round(
    number: Annotated[int, typer.Argument(help="Number of a round.")],
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """One round: who was asked, whose reply was accepted, why others were not, and what it cost."""
    _, _, fleet = opened(folder)
    rows = [row for row in fleet.registry.rounds() if row.number == number]
    if not rows:
        raise DataMissing(f"there is no round {number}; see: mcoe-server rounds list")
    replies = {
        reply.client_id: {"accepted": reply.accepted, "reason": reply.reason, "examples": reply.examples,
                          "bytes_up": reply.bytes_up, "seconds": reply.seconds}
        for reply in fleet.registry.replies(rows[-1].id)
    }  # fmt: skip
    if as_json:
        print(json.dumps({**asdict(rows[-1]), "replies": replies}, default=str))
        return
    row = rows[-1]
    print(f"round {row.number}, attempt {row.attempt}: {row.state}" + (f" ({row.reason})" if row.reason else ""))
    made = f", made {row.published_sha256[:12]}" if row.published_sha256 else ""
    print(f"from model {row.base_sha256[:12]}{made}")
    columns = ("client", "accepted", "reason", "examples", "bytes_up", "seconds")
    asked = [{"client": c, **(replies.get(c) or dict.fromkeys(columns[1:]))} for c in row.cohort]
    show(asked, False, columns, "nobody was asked")




@app.command(epilog="Example:  mcoe-server rounds replay 3")
@told
def replay(
    number: Annotated[int, typer.Argument(help="Number of a published round.")],
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Aggregate a round once more from its kept updates (keep_updates) and compare the bits."""
    paths, settings, fleet = opened(folder)
    rounds = RoundSettings(settings.fine_tune)  # a replay takes the settings that the round's row holds
    published, again = RoundEngine(fleet.registry, fleet.artifacts, paths.spool, rounds, top_k=1).replay(number)
    same = published == again
    said = {"round": number, "published": published, "replayed": again, "same": same}
    say(said, as_json, f"round {number}: {'the same bits' if same else f'published {published}, now {again}'}")
    if not same:
        raise typer.Exit(1)
