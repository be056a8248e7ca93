"""The main process and its recognising child: a real process, a real ring, and a model that another process changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from toy_camera import Camera, write_toy_model

from client.enrolment import ClientPaths
from client.own_models import seal_model
from client.recognise_link import RecogniseLink
from client.running import Running
from client.serving import served_model
from mcoe_model.model_file import file_sha256


def served(paths: ClientPaths, seed: int) -> str:
    """A model that is there and runs."""
    file = write_toy_model(paths.models / "new", seed)
    sha256 = file_sha256(file)
    file.rename(paths.models / f"{sha256}.safetensors")
    Running(paths.running).adopt(sha256)
    return sha256


def served_file(paths: ClientPaths) -> Path | None:
    return served_model(paths, unlocked=True)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not holds():
            await asyncio.sleep(0.05)


def test_what_the_fleets_process_adopts_recognises_here_and_a_prediction_names_its_model(tmp_path: Path) -> None:
    paths = ClientPaths(tmp_path)
    camera = Camera(rate=20)
    log, key = tmp_path / "recognise.log", bytes(range(32))
    link = RecogniseLink(lambda: camera.ring.name, lambda: served_file(paths), log, lambda: key)

    def predicted_by() -> str:
        found = link.prediction(0, time.monotonic_ns())
        return found.model_sha256 if found else ""

    async def live() -> None:
        running = asyncio.create_task(link.child.run())
        link.follow()  # there is no model yet
        first = served(paths, 1)
        await until(lambda: predicted_by() == first)
        assert link.live is not None and abs(sum(link.live.probabilities) - 1) < 1e-3
        second = served(paths, 2)
        began = time.monotonic_ns()
        link.follow()
        link.follow()
        await until(lambda: predicted_by() == second)
        both = link.prediction(0, time.monotonic_ns())
        newer = link.prediction(began, time.monotonic_ns())
        assert both is not None and newer is not None
        assert both.model_sha256 == newer.model_sha256 == second
        content = (paths.models / f"{second}.safetensors").read_bytes()
        own = seal_model(paths.models, key, content[:-1] + b"\x00", second)
        Running(paths.running).adopt(own)
        link.follow()
        await until(lambda: predicted_by() == own)
        link.child.kill()
        link.forget()
        await until(lambda: predicted_by() == own)
        await link.child.end()
        await running
        assert key.hex() not in log.read_text()

    try:
        asyncio.run(live())
    finally:
        camera.stop()


def test_why_a_model_is_not_used_is_known_until_one_is(tmp_path: Path) -> None:
    paths, camera = ClientPaths(tmp_path), Camera(rate=20)
    paths.models.mkdir(parents=True, exist_ok=True)
    torn = paths.models / "torn"
    torn.write_bytes(b"no model")
    models = [torn]
    link = RecogniseLink(lambda: camera.ring.name, lambda: models[-1], tmp_path / "recognise.log")

    async def live() -> None:
        running = asyncio.create_task(link.child.run())
        await until(lambda: bool(link.why_not) and "no model yet" not in link.why_not)
        served(paths, 1)
        models.append(served_file(paths) or torn)
        link.follow()
        await until(lambda: link.live is not None)
        assert link.why_not == ""
        await link.child.end()
        await running

    try:
        asyncio.run(live())
    finally:
        camera.stop()
