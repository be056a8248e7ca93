"""What large replies cost the SuperLink: its memory and Flower's database over eight replies of 50 MB.

    python benchmarks/superlink.py [--clients 8] [--megabytes 50] [--json]

The model is mcoe-edge, of which a reply may be up to 100 MB. Nodes without training answer the tasks of one round, all
at the same time, with so many megabytes of tensors that are no update: the coordinator pulls every reply whole, rejects
it, and Flower lets go of it. Printed are the peak of the resident memory of SuperLink and coordinator above what they
held before, and the size of Flower's database, at its largest and once all replies were pulled.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from fleet import CHILDREN, BareNode, peak_mb, resident_mb, running_server, say, write_data
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict

from mcoe_model.tensors import STYPE, pack
from server.superlink.database import database_bytes
from simulations.fleet.processes import wait_for

#: Seconds that nodes stay after their answer, so that it is pulled from them while they are there.
STAY_S = 45.0


def measure(folder: Path, clients: int, megabytes: int) -> dict[str, Any]:
    """One round in which everybody sends that much."""
    write_data(folder, subjects=1, preset="mcoe-edge")
    random = np.random.default_rng(0)
    big = pack({"noise": random.standard_normal(megabytes * 250_000, np.float32)})

    def answer(node: BareNode, message: Message) -> Message:
        if message.metadata.message_type == MessageType.QUERY:
            return node.check_in(message, 10)
        tensors = ArrayRecord({"tensors": Array("uint8", (len(big),), STYPE, big)})
        content = {"update": tensors, "meta": ConfigRecord({}), "report": MetricRecord({})}
        return Message(RecordDict(content), reply_to=message)  # type: ignore[arg-type]

    with running_server(folder, "--min-clients", clients) as server:
        nodes = BareNode.join(server, [f"node-{number}" for number in range(clients)])
        pids = {kind: server.child(kind) for kind in CHILDREN}
        before = {kind: resident_mb(pid) for kind, pid in pids.items()}
        threads = [
            threading.Thread(target=node.visit, args=(lambda message, node=node: answer(node, message), 2, STAY_S))
            for node in nodes
        ]
        for thread in threads:
            thread.start()
        largest, database = 0.0, server.folder / "superlink.sqlite"
        while any(thread.is_alive() for thread in threads):
            largest = max(largest, database_bytes(database) / 1e6)
            time.sleep(0.1)
        registry = server.registry()

        def judged() -> int:
            return sum(len(registry.replies(row.id)) for row in registry.rounds()[:1])

        wait_for(lambda: judged() == clients, 100, "the verdict on every reply")
        time.sleep(5)
        found = {f"{kind}_peak_above_start_mb": peak_mb(pid) - before[kind] for kind, pid in pids.items()}
        return {
            "replies_mb": float(clients * megabytes),
            **found,
            "database_largest_mb": largest,
            "database_after_mb": database_bytes(database) / 1e6,
        }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--megabytes", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        say(measure(Path(scratch), asked.clients, asked.megabytes), asked.json)


if __name__ == "__main__":
    main()
