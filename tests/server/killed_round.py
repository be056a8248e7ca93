"""Two rounds of the toy fleet in a process that is killed at a named moment. For `test_killed_rounds.py`."""

from __future__ import annotations

import datetime
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from toy_fleet import enlist, honest_reply, toy_engine

import server.rounds
from server.acceptance import Rejected
from server.aggregation.block import Block
from server.aggregation.optimiser import OptimiserName, OptimiserSettings
from server.registry import Registry
from server.registry.artifacts import Artifacts
from server.rounds import RoundEngine

CLIENTS = ("a", "b", "c", "spoilt")
ROUNDS = 2


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_after(place: Any, name: str, call: int = 1) -> None:
    """Be killed right after this call of a function or method has returned."""
    real: Callable[..., Any] = getattr(place, name)
    calls = 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        result = real(*arguments, **named)
        if calls == call:
            die()
        return result

    setattr(place, name, counted)


def die_while_writing_after(place: Any, name: str) -> None:
    """Be killed when the first file that is written after this call of a function is about to take its name."""
    real: Callable[..., Any] = getattr(place, name)

    def then(*arguments: Any, **named: Any) -> Any:
        result = real(*arguments, **named)
        os.replace = die
        return result

    setattr(place, name, then)


def die_before_statement(beginning: str) -> None:
    """Be killed in the middle of a transaction, before this SQL statement."""

    def look(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith(beginning):
            die()

    sa.event.listen(sa.Engine, "before_cursor_execute", look)


#: Every moment at which the process may die, by name. Four replies make a round, three of them accepted.
MOMENTS: dict[str, Callable[[], None]] = {
    "opened": lambda: die_after(Registry, "open_round"),
    "opened the second round": lambda: die_after(Registry, "open_round", 2),
    "while opening": lambda: die_before_statement("INSERT INTO members"),
    "while writing an update": lambda: die_while_writing_after(Registry, "open_round"),
    "between update and row": lambda: die_after(server.rounds, "write_update", 2),
    "between update and row, in the second round": lambda: die_after(server.rounds, "write_update", 5),
    "while storing a row": lambda: die_before_statement("INSERT INTO router_statistics"),
    "while receiving": lambda: die_after(Registry, "record_reply", 2),
    "received all": lambda: die_after(Registry, "record_reply", 4),
    "closed": lambda: die_after(Registry, "close_round"),
    "while aggregating": lambda: die_after(Block, "chunks", 2),
    "aggregated": lambda: die_after(server.rounds, "aggregate"),
    "while writing the artifact": lambda: die_while_writing_after(server.rounds, "aggregate"),
    "between artifact and row": lambda: die_after(Artifacts, "put"),
    "while publishing": lambda: die_before_statement("UPDATE rounds SET state=?, published_sha256"),
    "published, the spool not removed": lambda: die_after(Registry, "publish_round"),
    "published the last round": lambda: die_after(Registry, "publish_round", 2),
}

#: Further moments of a round whose server has an optimiser.
MOMENTS_OF_OPTIMISER: dict[str, Callable[[], None]] = {
    "stepped": lambda: die_after(server.rounds, "step", 2),
    "between moments and artifact": lambda: die_after(Artifacts, "put_moments", 2),
    "between artifact and row": lambda: die_after(Artifacts, "put", 2),
    "while publishing": MOMENTS["while publishing"],
}


def play(folder: Path, moment: str | None, optimiser: OptimiserName = "none") -> None:
    """Go on with the experiment in this folder until two rounds are published; say in a file what came out."""
    engine = toy_engine(folder)
    engine.settings = replace(engine.settings, optimiser=OptimiserSettings(optimiser))
    enlist(engine, *CLIENTS)
    if moment is not None:
        (MOMENTS if optimiser == "none" else MOMENTS_OF_OPTIMISER)[moment]()
    current = engine.resume()
    while engine.registry.last_published() < ROUNDS:
        current = current or engine.open(CLIENTS)
        for client in engine.waiting_for(current):
            reply = honest_reply(current.expectation, client, scale=float("nan") if client == "spoilt" else 0.01)
            assert isinstance(engine.receive(current, reply), Rejected) == (client == "spoilt")
        engine.finish(current)
        current = None
    (folder / "result").write_text("\n".join(told(engine)))


NEVER = datetime.datetime.min.replace(tzinfo=datetime.UTC)


def told(engine: RoundEngine) -> list[str]:
    """Everything that must be the same whether or not a process was killed on the way."""
    lines = []
    for dated in engine.registry.rounds():
        row = replace(dated, opened=NEVER)  # the time alone differs
        lines.append(str(row))
        for reply in engine.registry.replies(row.id):
            lines.append(f"{reply.client_id} {reply.accepted} {reply.update_id} {reply.norm} {reply.reason}")
        lines.append(str(engine.registry.router_statistics(row.id)))
    return [*lines, str(engine.registry.newest_model())]
