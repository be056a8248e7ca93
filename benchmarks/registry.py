"""What the registry costs: to store a round, and to answer an operator's questions over many rows.

    python benchmarks/registry.py [--clients 50] [--experts 8] [--repeats 20] [--folder .] [--history 0] [--json]

The replies of a round are stored one commit each, as the coordinator does, so that an accepted update is never lost.
Beside it stands what the disk of ``--folder`` takes for as many small writes that are synced with nothing else done: no
registry with that promise can be faster there. ``--history`` first stores that many rounds of 1,000 clients, and then
times the questions as well.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import event, insert

from mcoe_model.protocol import CheckIn, TrainReport, UpdateMeta, update_id
from mcoe_model.router_statistics import RouterStatistics
from server.acceptance import Accepted
from server.registry import PUBLISHED, Registry, Transfer, utc_now
from server.registry.database import open_database, sqlite_url
from server.registry.tables import Member, Model, Reply, Round, RouterRow

FLEET = 1000


def accepted(client: str, experts: int) -> Accepted:
    """A verdict on an honest reply."""
    router = RouterStatistics(experts, 1, (1,) * experts, (1.0,) * experts)
    meta = UpdateMeta(update_id(client, "b", ["clip"]), client, 1, "b" * 64, "g", "head", tuple(range(experts)))
    return Accepted(meta, TrainReport(experts, 2.0, 1.0, 0.5, router), 1.0)


def store_round(registry: Registry, clients: list[str], experts: int) -> float:
    """Seconds to store the replies of one round."""
    verdicts = [(client, accepted(client, experts)) for client in clients]
    row = registry.open_round("b" * 64, clients, {}, None)
    started = time.perf_counter()
    for client, verdict in verdicts:
        registry.record_reply(row.id, client, verdict, Transfer(1000, 1000))
    seconds = time.perf_counter() - started
    registry.abandon_round(row.id, "benchmark")
    return seconds


def synced_writes(folder: Path, count: int) -> float:
    """Seconds for as many writes of a page, each of which reaches the disk before the next."""
    with (folder / "writes").open("wb", buffering=0) as file:
        started = time.perf_counter()
        for _ in range(count):
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
        return time.perf_counter() - started


def store_history(registry: Registry, rounds: int, experts: int) -> None:
    """That many published rounds of the whole fleet, by plain inserts."""
    clients, now = [f"client {index:04}" for index in range(FLEET)], utc_now()
    for number in range(1, rounds + 1):
        sha256, parent, mine = f"{number:064x}", f"{number - 1:064x}", {"experiment": registry.experiment}
        made = {"version": number, "sha256": sha256, "parent_sha256": parent, "generation": "g", "state": "released"}
        held = {"number": number, "attempt": 1, "state": PUBLISHED, "base_sha256": parent, "published_sha256": sha256}
        times = {"opened": now, "closed": now, "published": now}
        with registry.engine.begin() as connection:
            connection.execute(insert(Model), mine | made | {"created": now})
            held_round = connection.execute(insert(Round), mine | held | times | {"settings": {}}).inserted_primary_key
            whose = [{"round_id": held_round[0], "client_id": client} for client in clients]
            counts = {"bytes_down": 1000, "bytes_up": 1000, "examples": 10, "received": now}
            connection.execute(insert(Member), whose)
            connection.execute(insert(Reply), [one | counts | {"accepted": True} for one in whose])
            used = {"examples": 10, "top_k": 1, "routed": 1, "gate_mass": 1.25}
            rows = [one | used | {"expert": expert} for one in whose for expert in range(experts)]
            connection.execute(insert(RouterRow), rows)


def median_ms(call: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return 1e3 * statistics.median(seconds)


def measure(folder: Path, clients: int, experts: int, repeats: int, history: int) -> dict[str, float]:
    """Medians in milliseconds, and counts, by name."""
    registry = Registry(open_database(sqlite_url(folder / "registry.sqlite")), "benchmark")
    cohort = [f"client {index:04}" for index in range(clients)]
    for client in {*cohort, *(f"client {index:04}" for index in range(FLEET if history else 0))}:
        registry.saw(CheckIn(client, 10))
    store_history(registry, history, experts)
    commits = 0

    @event.listens_for(registry.engine, "commit")
    def count(_connection: object) -> None:
        nonlocal commits
        commits += 1

    rounds, bare = [], []
    for _ in range(repeats):
        commits = 0
        rounds.append(store_round(registry, cohort, experts))
        stored = commits - 2  # without opening and abandoning the round
        bare.append(synced_writes(folder, stored))
    found = {
        "clients": clients,
        "experts": experts,
        "commits": stored,
        "round stored, ms": 1e3 * statistics.median(rounds),
        "as many bare synced writes, ms": 1e3 * statistics.median(bare),
    }
    if history:
        newest = f"{history:064x}"
        found |= {
            "router-statistics rows": history * FLEET * experts,
            "clients, ms": median_ms(registry.clients, 5),
            "rounds, ms": median_ms(registry.rounds, 5),
            "shaped_by, ms": median_ms(lambda: registry.shaped_by(newest), 5),
            "expert_use, ms": median_ms(lambda: registry.expert_use("client 0007"), 5),
            "why_rejected, ms": median_ms(lambda: registry.why_rejected("client 0007", history), 5),
            "round_cost, ms": median_ms(lambda: registry.round_cost(history), 5),
        }
    registry.engine.dispose()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path(), help="where the database is made")
    parser.add_argument("--history", type=int, default=0, help="published rounds of 1,000 clients to store first")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = measure(Path(folder), options.clients, options.experts, options.repeats, options.history)
    if options.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:32} {value:10.1f}" if "ms" in name else f"{name:32} {value:10,}")


if __name__ == "__main__":
    main()
