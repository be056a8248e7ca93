"""What `mcoe-server status` says of the server's processes and of an experiment."""

from __future__ import annotations

import socket
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mcoe_model.errors import McoeError
from mcoe_model.model_file import read_card
from server.fleet import Fleet
from server.lock import is_held
from server.paths import ServerPaths
from server.settings import ServerSettings
from server.settings_file import read_running
from server.superlink.database import database_bytes
from server.supervisor import children_of


def server_status(paths: ServerPaths) -> dict[str, Any]:
    """Whether `start` runs, which of its processes do not, and the size of Flower's database.

    A coordinator takes a lock once it has what it works with, so that one that ends as often as it is started is down.
    """
    running: tuple[ServerSettings, ...] = ()
    with suppress(FileNotFoundError):  # it has just been started, for the first time
        running = read_running(paths) if is_held(paths.running_lock) else ()
    down = []
    if running:
        ports = {"superlink": running[0].local_port, "dashboard": running[0].dashboard_port}
        for child in children_of([one.experiment for one in running], dashboard=ports["dashboard"] > 0):
            up = _listens(ports[child.kind]) if child.kind in ports else is_held(paths.at_work(child.arguments[0]))
            down += [] if up else [child.name]
    return {"running": bool(running), "down": down, "flower_bytes": database_bytes(paths.superlink)}


def server_lines(said: dict[str, Any], logs: Path) -> list[str]:
    """The same, to read."""
    return [
        f"server   {'running' if said['running'] else 'not running'}",
        *(f"down     {name}, which starts or cannot start; see {logs / name}.log" for name in said["down"]),
        f"Flower   {said['flower_bytes'] / 1e6:.1f} MB of database",
    ]


def experiment_status(fleet: Fleet, settings: ServerSettings) -> dict[str, Any]:
    """An experiment's clients, rounds and newest model, and the settings by which experiments differ."""
    registry = fleet.registry
    members, current, newest = registry.clients(), registry.unfinished_round(), registry.newest_model()
    said: dict[str, Any] = {
        "rule": settings.rule_in_force,
        "train": settings.train,
        "cohort_filter": settings.cohort_filter,
        "private": settings.private,
        "clients": {state: sum(c.state == state for c in members) for state in sorted({c.state for c in members})},
        "rounds_published": registry.last_published(),
        "open_round": asdict(current) if current else None,
        "model": newest,
    } | _lineage(fleet, newest)
    if current:
        said["waiting_for"] = list(registry.awaited(current.id))
    trial = registry.trial_summary()
    said["trial"] = asdict(trial) if trial else None
    said["canary"] = trial.in_words() if trial and trial.share is not None else None
    stopped = None if current else registry.waiting()
    said["no_round_because"] = stopped.reason if stopped else None
    said["no_round_since"] = stopped.since if stopped else None
    said["round_requested"] = registry.round_requested()
    said["to_unlearn"] = registry.to_unlearn()
    return said


def status_lines(said: dict[str, Any]) -> list[str]:
    """The same, to read."""
    current, newest = said["open_round"], said["model"]
    waiting, since = ", ".join(said.get("waiting_for", ())) or "nobody", said["no_round_since"]
    why = f": {said['no_round_because']} (since {since:%Y-%m-%d %H:%M} UTC)" if since else ""
    lines = [
        f"clients  {', '.join(f'{n} {state}' for state, n in said['clients'].items()) or 'none'}",
        f"rounds   {said['rounds_published']} published",
        f"open     round {current['number']}, waiting for {waiting}" if current else f"open     none{why}",
        f"model    {newest[:12]}, {said['preset'] or 'file missing'}" if newest else "model    none",
        f"rule     {said['rule']}, train {said['train']}, clients {said['cohort_filter']}",
    ]
    if said["canary"]:
        awaited = ", ".join(said["trial"]["awaited"])
        lines.append(f"canary   {said['canary']}{f'; awaited: {awaited}' if awaited else ''}")
    for client, versions in said["to_unlearn"].items():
        learned = f"{len(versions)} models, the newest version {versions[-1]}"
        lines.append(f"unlearn  {client} has withdrawn, and {learned}, learned from it: mcoe-server forget {client}")
    return lines


def _lineage(fleet: Fleet, newest: str | None) -> dict[str, str | None]:
    """Preset and generation of the experiment's models, None without one that can be read."""
    try:
        generation = read_card(fleet.artifacts.path(newest)).generation if newest else None
    except McoeError:
        generation = None
    return {"preset": generation.preset if generation else None, "generation": generation.id if generation else None}


def _listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
