"""A real server for the benchmarks, real clients, and nodes that only answer: on loopback, over TLS."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree
from flwr.supernode.fleet_http_connection import http_request_response

from mcoe_model.data.cache import open_clips
from mcoe_model.data.synthetic import SyntheticSettings, write_see
from mcoe_model.learning.samples import measure_normalisation
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, write_model
from mcoe_model.networks import build
from mcoe_model.signed_request import public_pem
from server.fleet import open_fleet
from server.paths import ServerPaths
from server.settings import load_settings

BIN = Path(sys.executable).parent
#: Seconds between two looks of a bare node for a message, as of a SuperNode.
LOOK_S = 3.0
#: Seconds that it stays after its last answer: Flower may throw away what it has from a node that has left.
STAY_S = 2.0


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


def write_data(folder: Path, subjects: int, preset: str = "mcoe-tiny") -> Path:
    """Labelled clips of so many subjects, and an untrained model for them; returns the folder of the clips."""
    data = folder / "data"
    write_see(data, SyntheticSettings(subjects=subjects, sequences=4, size=64), workers=2)
    clips = open_clips(data, size=64, cache=folder / "cache")
    tensors = tensors_of(build(preset, seed=1))
    normalisation = measure_normalisation(clips, range(len(clips.records)))
    card = ModelCard(Generation(preset, backbone_sha256(tensors), 64, normalisation), "benchmark")
    write_model(folder / "base.safetensors", tensors, card)
    return data


@dataclass
class Server:
    """`mcoe-server` in a folder, over a model file."""

    folder: Path
    port: int
    flags: tuple[object, ...]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        log = self.folder.with_suffix(".log")
        self.process = start(log, "mcoe-server", "start", "--dir", self.folder, *self.flags)
        wait_for(lambda: answers(self.port) and answers(self.port + 1))

    def child(self, kind: str) -> int:
        """The process id of a child."""
        pattern = f"server.children {kind} {self.folder}"
        return int(subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True).stdout.split()[0])

    def enrol(self, folder: Path, data: Path, subject: str) -> None:
        """Enrol a real client with a subject's clips."""
        line = json.loads(run("mcoe-server", "clients", "invite", "--dir", self.folder, "--json"))["invitation"]
        run("mcoe-client", "enrol", line, "--dir", folder, "--clips", data, "--subject", subject)


@contextmanager
def running_server(folder: Path, *flags: object) -> Iterator[Server]:
    """A server on the model that `write_data` made in this folder, until the end."""
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        server = Server(folder / "server", int(found.getsockname()[1]), flags)
    run("mcoe-server", "init", "--dir", server.folder, "--port", server.port)
    run("mcoe-server", "models", "import", folder / "base.safetensors", "--dir", server.folder)
    try:
        server.start()
        yield server
    finally:
        if server.process is not None:
            end(server.process)


@contextmanager
def running_clients(server: Server, data: Path, clients: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many `mcoe-client --device none`, enrolled at the server, until the end."""
    with ExitStack() as stack:
        processes = []
        for number in range(1, clients + 1):
            folder = server.folder.parent / f"client-{number}"
            server.enrol(folder, data, f"{number:03}")
            process = start(folder.with_suffix(".log"), "mcoe-client", "--device", "none", "--dir", folder)
            stack.callback(end, process)
            processes.append(process)
        yield processes


def resident_mb(pid: int) -> float:
    """Resident memory of a process [MB]."""
    return _status_mb(pid, "VmRSS")


def peak_mb(pid: int) -> float:
    """The most resident memory that a process has had [MB]."""
    return _status_mb(pid, "VmHWM")


def cpu_s(pid: int) -> float:
    """Processor seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status_mb(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program as its user would."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(60)


@dataclass(frozen=True)
class BareNode:
    """A member of a server's fleet without SuperNode, executor or training: it answers what it is asked at once."""

    server: Server
    name: str
    key: ec.EllipticCurvePrivateKey

    @staticmethod
    def join(server: Server, names: Iterable[str]) -> list[BareNode]:
        """Enrol a new key under each name."""
        paths = ServerPaths(server.folder)
        fleet = open_fleet(paths, load_settings(paths, {}))
        nodes = [BareNode(server, name, ec.generate_private_key(ec.SECP384R1())) for name in names]
        for node in nodes:
            fleet.add(node.name, public_pem(node.key))
        fleet.register_members()
        fleet.registry.engine.dispose()
        return nodes

    def visit(self, answer: Callable[[Message], Message], messages: int, stay_s: float = STAY_S) -> float:
        """Connect, answer so many messages, stay, and leave; returns the seconds until the last answer was sent."""
        began, answered = time.monotonic(), 0.0
        address, authority = f"127.0.0.1:{self.server.port}", self.server.folder / "certificates" / "ca.crt"
        keys = (self.key, self.key.public_key())
        with http_request_response(address, False, authority.read_bytes(), keys) as connection:
            _, receive, send, _, _, pull, push, confirm = connection
            while messages:
                received = receive()
                if received is None:
                    time.sleep(LOOK_S)
                    continue
                envelope, tree = received
                run_id = envelope.metadata.run_id
                message = pull_and_inflate_object_from_tree(
                    tree,
                    lambda object_id, run_id=run_id: pull(run_id, object_id),
                    lambda object_id, run_id=run_id: confirm(run_id, object_id),
                    return_type=Message,
                )
                message.metadata.__dict__["_message_id"] = tree.object_id
                reply = answer(message)
                with no_object_id_recompute():
                    reply.metadata.__dict__["_message_id"] = reply.object_id
                    missing, session = send(reply, get_object_tree(reply), 0.0)
                    for object_id, part in get_all_nested_objects(reply).items():
                        if object_id in missing:
                            push(run_id, session, object_id, part.deflate())
                messages -= 1
            answered = time.monotonic() - began
            time.sleep(stay_s)
        if messages:  # Flower swallows what broke the connection off
            raise ConnectionError(f"{self.name} was cut off with {messages} messages to answer")
        return answered
