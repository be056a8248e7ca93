"""How long the dashboard's pages take on the server's side, over a large registry.

    python benchmarks/dashboard.py [--clients 1000] [--rounds 125] [--experts 8] [--repeats 11] [--folder .] [--json]

By default 1,000 clients, 125 published rounds that asked them all and one that is open: a million rows of router
statistics. Each page is asked for as a browser does, through the application with its guard and templates; its median
is printed, and the limit is 300 ms. Nothing is cached between requests but what SQLite keeps itself.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from fastapi.testclient import TestClient
from sqlalchemy import Connection, insert

from mcoe_model.names import EMOTIONS, LIGHTINGS
from server.certificates import make_authority, make_server_certificate
from server.dashboard import dashboard_app
from server.paths import ServerPaths
from server.registry import OPEN, PUBLISHED, Registry, utc_now
from server.registry.artifacts import Artifacts
from server.registry.database import open_database, sqlite_url
from server.registry.tables import CheckInRow, Client, Evaluation, Member, Model, Reply, Round, RouterRow
from server.settings import ServerSettings

LIMIT_MS = 300.0
CHECK_INS = 20
PAGES = (
    "/", "/rounds", "/rounds/{round}", "/models", "/models/2/rollback", "/experts", "/experts?last=true&page=5",
    "/server", "/metrics", "/api/v1/clients", "/api/v1/rounds", "/api/v1/rounds/{round}", "/api/v1/models",
    "/api/v1/experts", "/api/v1/health",
)  # fmt: skip


def fill(registry: Registry, clients: int, rounds: int, experts: int) -> None:
    """A fleet with its history, by plain inserts."""
    names = [f"w{index:08x}" for index in range(clients)]
    now, random = utc_now(), np.random.default_rng(0)
    fleet = [
        {"id": name, "experiment": registry.experiment, "state": "enrolled", "first_seen": now, "last_seen": now,
         "examples": 10, "client_version": "1.0"}
        for name in names
    ]  # fmt: skip
    seen = [
        {"client_id": name, "time": now - datetime.timedelta(hours=hours), "examples": 10, "client_version": "1.0"}
        for name in names
        for hours in range(CHECK_INS)
    ]
    with registry.engine.begin() as connection:
        connection.execute(insert(Client), fleet)
        connection.execute(insert(CheckInRow), seen)
        for number in range(1, rounds + 2):
            _store_round(connection, registry.experiment, names, number, experts, number > rounds, random)


def _store_round(
    connection: Connection,
    experiment: str,
    names: list[str],
    number: int,
    experts: int,
    under_way: bool,
    random: np.random.Generator,
) -> None:
    """One round that asked everybody: of the one under way, half have answered."""
    opened = utc_now()
    parent, sha256 = f"{number - 1:064x}", f"{number:064x}"
    row = {
        "experiment": experiment, "number": number, "attempt": 1, "settings": {}, "opened": opened,
        "state": OPEN if under_way else PUBLISHED, "base_sha256": parent,
        "published_sha256": None if under_way else sha256, "closed": None if under_way else opened,
        "published": None if under_way else opened,
    }  # fmt: skip
    [round_id] = connection.execute(insert(Round), row).inserted_primary_key or [0]
    whose = [{"round_id": round_id, "client_id": name} for name in names]
    connection.execute(insert(Member), whose)
    heard = whose[: len(whose) // 2] if under_way else whose
    refused = {"accepted": False, "reason": "tensor moe.router.weight holds values that are not finite"}
    judged = {"bytes_down": 5_000_000, "bytes_up": 5_000_000, "examples": 10, "seconds": 20.0, "received": opened}
    fine = {"accepted": True, "reason": None}
    connection.execute(
        insert(Reply), [one | judged | (refused if index % 50 == 0 else fine) for index, one in enumerate(heard)]
    )
    counts = random.multinomial(20, random.dirichlet(np.full(experts, 5.0)), size=len(heard))
    used = {"examples": 10, "top_k": 2, "gate_mass": 1.25}
    connection.execute(
        insert(RouterRow),
        [
            one | used | {"expert": expert, "routed": int(count)}
            for one, row_counts in zip(heard, counts, strict=True)
            for expert, count in enumerate(row_counts)
        ],
    )
    if not under_way:
        mine = {"experiment": experiment, "version": number, "generation": "g", "state": "released"}
        connection.execute(insert(Model), mine | {"sha256": sha256, "parent_sha256": parent, "created": opened})
        war = {"war": 0.6, "uar": 0.5, "per_emotion": dict.fromkeys(EMOTIONS, 0.5)}
        scores = war | {"per_lighting": {name: {"war": 0.5, "subjects": 5, "clips": 50} for name in LIGHTINGS}}
        connection.execute(
            insert(Evaluation), {"model_sha256": sha256, "evaluation_set": "validation", "scores": scores}
        )


def measure(folder: Path, clients: int, rounds: int, experts: int, repeats: int) -> dict[str, float]:
    """Each page's median in milliseconds."""
    paths, settings = ServerPaths(folder), ServerSettings(experiment="benchmark")
    make_authority(paths.certificates)
    make_server_certificate(paths.certificates, ["localhost"])
    registry = Registry(open_database(sqlite_url(paths.registry)), settings.experiment)
    fill(registry, clients, rounds, experts)
    artifacts = Artifacts(paths.models)
    artifacts.folder.mkdir()
    artifacts.path(f"{2:064x}").write_bytes(b"a page only looks whether it is there")
    app = dashboard_app([registry], artifacts, paths, [settings], "token")
    found = {}
    with TestClient(app, base_url="http://127.0.0.1", headers={"Authorization": "Bearer token"}) as browser:
        for page in PAGES:
            address = page.format(round=rounds)
            seconds = []
            for _ in range(repeats):
                started = time.perf_counter()
                answer = browser.get(address)
                seconds.append(time.perf_counter() - started)
                assert answer.status_code == 200, (address, answer.text)
            found[address] = 1e3 * statistics.median(seconds)
    registry.engine.dispose()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=125, help="published rounds of the whole fleet")
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--folder", type=Path, default=Path(), help="where the database is made")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = measure(Path(folder), options.clients, options.rounds, options.experts, options.repeats)
    if options.json:
        print(json.dumps(found))
        return
    for page, milliseconds in found.items():
        print(f"{page:32} {milliseconds:8.1f} ms{'' if milliseconds < LIMIT_MS else '   over the limit'}")


if __name__ == "__main__":
    main()
