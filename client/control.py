"""How commands talk to the main process that runs: one line of JSON each way over a UNIX socket of this user's.

Asked ``{"do": NAME, ...}``, answered ``{"done": ...}`` or ``{"error": TEXT, "code": EXIT CODE}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from mcoe_model.errors import ExitCode, McoeError, WearableDown

Answers = Mapping[str, Callable[..., Awaitable[Any]]]

_LINE_BYTES = 1 << 20
#: Linux has room for so many bytes, the last of which is 0 (unix(7)).
_LONGEST_NAME = 108

log = logging.getLogger("mcoe")


def socket_path(folder: Path) -> Path:
    """Where the main process of this folder listens: in it, unless its name is too long for a socket's."""
    path = folder.absolute() / "control" / "socket"
    if len(str(path).encode()) < _LONGEST_NAME:
        return path
    return Path(f"/tmp/mcoe-client-{os.getuid()}-{hashlib.sha256(str(path).encode()).hexdigest()[:12]}") / "socket"


async def serve_control(folder: Path, answers: Answers, stopping: asyncio.Event) -> None:
    """Answer commands until ``stopping`` is set."""
    path = socket_path(folder)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_uid != os.getuid():
        raise McoeError("another user has taken the place of this program's socket; log in anew, or restart the device")
    path.parent.chmod(0o700)
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(lambda *ends: _converse(answers, *ends), path, limit=_LINE_BYTES)
    path.chmod(0o600)
    try:
        await stopping.wait()
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def _converse(answers: Answers, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One question and its answer. Whoever leaves before it is answered has asked all the same."""
    with contextlib.suppress(ConnectionError):
        answer = await _answer(answers, await _question(reader))
        writer.write(json.dumps(answer, default=str).encode() + b"\n")
        await writer.drain()
    writer.close()


async def _question(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Empty for what is none."""
    try:
        question = json.loads(await reader.readline())
    except ValueError:  # no JSON, or longer than a line may be
        return {}
    return question if isinstance(question, dict) else {}


async def _answer(answers: Answers, question: dict[str, Any]) -> dict[str, Any]:
    do = answers.get(str(question.pop("do", "")))
    if do is None:
        return {"error": "the program that runs does not know this command; restart it", "code": ExitCode.FAILED}
    try:
        return {"done": await do(**question)}
    except McoeError as fault:
        return {"error": str(fault), "code": fault.exit_code}
    except Exception as fault:  # whatever a command meets, the wearable goes on
        log.exception("a command failed")
        text = f"the program that runs could not do it ({type(fault).__name__}); its log says more"
        return {"error": text, "code": ExitCode.FAILED}


def ask(folder: Path, do: str, **arguments: Any) -> Any:
    """What the main process of this folder answers. Raises WearableDown, or what it refuses with."""
    with socket.socket(socket.AF_UNIX) as end:
        try:
            end.connect(str(socket_path(folder)))
            end.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            line = end.makefile("rb").readline()
        except OSError as fault:
            raise WearableDown(f"no wearable runs on {folder}; start it with: mcoe-client --device davis346") from fault
    if not line:
        raise WearableDown("the wearable has just stopped; start it again")
    answer = json.loads(line)
    if "error" in answer:
        raise Refused(answer["error"], ExitCode(answer["code"]))
    return answer["done"]


class Refused(McoeError):
    """What the main process refused, with its own exit code."""

    def __init__(self, text: str, code: ExitCode) -> None:
        super().__init__(text)
        self.exit_code = code
