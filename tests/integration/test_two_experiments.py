"""One real server with two experiments and a client in each: neither sees, or suffers from, the other."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from real_fleet import Client, Server, make_base, make_data, run, wait_for

from client.enrolment import ClientPaths, read_key
from mcoe_model.errors import ExitCode
from mcoe_model.signed_request import public_pem, sign
from server.superlink.control import Control

TABLES = """
min_clients = 1
pause_s = 0.1
[experiments.glasses]
rule = "weighted-mean"
[experiments.goggles]
train = "full"
"""
NAMES = ("glasses", "goggles")


class Pair:
    """The server, and the client of each experiment, which is called after it."""

    def __init__(self, folder: Path) -> None:
        data = make_data(folder / "data")
        base = make_base(data, folder / "base.safetensors")
        self.server = Server(folder / "server", base, TABLES)
        self.clients = {name: Client(folder / name, data, f"00{n + 1}", f"of-{name}") for n, name in enumerate(NAMES)}
        for seed, name in enumerate(NAMES):
            other = make_base(data, folder / f"{name}.safetensors", seed + 1)
            run("mcoe-server", "models", "import", other, "--experiment", name, "--dir", self.server.folder)

    def begin(self) -> None:
        self.server.start()
        for name, client in self.clients.items():
            client.enrol(self.server, "--experiment", name)
            client.start()

    def end(self) -> None:
        for process in [*(client.process for client in self.clients.values()), self.server.process]:
            if process is not None and process.popen.poll() is None:
                process.end()

    def download(self, name: str, sha256: str) -> int:
        """The status that an experiment's client gets when it asks for these bytes."""
        key = read_key(ClientPaths(self.clients[name].folder))
        path = f"/v1/device/models/{sha256}"
        trust = ssl.create_default_context(cafile=str(self.server.folder / "certificates" / "ca.crt"))
        with httpx.Client(verify=trust) as asker:
            return asker.get(f"https://{self.server.address}{path}", headers=sign(key, "GET", path, b"")).status_code


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("pair"))
    try:
        made.begin()
        yield made
    finally:
        made.end()


def rounds(pair: Pair, name: str) -> int:
    return len(pair.server.published(name))


def test_both_publish_rounds_with_their_own_client_alone(pair: Pair) -> None:
    for name in NAMES:
        pair.server.wait_for_round(2, experiment=name)
    for name in NAMES:
        registry = pair.server.registry(name)
        assert {row.cohort for row in pair.server.published(name)} == {(f"of-{name}",)}
        assert [client.id for client in registry.clients()] == [f"of-{name}"]
        assert {row.settings["train_mode"] for row in registry.rounds()} == {"head" if name == "glasses" else "full"}
    lineages = [{model.sha256 for model in pair.server.registry(name).models()} for name in NAMES]
    assert not lineages[0] & lineages[1]
    said = pair.server.ask("status")["experiments"]
    assert [said[name]["rule"] for name in NAMES] == ["weighted-mean", "expert-weighted-mean"]


def test_a_client_cannot_download_the_model_of_another_experiment(pair: Pair) -> None:
    for mine, other in (NAMES, NAMES[::-1]):
        assert pair.download(mine, pair.server.registry(mine).models()[0].sha256) == 200
        assert pair.download(mine, pair.server.registry(other).models()[0].sha256) == 404


def test_a_new_member_of_one_leaves_those_of_the_other_registered(pair: Pair, tmp_path: Path) -> None:
    key = public_pem(ec.generate_private_key(ec.SECP384R1()))
    (tmp_path / "node.pub").write_text(key)
    run("mcoe-server", "clients", "add", "third", tmp_path / "node.pub", "--experiment", "goggles",
        "--dir", pair.server.folder)  # fmt: skip
    with closing(Control(f"127.0.0.1:{pair.server.port + 1}")) as control:
        known = control.nodes()
    mine = {pair.server.registry(name).client(f"of-{name}").public_key for name in NAMES}
    assert known.keys() == mine | {key}


def test_the_death_of_one_coordinator_leaves_the_others_rounds_alone(pair: Pair) -> None:
    glasses, goggles = (pair.server.child("coordinator", name) for name in NAMES)
    os.kill(glasses, signal.SIGKILL)
    pair.server.wait_for_round(rounds(pair, "goggles") + 2, experiment="goggles")
    pair.server.wait_for_round(rounds(pair, "glasses") + 2, experiment="glasses")
    assert pair.server.child("coordinator", "goggles") == goggles
    assert pair.server.child("coordinator", "glasses") != glasses
    assert pair.server.log("coordinator-goggles").count("Flower run") == 1
    for name in NAMES:
        assert {row.attempt for row in pair.server.published(name)} == {1}
        assert pair.clients[name].trained() == sorted(set(pair.clients[name].trained()))


def test_status_names_a_coordinator_that_cannot_start(pair: Pair) -> None:
    assert pair.server.ask("status")["down"] == []
    process = pair.server.child("coordinator", "glasses")
    os.kill(process, signal.SIGSTOP)  # so that it publishes nothing more
    model = pair.server.folder / "models" / f"{pair.server.registry('glasses').newest_model()}.safetensors"
    model.rename(model.with_suffix(".away"))
    os.kill(process, signal.SIGKILL)
    wait_for(lambda: pair.server.process.said().count("coordinator-glasses ended") > 2, 120, "its ends")
    assert pair.server.ask("status")["down"] == ["coordinator-glasses"]
    assert f"see {pair.server.folder / 'logs' / 'coordinator-glasses.log'}" in run(
        "mcoe-server", "status", "--dir", pair.server.folder
    ).stdout.replace("\n", "")
    model.with_suffix(".away").rename(model)
    pair.server.wait_for_round(rounds(pair, "glasses") + 1, experiment="glasses")
    assert pair.server.ask("status")["down"] == []


def test_sigterm_ends_both(pair: Pair) -> None:
    assert pair.server.process is not None
    children = [pair.server.child("coordinator", name) for name in NAMES]
    assert pair.server.process.end(seconds=60) == ExitCode.OK
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
