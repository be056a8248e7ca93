"""What a round costs on real processes: server, SuperLink and three clients on loopback, over TLS.

    python benchmarks/real_fleet.py [--rounds 20] [--json]

The payload is small (the head of mcoe-tiny) and training brief, so that the exchange itself shows: median and maximum
seconds from a round's opening to its model, of which training (the slowest client's own report), and by phase: until
the first reply was judged, from there to the last one, until the round was closed, and until its model was published.
Then from SIGKILL of the server to the moment at which a new one answers. Flower's SuperNode looks for messages every
three seconds, which nothing here can change.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from fleet import running_clients, running_server, say, write_data
from sqlalchemy import select
from sqlalchemy.orm import Session

from server.registry.tables import PUBLISHED, Reply, Round
from simulations.fleet.processes import listens, wait_for

CLIENTS = 3
#: The phases of a round, in their order.
PHASES = ("first_reply", "last_reply", "closing", "publishing")


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """Run the fleet until so many rounds are published, then kill the server and start it again."""
    data = write_data(folder, CLIENTS)
    flags = ("--min-clients", CLIENTS, "--pause-s", 0.5)
    with running_server(folder, *flags) as server, running_clients(server, data, CLIENTS):
        server.wait_for_round(rounds, 10.0 * rounds)
        with Session(server.registry().engine) as session:
            done = list(session.scalars(select(Round).where(Round.state == PUBLISHED).order_by(Round.id)))[1:]
            whole = [(r.published - r.opened).total_seconds() for r in done if r.published is not None]
            trained = []
            phases: dict[str, list[float]] = {name: [] for name in PHASES}
            for each in done:
                replies = session.scalars(select(Reply).where(Reply.round_id == each.id)).all()
                trained.append(max(reply.seconds or 0.0 for reply in replies))
                received = sorted(reply.received for reply in replies)
                times = [each.opened, received[0], received[-1], each.closed, each.published]
                for name, (begin, end) in zip(PHASES, pairwise(filter(None, times)), strict=True):
                    phases[name].append((end - begin).total_seconds())
        assert server.process is not None
        server.process.end(signal.SIGKILL)
        wait_for(lambda: not listens(server.port), 10, "the end of the server's processes")
        began = time.monotonic()
        server.start(*flags)
        ready = time.monotonic() - began
    return {
        "rounds": len(whole),
        "round_median_s": statistics.median(whole),
        "round_max_s": max(whole),
        "slowest_training_median_s": statistics.median(trained),
        "exchange_median_s": statistics.median(w - t for w, t in zip(whole, trained, strict=True)),
        **{f"{name}_median_s": statistics.median(seconds) for name, seconds in phases.items()},
        "restart_to_ready_s": ready,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        say(measure(Path(scratch), asked.rounds), asked.json)


if __name__ == "__main__":
    main()
