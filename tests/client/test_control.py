"""How commands talk to the main process: a real socket, which nobody else may open."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from client.control import ask, serve_control, socket_path
from mcoe_model.errors import ConsentMissing, ExitCode, McoeError, WearableDown


def served(folder: Path, asking: Callable[[], Any]) -> Any:
    """What a command, in a thread, is answered by a main process with a few answers."""

    async def add(one: int, other: int) -> int:
        return one + other

    async def refuse() -> None:
        raise ConsentMissing("the wearer has not agreed to this")

    async def scene() -> Any:
        stopping = asyncio.Event()
        serving = asyncio.create_task(serve_control(folder, {"add": add, "refuse": refuse}, stopping))
        while not socket_path(folder).exists():
            await asyncio.sleep(0.01)
        try:
            return await asyncio.to_thread(asking)
        finally:
            stopping.set()
            await serving

    return asyncio.run(scene())


def test_a_command_is_answered_and_refused_with_the_exit_code_of_its_fault(tmp_path: Path) -> None:
    assert served(tmp_path, lambda: ask(tmp_path, "add", one=2, other=3)) == 5
    with pytest.raises(McoeError, match="has not agreed") as raised:
        served(tmp_path, lambda: ask(tmp_path, "refuse"))
    assert raised.value.exit_code == ExitCode.CONSENT_MISSING
    with pytest.raises(McoeError, match="does not know"):
        served(tmp_path, lambda: ask(tmp_path, "sing"))


def test_nobody_else_may_open_the_socket(tmp_path: Path) -> None:
    def look() -> tuple[int, int]:
        path = socket_path(tmp_path)
        return stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)

    assert served(tmp_path, look) == (0o600, 0o700)


@pytest.mark.parametrize(
    "line", [b"\n", b"no json\n", b"[1]\n", b"{}\n", b'{"do": "add", "one": 1}\n', b"x" * (2 << 20)]
)
def test_whatever_is_sent_the_next_command_is_answered(tmp_path: Path, line: bytes) -> None:
    def asking() -> Any:
        with socket.socket(socket.AF_UNIX) as end:
            end.settimeout(60)
            end.connect(str(socket_path(tmp_path)))
            with suppress(ConnectionError):  # it is closed before all of a long line was sent
                end.sendall(line)
                assert "error" in json.loads(end.makefile("rb").readline())
        return ask(tmp_path, "add", one=1, other=1)

    assert served(tmp_path, asking) == 2


def test_without_a_main_process_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(WearableDown, match="no wearable runs"):
        ask(tmp_path, "status")
    served(tmp_path, lambda: None)
    with pytest.raises(WearableDown):
        ask(tmp_path, "status")
