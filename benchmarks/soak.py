"""Whether a server can be left running: rounds on real processes, and how memory, open files and databases grow.

    python benchmarks/soak.py [--rounds 500] [--json]

Server and three clients on loopback over TLS train the head of mcoe-tiny briefly, round after round (about four seconds
each). Every tenth round the resident memory and the open files of each process are read, and the bytes of the server's
databases; the slopes over all but the first fifth are reported per hundred rounds. Progress goes to standard error.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from fleet import CHILDREN, resident_mb, running_clients, running_server, say, write_data

from server.superlink.database import database_bytes

CLIENTS = 3
#: Rounds between two samples, and the share of them that counts as warming up.
EVERY, WARM_UP = 10, 0.2


def measure(folder: Path, rounds: int) -> dict[str, float]:
    """Slopes per hundred rounds, and the last values, by what was measured."""
    data = write_data(folder, CLIENTS)
    flags = ("--min-clients", CLIENTS, "--pause-s", 0.1)
    with running_server(folder, *flags) as server, running_clients(server, data, CLIENTS) as clients:
        assert server.process is not None
        pids = {kind: server.child(kind) for kind in (*CHILDREN, "dashboard")}
        pids |= {"supervisor": server.process.popen.pid, "client": clients[0].popen.pid}

        def sample() -> dict[str, float]:
            found = {f"{kind}_mb": resident_mb(pid) for kind, pid in pids.items()}
            found |= {f"{kind}_files": float(open_files(pid)) for kind, pid in pids.items()}
            for name in ("superlink", "registry"):
                found[f"{name}_database_mb"] = database_bytes(server.folder / f"{name}.sqlite") / 1e6
            return found

        samples: list[tuple[int, dict[str, float]]] = []
        for goal in range(EVERY, rounds + 1, EVERY):
            server.wait_for_round(goal, 40.0 * EVERY)
            samples.append((goal, sample()))
            print(f"{goal} of {rounds} rounds", file=sys.stderr)
    counted = samples[round(WARM_UP * len(samples)) :]
    found = {}
    for name in counted[0][1]:
        values = [sampled[name] for _, sampled in counted]
        slope = np.polyfit([number for number, _ in counted], values, 1)[0] if len(counted) > 1 else float("nan")
        found |= {f"{name}_per_100_rounds": 100 * float(slope), f"{name}_last": values[-1]}
    return found


def open_files(pid: int) -> int:
    """Files and sockets that a process holds open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        say(measure(Path(scratch), asked.rounds), asked.json)


if __name__ == "__main__":
    main()
