"""A whole fleet on this machine, in a few minutes: a server, simulated wearables, one round, the next model.

Each wearable is a real mcoe-client with a synthetic eye before its camera. It is enrolled by invitation over TLS,
records, is labelled through its own page, learns, checks in and gets the fleet's next model. The data are synthetic:
what is recognised of them says nothing about real eyes.
"""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.table import Table

from mcoe_model.errors import ExitCode, McoeError
from simulations.console import Display
from simulations.fleet.story import FleetSettings, Story

app = typer.Typer(add_completion=False)

EXAMPLES = """Examples:\n
python simulations/fleet_of_wearables.py\n
python simulations/fleet_of_wearables.py --keep        # and look around, until Ctrl-C\n
python simulations/fleet_of_wearables.py --wearables 2 --json"""
MODELS = ("base", "own", "next")


@app.command(epilog=EXAMPLES)
def main(
    wearables: Annotated[int, typer.Option(min=1, max=8, help="How many; two cores are busy with three.")] = 3,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end, until Ctrl-C.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="New folder for server, wearables and logs, which stays.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON, on the last line.")] = False,
) -> None:
    """Start a fleet of simulated wearables, let it learn for a round, and say what improved."""
    if out and out.exists():
        typer.echo(f"error: {out} exists already; name another folder with --out", err=True)
        raise typer.Exit(ExitCode.OUTPUT_EXISTS)
    folder = out.absolute() if out else Path(tempfile.mkdtemp(prefix="mcoe-fleet-"))
    display = Display(Console(stderr=as_json, highlight=False))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    story, began = Story(FleetSettings(wearables), folder, display), time.monotonic()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        story.run()
        found = summary(story, time.monotonic() - began)
        if as_json:
            typer.echo(json.dumps(found))
        else:
            for line in lines(found):
                display.console.print(line, soft_wrap=isinstance(line, str))
        if keep:
            with suppress(KeyboardInterrupt):
                display.console.print("Everything runs; Ctrl-C ends it.")
                signal.pause()
    except McoeError as fault:
        typer.echo(f"error: {fault}; the logs are in {folder}", err=True)
        raise typer.Exit(fault.exit_code) from fault
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    finally:
        story.end()
    if not out:
        shutil.rmtree(folder)


def summary(story: Story, seconds: float) -> dict[str, Any]:
    """What happened, in numbers."""
    server = story.the_server
    [row] = server.published()
    replies = {reply.client_id: reply for reply in server.registry().replies(row.id)}
    wearers = []
    for wearer in story.wearers:
        reply, last = replies[wearer.client_id], wearer.wearable.status()["learning"]["last"]
        wearers.append(
            {
                "wearer": wearer.name,
                "client": wearer.client_id,
                "labelled": len(wearer.spans),
                "learned": last["spans"],
                "accepted": reply.accepted,
                "bytes_up": reply.bytes_up,
                "own_model_s": round(wearer.learned_s, 1),
                "next_model_s": round(wearer.arrived_s, 1),
                "recognised": wearer.recognised,
                "of": story.settings.unseen,
            }
        )
    return {"data": "synthetic", "model": row.published_sha256, "seconds": round(seconds, 1), "wearers": wearers}


def lines(found: dict[str, Any]) -> list[RenderableType]:
    """What improved, and what it took, for the terminal."""
    table, wearers = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0)), found["wearers"]
    for column in ("", "base", "own", "next", "learned", "update", "own after", "next after"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for one in wearers:
        recognised = [f"{one['recognised'][model]}/{one['of']}" for model in MODELS]
        update = f"{one['bytes_up'] / 1e3:.0f} kB" if one["accepted"] else "rejected"
        after = [f"{one[name]:.0f} s" for name in ("own_model_s", "next_model_s")]
        table.add_row(one["wearer"], *recognised, str(one["learned"]), update, *after)
    total = sum(one["of"] for one in wearers)
    sums = [sum(one["recognised"][model] for one in wearers) for model in MODELS]
    table.add_row("together", *(f"{100 * right / total:.0f} %" for right in sums))
    return [
        f"\nExpressions that are recognised, of {total} that no wearable has recorded (chance: 14 %):",
        table,
        f"The wearables' own learning {_made(sums[1] - sums[0])}, the fleet's round {_made(sums[2] - sums[0])}.",
        "base: the fleet's first model; own: what a wearable made of it by itself;\n"
        "next: the fleet's next model; learned: labelled parts; after: since the last label.\n"
        "The eyes are synthetic: this says nothing about real ones.",
    ]


def _made(more: int) -> str:
    return f"brought {more} more" if more > 0 else f"brought {-more} fewer" if more < 0 else "changed nothing of that"


if __name__ == "__main__":
    app()
