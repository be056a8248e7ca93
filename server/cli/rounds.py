"""`mcoe-server rounds`: what happened in every round."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from mcoe_model.errors import DataMissing
from server.cli.common import DEFAULT_FOLDER, AsJson, Experiment, Folder, opened, say, show, told
from server.rounds import RoundEngine, RoundSettings

app = typer.Typer(
    no_args_is_help=True, help="What happened in every round.",
    epilog="Example:  mcoe-server rounds list --dir fleet",
)


@app.command("list", epilog="Example:  mcoe-server rounds list")
@told
def list_rounds(experiment: Experiment = None, folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Every round with its state and what it made."""
    _, _, fleet = opened(folder, experiment)
    columns = ("number", "attempt", "state", "base_sha256", "published_sha256", "reason")
    show(fleet.registry.rounds(), as_json, columns, "no rounds yet")


@app.command("show", epilog="Example:  mcoe-server rounds show 3 --client w1")
@told
def show_round(
    number: Annotated[int, typer.Argument(help="Number of a round.")],
    client: Annotated[
        str | None, typer.Option(help="Why replies of this client were rejected, in every attempt at the round.")
    ] = None,
    experiment: Experiment = None,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """One round: who was asked, whose reply was accepted, why others were not, and what it cost."""
    _, _, fleet = opened(folder, experiment)
    rows = [row for row in fleet.registry.rounds() if row.number == number]
    if not rows:
        raise DataMissing(f"there is no round {number}; see: mcoe-server rounds list")
    if client is not None:
        fleet.registry.client(client)
        rejections = fleet.registry.why_rejected(client, number)
        show(rejections, as_json, ("attempt", "reason", "received"), f"no reply of {client} was rejected in it")
        return
    cost = fleet.registry.round_cost(number)
    replies = {
        reply.client_id: {"accepted": reply.accepted, "reason": reply.reason, "examples": reply.examples,
                          "staleness": reply.staleness,
                          "bytes_up": reply.bytes_up, "seconds": reply.seconds}
        for reply in fleet.registry.replies(rows[-1].id)
    }  # fmt: skip
    if as_json:
        print(json.dumps({**asdict(rows[-1]), "cost": asdict(cost), "replies": replies}, default=str))
        return
    row = rows[-1]
    print(f"round {row.number}, attempt {row.attempt}: {row.state}" + (f" ({row.reason})" if row.reason else ""))
    made = f", made {row.published_sha256[:12]}" if row.published_sha256 else ""
    print(f"from model {row.base_sha256[:12]}{made}")
    traffic = f"{cost.bytes_down / 1e6:.1f} MB down, {cost.bytes_up / 1e6:.1f} MB up"
    print(f"{traffic}, open for {cost.open_seconds:.0f} s, attempts: {cost.attempts}")
    columns = ("client", "accepted", "reason", "examples", "staleness", "bytes_up", "seconds")
    asked = [{"client": c, **(replies.get(c) or dict.fromkeys(columns[1:]))} for c in row.cohort]
    show(asked, False, columns, "nobody was asked")


@app.command("open", epilog="Example:  mcoe-server rounds open")
@told
def open_round(experiment: Experiment = None, folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Ask for a round: the next one opens as soon as enough clients are there, whatever the schedule.

    It works while the server is down, too, and is answered once.
    """
    _, _, fleet = opened(folder, experiment)
    new = fleet.registry.request_round()
    current = fleet.registry.unfinished_round()
    after = f"after round {current.number}, which is under way" if current else "as soon as enough clients are there"
    text = f"a round is asked for; it opens {after}" if new else f"a round was asked for already; it opens {after}"
    say({"requested": new, "under_way": current.number if current else None}, as_json, text)


@app.command(epilog="Example:  mcoe-server rounds replay 3")
@told
def replay(
    number: Annotated[int, typer.Argument(help="Number of a published round.")],
    experiment: Experiment = None,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Aggregate a round once more from its kept updates (keep_updates) and compare the bits."""
    paths, settings, fleet = opened(folder, experiment)
    rounds = RoundSettings(settings.fine_tune)  # a replay takes the settings that the round's row holds
    spool = paths.spool_of(settings.experiment)
    published, again = RoundEngine(fleet.registry, fleet.artifacts, spool, rounds).replay(number)
    same = published == again
    said = {"round": number, "published": published, "replayed": again, "same": same}
    say(said, as_json, f"round {number}: {'the same bits' if same else f'published {published}, now {again}'}")
    if not same:
        raise typer.Exit(1)
