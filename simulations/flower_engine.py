"""The rounds of a run on Flower's own simulation engine (Ray): `flwr run` of the app in `flower_app.py`.

The SuperLink is a process of ours on a free port, with a home of its own: what a user keeps in ~/.flwr, and a SuperLink
that runs already, are not touched. It ends, with Ray below it, whenever this process does, a kill included.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from mcoe_model.errors import EngineFailed, MissingExtra
from mcoe_model.progress import Progress
from server.registry import Registry
from simulations.coordination import open_registry
from simulations.scene import open_scene

#: Seconds until a SuperLink must answer, and until another process must have let go of the run's folder.
PATIENCE = 180.0
#: Seconds between two looks at the registry.
LOOK = 1.0
#: Ray's word for a Ray of this run's own, whatever else runs on the machine.
OWN_RAY = "local"

# The bundle that Flower is given: it names the apps of the installed package and holds no code.
_APP = """
[project]
name = "mcoe"
version = "0.1.0"
description = "The rounds of one run"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "mcoe"

[tool.flwr.app.components]
serverapp = "simulations.flower_app:server_app"
clientapp = "simulations.flower_app:client_app"

[tool.flwr.app.config]
run-folder = {run_folder}
"""

_CONNECTION = """
[superlink]
default = "own"

[superlink.own]
address = "127.0.0.1:{port}"
insecure = true
"""


def check_installed() -> None:
    """Raises MissingExtra unless Ray is there."""
    if find_spec("ray") is None or find_spec("psutil") is None:
        raise MissingExtra("--engine ray needs Flower's simulation engine: pip install -e '.[ray]'")


def run_on_flower(folder: Path, progress: Progress) -> None:
    """Run every round that is not yet published. Raises EngineFailed."""
    folder = folder.resolve()
    scene, registry = open_scene(folder), open_registry(folder)
    rounds = scene.settings.rounds
    if registry.last_published() >= rounds:
        return
    progress(registry.last_published(), rounds, "starting Flower's engine")
    with _claimed(folder / "flower.log") as log, TemporaryDirectory(prefix="mcoe-flower-") as scratch:
        engine = _Engine(Path(scratch), log)
        try:
            engine.start()
            run = engine.submit(folder, nodes=len(scene.subjects("clients")), workers=scene.settings.processes)
            try:
                while run.poll() is None:
                    time.sleep(LOOK)
                    _tell(registry, rounds, progress)
            finally:
                run.kill()
                run.wait()
            engine.check_status()
        finally:
            engine.stop()
    progress(rounds, rounds, "")


class _Engine:
    """A SuperLink on a free port, and the `flwr` commands that talk to it. Everything they say goes to the log."""

    def __init__(self, home: Path, log: IO[bytes]) -> None:
        self._home = home
        self._log = log
        self._superlink: subprocess.Popen[bytes] | None = None
        self._environment = os.environ | {
            "PATH": sysconfig.get_path("scripts") + os.pathsep + os.environ.get("PATH", ""),
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ADDRESS": os.environ.get("RAY_ADDRESS", OWN_RAY),
            "no_proxy": "127.0.0.1",
        }

    def start(self) -> None:
        """Start the SuperLink and wait until it listens."""
        port = _free_port()
        (self._home / "config.toml").write_text(_CONNECTION.format(port=port))
        keeper = [sys.executable, "-m", "simulations.end_with_parent"]
        superlink = ["flower-superlink", "--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port)]
        self._superlink = subprocess.Popen(
            [*keeper, *superlink, "--disable-runtime-dependency-installation"],
            env=self._environment,
            cwd=self._home,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for this process; it then closes the pipe
        )
        deadline = time.monotonic() + PATIENCE
        while not _listens(port):
            if self._superlink.poll() is not None or time.monotonic() > deadline:
                raise self._failed("Flower's SuperLink did not start")
            time.sleep(0.1)

    def submit(self, folder: Path, *, nodes: int, workers: int) -> subprocess.Popen[bytes]:
        """`flwr run`: ends when the run has ended, whatever became of it."""
        app = self._home / "app"
        app.mkdir()
        (app / "pyproject.toml").write_text(_APP.format(run_folder=json.dumps(str(folder), ensure_ascii=False)))
        resources = f"num-supernodes={nodes} client-resources-num-cpus=1"
        if self._environment["RAY_ADDRESS"] == OWN_RAY:  # a cluster that is there already has its own size
            resources += f" init-args-num-cpus={workers}"
        return subprocess.Popen(
            ["flwr", "run", str(app), "--stream", "--federation-config", resources],
            env=self._environment,
            cwd=self._home,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def check_status(self) -> None:
        """Raises EngineFailed unless the one run of this SuperLink completed; `flwr run` exits with 0 in any case."""
        listed = subprocess.run(
            ["flwr", "list", "--format", "json"],
            env=self._environment,
            cwd=self._home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            check=False,
        )
        try:
            run = json.loads(listed.stdout)["runs"][0]
        except (ValueError, LookupError):
            raise self._failed("Flower's SuperLink did not say what became of the run") from None
        if run["status"] != "finished:completed":
            ended, details = run["status"].removeprefix("finished:"), " ".join(run["status-details"].split())
            raise self._failed(f"Flower's run {ended}: {details}")

    def stop(self) -> None:
        """End the SuperLink and everything below it."""
        if self._superlink is not None and self._superlink.stdin is not None:
            self._superlink.stdin.close()
            self._superlink.wait()

    def _failed(self, what: str) -> EngineFailed:
        return EngineFailed(f"{what}; its log is {self._log.name}")


@contextmanager
def _claimed(path: Path) -> Iterator[IO[bytes]]:
    """The log, open and locked. Its heirs share the lock, so the engine of a run that was killed is waited for."""
    with path.open("ab") as log:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EngineFailed(f"another process runs the rounds of {path.parent}; wait or stop it") from None
                time.sleep(0.1)
        yield log


def _tell(registry: Registry, rounds: int, progress: Progress) -> None:
    current = registry.unfinished_round()
    if current is not None:
        replies = registry.replies(current.id)
        note = f"{len(replies)}/{len(current.cohort)} clients"
        rejected = sum(not reply.accepted for reply in replies)
        progress(registry.last_published(), rounds, f"{note}, {rejected} rejected" if rejected else note)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
