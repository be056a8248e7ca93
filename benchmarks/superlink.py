"""What large replies cost the SuperLink: its memory and Flower's database over eight replies of 50 MB.

    python benchmarks/superlink.py [--clients 8] [--megabytes 50] [--json]

The model is mcoe-edge, of which a reply may be up to 100 MB. Nodes without training answer the tasks of one round, all
at the same time, with so many megabytes of tensors that are no update: the coordinator pulls every reply whole, rejects
it, and Flower lets go of it. Printed are the peak of the resident memory of SuperLink and coordinator above what they
held before, and the size of Flower's database, at its largest and once all replies were pulled.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from fleet import BareNode, peak_mb, resident_mb, running_server, wait_for, write_data
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict

from mcoe_model.protocol import CheckIn
from mcoe_model.tensors import STYPE, pack
from server.registry import Registry
from server.registry.database import connect, sqlite_url

#: Seconds that nodes stay after their answer, so that it is pulled from them while they are there.
STAY_S = 45.0


def measure(folder: Path, clients: int, megabytes: int) -> dict[str, Any]:
    """One round in which everybody sends that much."""
    write_data(folder, subjects=1, preset="mcoe-edge")
    random = np.random.default_rng(0)
    big = pack({"noise": random.standard_normal(megabytes * 250_000, np.float32)})

    def answer(name: str, message: Message) -> Message:
        if message.metadata.message_type == MessageType.QUERY:
            record = ConfigRecord(CheckIn(name, 10).to_record())  # type: ignore[arg-type]
            return Message(RecordDict({"check-in": record}), reply_to=message)
        tensors = ArrayRecord({"tensors": Array("uint8", (len(big),), STYPE, big)})
        content = {"update": tensors, "meta": ConfigRecord({}), "report": MetricRecord({})}
        return Message(RecordDict(content), reply_to=message)  # type: ignore[arg-type]

    with running_server(folder, "--min-clients", clients) as server:
        nodes = BareNode.join(server, [f"node-{number}" for number in range(clients)])
        pids = {kind: server.child(kind) for kind in ("superlink", "coordinator")}
        before = {kind: resident_mb(pid) for kind, pid in pids.items()}
        threads = [
            threading.Thread(target=node.visit, args=(lambda message, node=node: answer(node.name, message), 2, STAY_S))
            for node in nodes
        ]
        for thread in threads:
            thread.start()
        largest = 0.0
        while any(thread.is_alive() for thread in threads):
            largest = max(largest, database_mb(server.folder))
            time.sleep(0.1)
        registry = Registry(connect(sqlite_url(server.folder / "registry.sqlite")), "fleet")
        wait_for(lambda: len(registry.rounds()) > 0 and len(registry.replies(registry.rounds()[0].id)) == clients)
        time.sleep(5)
        found = {f"{kind}_peak_above_start_mb": peak_mb(pid) - before[kind] for kind, pid in pids.items()}
        return {
            "replies_mb": float(clients * megabytes),
            **found,
            "database_largest_mb": largest,
            "database_after_mb": database_mb(server.folder),
        }


def database_mb(folder: Path) -> float:
    """Bytes of Flower's database with its journal [MB]."""
    return sum(file.stat().st_size for file in folder.glob("superlink.sqlite*")) / 1e6


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--megabytes", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(Path(scratch), asked.clients, asked.megabytes)
    print(json.dumps(found) if asked.json else "\n".join(f"{name:32} {value:10.1f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
