"""What a fleet's check-ins cost the server: nodes that connect over TLS, say who they are and leave, at a steady rate.

    python benchmarks/check_ins.py [--per-minute 300] [--minutes 2] [--json]

Every check-in is a whole visit: TLS, activation, the coordinator's question pulled part by part, the answer pushed, and
leaving as long after it as a client's radio does, by nodes without SuperNode or training in this process. Counted are
the check-ins that the registry holds afterwards; seconds are from connecting to the answer, and processor seconds those
of the server's processes per minute. A round never opens, since the nodes say that they have no clips.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from fleet import CHILDREN, BareNode, cpu_s, running_server, say, write_data
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from client.radio import LINGER_S
from server.registry.tables import CheckInRow
from simulations.fleet.processes import ProcessFailed, wait_for

#: A node checks in again after so many seconds.
EVERY_S = 20.0


def measure(folder: Path, per_minute: int, minutes: float) -> dict[str, Any]:
    """Let nodes come and go, each at its own time."""
    write_data(folder, subjects=1)
    count = round(per_minute * EVERY_S / 60)
    with running_server(folder) as server:
        nodes = BareNode.join(server, [f"node-{number:04}" for number in range(count)])
        pids = {kind: server.child(kind) for kind in CHILDREN}
        seconds: list[float] = []
        began = time.monotonic()
        ends = began + 60 * minutes
        lock = threading.Lock()

        def live(place: int) -> None:
            node, due = nodes[place], began + EVERY_S * place / count
            while due < ends:
                time.sleep(max(0.0, due - time.monotonic()))
                answered = node.visit(lambda question: node.check_in(question, 0), messages=1, stay_s=LINGER_S)
                with lock:
                    seconds.append(answered)
                due += EVERY_S

        before = {kind: cpu_s(pid) for kind, pid in pids.items()}
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(live, range(count)))
        took = (time.monotonic() - began) / 60
        used = {f"{kind}_cpu_s_per_minute": (cpu_s(pid) - before[kind]) / took for kind, pid in pids.items()}
        engine = server.registry().engine

        def recorded() -> int:
            with Session(engine) as session:
                return session.scalar(select(func.count()).select_from(CheckInRow)) or 0

        with suppress(ProcessFailed):  # Flower throws away the answers of nodes that left before they were pulled
            wait_for(lambda: recorded() >= len(seconds), 10, "the last check-in's row")
        return {
            "nodes": count,
            "visits": len(seconds),
            "recorded": recorded(),
            "recorded_per_minute": recorded() / took,
            "answered_median_s": statistics.median(seconds),
            "answered_max_s": max(seconds),
            **used,
        }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-minute", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        say(measure(Path(scratch), asked.per_minute, asked.minutes), asked.json)


if __name__ == "__main__":
    main()
