"""What benchmarks of a real server need beside it: data, clients, nodes that only answer, and figures of processes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Message, RecordDict
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
from mcoe_model.protocol import CheckIn
from mcoe_model.signed_request import public_pem
from server.fleet import open_fleet
from server.paths import ServerPaths
from server.settings_file import load_settings
from simulations.fleet.processes import BIN, Process, free_ports, run
from simulations.fleet.server import Server

#: The server's processes whose cost is measured.
CHILDREN = ("superlink", "coordinator")
#: Seconds between two looks of a bare node for a message, as of a SuperNode.
LOOK_S = 3.0


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


@contextmanager
def running_server(folder: Path, *flags: object, settings: str = "") -> Iterator[Server]:
    """A server on the model that `write_data` made in this folder, until the end; ``settings``: lines of its TOML."""
    server = Server(folder / "server", folder / "base.safetensors", free_ports(3))
    server.set(settings)
    try:
        server.start(*flags)
        yield server
    finally:
        if server.process is not None:
            server.process.end()


@contextmanager
def running_clients(server: Server, data: Path, clients: int) -> Iterator[list[Process]]:
    """So many `mcoe-client --device none` with a subject's clips each, enrolled at the server, until the end."""
    processes: list[Process] = []
    try:
        for number in range(1, clients + 1):
            folder = server.folder.parent / f"client-{number}"
            line = server.ask("clients", "invite")["invitation"]
            run("mcoe-client", "enrol", line, "--dir", folder, "--clips", data, "--subject", f"{number:03}")
            command = (BIN / "mcoe-client", "--device", "none", "--dir", folder)
            processes.append(Process(folder.with_suffix(".log"), *command))
        yield processes
    finally:
        for process in processes:
            process.end()


def say(found: Mapping[str, float], as_json: bool) -> None:
    """Print the figures by name."""
    print(json.dumps(found) if as_json else "\n".join(f"{name:42} {value:10.3f}" for name, value in found.items()))


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

    def check_in(self, question: Message, examples: int) -> Message:
        """The answer of a client with so many clips to the question for a check-in."""
        record = ConfigRecord(CheckIn(self.name, examples).to_record())  # type: ignore[arg-type]
        return Message(RecordDict({"check-in": record}), reply_to=question)

    def visit(self, answer: Callable[[Message], Message], messages: int, stay_s: float) -> float:
        """Connect, answer so many messages, stay, and leave; returns the seconds until the last answer was sent.

        Flower may throw away what it has from a node that has left: ``stay_s`` is time for passing it on.
        """
        began, answered = time.monotonic(), 0.0
        authority = self.server.folder / "certificates" / "ca.crt"
        keys = (self.key, self.key.public_key())
        with http_request_response(self.server.address, False, authority.read_bytes(), keys) as connection:
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
