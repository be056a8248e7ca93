"""A server that ships code of its own with a run: a stock SuperNode runs it, the wearable's connection never does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from flwr.cli.build import build_fab_from_files
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import RegisterNodeRequest, StartRunRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from ports import free_port
from real_fleet import BIN, wait_for

from client.enrolment import ClientPaths, make_key
from client.node import QUIET
from mcoe_model.signed_request import public_pem
from server.certificates import make_authority, make_server_certificate

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "hostile"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "mallory"
[tool.flwr.app.components]
serverapp = "hostile.server:app"
clientapp = "hostile.client:app"
"""

#: Leaves a mark wherever it is imported, and answers with what it stole.
CLIENT = """
import os
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
Path(os.environ["MARK"]).write_text("the server's code was here")
app = ClientApp()

@app.query()
def query(message, context):
    return Message(RecordDict({"answer": ConfigRecord({"from": "the server's code"})}), reply_to=message)
"""

#: Asks both nodes and writes down what they answered.
SERVER = """
import json, os, time
from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp
app = ServerApp()

@app.main()
def main(grid, context):
    while len(nodes := list(grid.get_node_ids())) < 2:
        time.sleep(0.2)
    asked = [Message(RecordDict(), dst_node_id=node, message_type="query") for node in nodes]
    replies = grid.send_and_receive(asked, timeout=300)
    said = {r.metadata.src_node_id: r.content["answer"]["from"] if r.has_content() else r.error.reason for r in replies}
    with open(RESULT + ".new", "w") as file:
        json.dump(said, file)
    os.rename(RESULT + ".new", RESULT)
"""

WEARABLE = """
import signal, sys, threading
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from client.enrolment import ClientPaths
from client.node import Connection, Node
paths, app, stopped = ClientPaths(Path(sys.argv[2])), ClientApp(), threading.Event()

@app.query()
def query(message, context):
    return Message(RecordDict({"answer": ConfigRecord({"from": "the installed app"})}), reply_to=message)

signal.signal(signal.SIGTERM, lambda *_: stopped.set())
Node(Connection(sys.argv[1], Path(sys.argv[3]), paths.key, paths.folder), app, stopped).run()
"""


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in reversed(started):
        process.terminate()
    for process in started:
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_a_wearable_runs_what_is_installed_on_it_whatever_a_server_ships(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    make_authority(tmp_path)
    make_server_certificate(tmp_path, ["127.0.0.1"])
    authority, address, result = tmp_path / "ca.crt", f"127.0.0.1:{free_port()}", tmp_path / "result"

    def start(name: str, *command: object) -> None:
        environment = os.environ | QUIET | {
            "MARK": str(tmp_path / f"mark of {name}"),
            "FLWR_HOME": str(tmp_path / name / "home"),
            "PATH": f"{BIN}:{os.environ['PATH']}",  # Flower finds its own programs there
        }
        with (tmp_path / f"{name}.log").open("wb") as log:
            processes.append(
                subprocess.Popen([str(part) for part in command], env=environment, stdout=log, stderr=log)
            )

    start(
        "superlink", BIN / "flower-superlink", "--ssl-certfile", tmp_path / "server.crt",
        "--ssl-keyfile", tmp_path / "server.key", "--ssl-ca-certfile", authority, "--enable-supernode-auth",
        "--database", tmp_path / "superlink.sqlite", "--host", "127.0.0.1", "--port", address.split(":")[1],
    )  # fmt: skip
    files = {
        "pyproject.toml": PROJECT.encode(),
        "hostile/__init__.py": b"",
        "hostile/client.py": CLIENT.encode(),
        "hostile/server.py": SERVER.replace("RESULT", repr(str(result))).encode(),
    }
    content, *_ = build_fab_from_files(files)
    fab = fab_to_proto(Fab(hashlib.sha256(content).hexdigest(), content, {}))
    wearables = {name: ClientPaths(tmp_path / name) for name in ("stock", "ours")}
    nodes: dict[str, int] = {}

    def register() -> bool:
        interceptor = RuntimeVersionHttpInterceptor(component_name="flwr-cli")
        with closing(
            ControlHttpClient.from_server_address(address, False, authority.read_bytes(), [interceptor])
        ) as control:
            try:
                for name, paths in wearables.items():
                    key = public_pem(make_key(paths)).encode()
                    nodes[name] = control.RegisterNode(RegisterNodeRequest(public_key=key)).node_id
            except httpx.TransportError:
                return False
            control.StartRun(StartRunRequest(fab=fab, federation=""))
        return True

    wait_for(register, 120, "the start of the SuperLink")
    start(
        "stock", BIN / "flower-supernode", "--superlink", address, "--root-certificates", authority,
        "--auth-supernode-private-key", wearables["stock"].key, "--host", "127.0.0.1", "--port", free_port(),
    )  # fmt: skip
    start("ours", sys.executable, "-c", WEARABLE, address, tmp_path / "ours", authority)
    wait_for(result.exists, 300, "the end of the run")
    said = json.loads(result.read_text())
    assert said == {str(nodes["stock"]): "the server's code", str(nodes["ours"]): "the installed app"}
    assert (tmp_path / "mark of stock").exists()  # so the bundle does what it was made for
    assert not (tmp_path / "mark of ours").exists()
    assert [path for path in (tmp_path / "ours").rglob("*") if path.suffix == ".py" or "hostile" in path.name] == []
