"""What a round costs on real processes: server, SuperLink and three clients on loopback, over TLS.

    python benchmarks/real_fleet.py [--rounds 20] [--json]

The payload is small (the head of mcoe-tiny) and training brief, so that the exchange itself shows: median and maximum
seconds from a round's opening to its model, of which training (the slowest client's own report), and from SIGKILL of
the server to the moment at which a new one answers. Flower's SuperNode looks for messages every three seconds, which
nothing here can change.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from mcoe_model.data.cache import open_clips
from mcoe_model.data.synthetic import SyntheticSettings, write_see
from mcoe_model.learning.samples import measure_normalisation
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, write_model
from mcoe_model.networks import build
from server.registry.database import connect, sqlite_url
from server.registry.tables import PUBLISHED, Reply, Round

BIN = Path(sys.executable).parent
CLIENTS = 3


def run(program: str, *arguments: object) -> str:
    """A command's output."""
    command = [str(BIN / program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def start(log: Path, program: str, *arguments: object) -> subprocess.Popen[bytes]:
    """A program in the background."""
    with log.open("ab") as output:
        return subprocess.Popen([str(BIN / program), *map(str, arguments)], stdout=output, stderr=output)


def wait_for(condition: Callable[[], bool], seconds: float = 300.0) -> float:
    """Seconds until the condition holds."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise TimeoutError("the fleet does not do what it should; see the logs")
        time.sleep(0.02)
    return time.monotonic() - started


def answers(port: int) -> bool:
    """Whether something listens."""
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """Run the fleet until so many rounds are published, then kill the server and start it again."""
    data = folder / "data"
    write_see(data, SyntheticSettings(subjects=CLIENTS, sequences=4, size=64), workers=2)
    clips = open_clips(data, size=64, cache=folder / "cache")
    tensors = tensors_of(build("mcoe-tiny", seed=1))
    normalisation = measure_normalisation(clips, range(len(clips.records)))
    card = ModelCard(Generation("mcoe-tiny", backbone_sha256(tensors), 64, normalisation), "benchmark")
    write_model(folder / "base.safetensors", tensors, card)
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    server = folder / "server"
    run("mcoe-server", "init", "--dir", server, "--port", port)
    run("mcoe-server", "models", "import", folder / "base.safetensors", "--dir", server)
    flags = ("start", "--dir", server, "--min-clients", CLIENTS, "--pause-s", 0.5)
    started = [start(folder / "server.log", "mcoe-server", *flags)]
    try:
        wait_for(lambda: answers(port))
        for number in range(1, CLIENTS + 1):
            line = json.loads(run("mcoe-server", "clients", "invite", "--dir", server, "--json"))["invitation"]
            own = folder / f"client-{number}"
            run("mcoe-client", "enrol", line, "--dir", own, "--clips", data, "--subject", f"{number:03}")
            started.append(start(folder / f"client-{number}.log", "mcoe-client", "--device", "none", "--dir", own))
        engine = connect(sqlite_url(server / "registry.sqlite"))

        def published() -> int:
            with Session(engine) as session:
                return len(list(session.scalars(select(Round.id).where(Round.state == PUBLISHED))))

        wait_for(lambda: published() >= rounds, 30.0 * rounds)
        with Session(engine) as session:
            done = list(session.scalars(select(Round).where(Round.state == PUBLISHED).order_by(Round.id)))[1:]
            whole = [(r.published - r.opened).total_seconds() for r in done if r.published is not None]
            trained = []
            for each in done:
                replies = session.scalars(select(Reply).where(Reply.round_id == each.id))
                trained.append(max(reply.seconds or 0.0 for reply in replies))
        started[0].send_signal(signal.SIGKILL)
        started[0].wait()
        wait_for(lambda: not answers(port))
        started[0] = start(folder / "server.log", "mcoe-server", *flags)
        ready = wait_for(lambda: answers(port))
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(60)
    return {
        "rounds": len(whole),
        "round_median_s": statistics.median(whole),
        "round_max_s": max(whole),
        "slowest_training_median_s": statistics.median(trained),
        "exchange_median_s": statistics.median(w - t for w, t in zip(whole, trained, strict=True)),
        "restart_to_ready_s": ready,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(Path(scratch), asked.rounds)
    print(json.dumps(found) if asked.json else "\n".join(f"{name:26} {value:10.3f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
