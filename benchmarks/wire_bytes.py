"""What a wearable's part in its fleet sends and receives, all of it: TLS, Flower's heartbeats and questions as well.

    python benchmarks/wire_bytes.py [--preset mcoe-tiny] [--check-ins 5] [--json]

A real server and one real `mcoe-client`, between which a relay counts what goes either way, encrypted as it is. The
client sleeps between check-ins. Counted are its start (the fleet's model is fetched), check-ins in which nothing
happens, and a round: from its opening through training and the next model to the check-in after it, two visits in all.
Beside them stand the bytes that `mcoe-client status` counts (`client/traffic.py`), which leave out what carries them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from fleet import running_server, say, write_data

from client.enrolment import ClientPaths
from client.traffic import Traffic
from simulations.fleet.processes import BIN, Process, ProcessFailed, free_ports, run, wait_for

#: Seconds between two check-ins.
EVERY_S = 20
SETTINGS = f'open_when = "command"\nmin_clients = 1\ncheck_in_s = {EVERY_S}\npause_s = 0.1\ntrain = "head"\n'


@dataclass(frozen=True)
class Bytes:
    """What went from the client and to it, and what it counts itself."""

    up: int
    down: int
    counted: int

    def since(self, before: Bytes, times: int = 1) -> dict[str, float]:
        pairs = ((name, getattr(self, name) - getattr(before, name)) for name in ("up", "down", "counted"))
        return {f"{name}_bytes": value / times for name, value in pairs}


class Relay:
    """Carries connections to a port, and counts. It ends with the process."""

    def __init__(self, port: int) -> None:
        self._to, self._port = port, free_ports(1)
        self.address = f"127.0.0.1:{self._port}"
        self.up = self.down = 0
        self._listens = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        assert self._listens.wait(60)

    async def _serve(self) -> None:
        async with await asyncio.start_server(self._carry, "127.0.0.1", self._port) as listening:
            self._listens.set()
            await listening.serve_forever()

    async def _carry(self, source: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(back):
            answers, sink = await asyncio.open_connection("127.0.0.1", self._to)
            with contextlib.closing(sink):
                ways = [self._pump(source, sink, up=True), self._pump(answers, back, up=False)]
                tasks = [asyncio.ensure_future(way) for way in ways]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, up: bool) -> None:
        with contextlib.suppress(OSError):
            while content := await source.read(1 << 16):
                self.up, self.down = self.up + len(content) * up, self.down + len(content) * (not up)
                sink.write(content)
                await sink.drain()


def measure(folder: Path, preset: str, check_ins: int) -> dict[str, float]:
    """Let one client start, check in so many times, and take part in a round."""
    data = write_data(folder, 1, preset)
    with running_server(folder, settings=SETTINGS) as server, contextlib.ExitStack() as ends:
        relay, paths = Relay(server.port), ClientPaths(folder / "client")
        line = server.ask("clients", "invite", "--address", relay.address)["invitation"]
        run("mcoe-client", "enrol", line, "--dir", paths.folder, "--clips", data, "--subject", "001")
        client = Process(folder / "client.log", BIN / "mcoe-client", "--device", "none", "--dir", paths.folder)
        ends.callback(client.end)

        def now() -> Bytes:
            return Bytes(relay.up, relay.down, Traffic(paths.traffic).used().in_day)

        def visits() -> int:
            return client.said().count("checked in; again in")

        def wait_for_visits(count: int) -> None:
            wait_for(lambda: visits() >= count, (count - visits()) * 4 * EVERY_S, f"visit {count}")

        wait_for_visits(1)
        started, before = now(), visits()
        wait_for_visits(before + check_ins)
        idle, before = now(), visits()
        server.ask("rounds", "open")
        server.wait_for_round(1)
        # The visit that trains stays until it hears of its update: whether it is over by now is a matter of timing.
        if visits() > before + 1:
            raise ProcessFailed("the round was not of the first visit after its opening")
        wait_for_visits(before + 2)
        ended = now()
    found = {f"start_{name}": value for name, value in started.since(Bytes(0, 0, 0)).items()}
    found |= {f"check_in_{name}": value for name, value in idle.since(started, check_ins).items()}
    return found | {f"round_{name}": value for name, value in ended.since(idle).items()}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="mcoe-tiny")
    parser.add_argument("--check-ins", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        say(measure(Path(scratch), asked.preset, asked.check_ins), asked.json)


if __name__ == "__main__":
    main()
