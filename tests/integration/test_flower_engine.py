"""The rounds on Flower's own engine: the bits of the local engine, after a kill too; failures told; nothing left."""

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from ports import free_port

from mcoe_model.errors import ExitCode
from mcoe_model.model_file import read_model, write_model

if find_spec("ray") is None:
    pytest.skip("ray is not installed: pip install 'mcoe[ray]'", allow_module_level=True)

REPOSITORY = Path(__file__).parents[2]
SETTINGS = {
    "subjects": 12, "sequences": 4, "rounds": 3, "base-epochs": 1, "size": 32, "workers": 1, "baselines": "off"
}  # fmt: skip
FLAGS = [text for name, value in SETTINGS.items() for text in (f"--{name}", str(value))]
#: Generous: the machine may be busy with other things.
PATIENCE_S = 600
#: Every process that a command starts inherits this variable.
MARK = "MCOE_TEST_MARK"


@dataclass(frozen=True)
class Machine:
    """A user's home of their own, the cache of the tests, and a mark on every process that is started here."""

    home: Path
    cache: Path
    mark: str

    def start(self, *command: object, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(part) for part in command],
            env=os.environ | {"HOME": str(self.home), "MCOE_CACHE": str(self.cache), MARK: self.mark} | environment,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def simulate(self, *flags: object) -> subprocess.Popen[str]:
        return self.start(sys.executable, REPOSITORY / "simulations" / "see_by_subject.py", *flags)

    def living(self) -> list[psutil.Process]:
        """The processes with the mark that have not ended."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found


@pytest.fixture(scope="module")
def machine(simulation_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("home"), simulation_cache, uuid.uuid4().hex)
    yield machine
    for process in machine.living():
        process.kill()


@pytest.fixture(scope="module")
def local(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the local engine."""
    folder = tmp_path_factory.mktemp("runs") / "local"
    succeed(machine.simulate(*FLAGS, "--out", folder))
    return folder


@pytest.fixture(scope="module")
def killed(machine: Machine, local: Path) -> Path:
    """The same run on Flower's engine, killed with SIGKILL after its first round. What it started has ended."""
    folder = local.with_name("ray")
    process = machine.simulate(*FLAGS, "--engine", "ray", "--out", folder)
    wait(lambda: len(published(folder)) >= 2, process)
    assert len(machine.living()) > 5, "the mark does not reach Flower's processes"
    process.send_signal(signal.SIGKILL)
    wait(lambda: not machine.living())
    process.communicate(timeout=PATIENCE_S)
    assert len(published(folder)) < 4, "the run ended before it could be killed"
    return folder


@pytest.fixture(scope="module")
def resumed(machine: Machine, killed: Path) -> Path:
    """The killed run, gone on with at once and finished."""
    succeed(machine.simulate("--resume", killed))
    return killed


def test_flowers_engine_ends_with_the_bits_of_the_local_one_after_a_kill_too(local, resumed):
    assert published(resumed) == published(local)
    assert (resumed / "model.safetensors").read_bytes() == (local / "model.safetensors").read_bytes()
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (local, resumed)]
    assert summaries[0]["federated"] == summaries[1]["federated"]


def test_it_leaves_no_process_and_does_not_touch_the_users_flower_home(machine, resumed):
    wait(lambda: not machine.living())
    assert not (machine.home / ".flwr").exists()


def test_a_run_whose_clients_fail_is_an_error_of_one_line(machine, resumed):
    run = json.loads((resumed / "run.json").read_text())
    run["settings"]["rounds"] += 1
    (resumed / "run.json").write_text(json.dumps(run))
    base = resumed / "arms" / "base.safetensors"
    tensors, card = read_model(base)
    other = replace(card, generation=replace(card.generation, backbone_sha256="0" * 64))
    write_model(base, tensors, other)  # clients that hold another generation of the model refuse to train
    process = machine.simulate("--resume", resumed)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.ENGINE_FAILED, said
    last = said.splitlines()[-1]
    assert last.startswith("error: ") and "round 4 was abandoned" in last and "flower.log" in last
    assert "rejected: client error: ModelInvalid" in (resumed / "flower.log").read_text()
    wait(lambda: not machine.living())


def test_flwr_run_in_the_repository_prepares_runs_and_reports(machine, tmp_path):
    settings = tmp_path / "tiny.toml"
    settings.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in SETTINGS.items()))
    project = (REPOSITORY / "pyproject.toml").read_bytes()
    home = tmp_path / "flower"
    environment = {
        "PATH": sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"],
        "FLWR_HOME": str(home),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port(1)),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_ADDRESS": "local",
    }
    try:
        said = succeed(machine.start("flwr", "run", ".", "--stream", "-c", f'settings="{settings}"', **environment))
        listed = succeed(machine.start("flwr", "list", "--format", "json", **environment))
    finally:
        for process in machine.living():  # Flower leaves its SuperLink running
            process.kill()
    assert '"status": "finished:completed"' in listed, said
    assert "only 2 of 4 subjects take part" in said
    report = re.search(r"open the report: (.*/report\.html)", said)
    assert report and Path(report[1]).is_file()
    summary = json.loads(Path(report[1]).with_name("summary.json").read_text())
    assert summary["rounds"] == 3 and summary["replies"] == {"accepted": 6, "rejected": 0}
    bundle = [path.name for path in home.glob("apps/*/**/*")]
    assert bundle == ["pyproject.toml"], "the bundle must hold no code"
    assert (REPOSITORY / "pyproject.toml").read_bytes() == project


def published(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("models/*.safetensors")}


def succeed(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    return said


def wait(until: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not until():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
