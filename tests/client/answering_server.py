"""A server that is given its answers to who leaves, and a wearer who can; for the tests of leaving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from client.enrolment import ClientPaths, make_key, read_key
from client.keys import make_keyfile
from client.wearers import Wearers
from mcoe_model.signed_request import sign


def keys_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]


class Answers:
    """A server that is given its answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer: Any = None
        self.asked: list[tuple[str, str]] = []
        monkeypatch.setattr("client.leaving.ask_to_leave", self._ask)

    def _ask(self, paths: ClientPaths, address: str, way: str) -> Any:
        assert sign(read_key(paths), "POST", "/")  # as the real one does, first of all
        self.asked.append((address, way))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer() if callable(self.answer) else self.answer


def worn(folder: Path) -> ClientPaths:
    """A member without a store."""
    paths = Wearers(folder).new("A1")
    make_key(paths)
    make_keyfile(paths.device_key)
    paths.authority.write_text("authority")
    paths.membership.write_text('address = "10.0.0.5:8443"\nclient_id = "w1"\nclips = "/clips"\nsubject = "001"\n')
    (paths.recordings / "s0").mkdir(parents=True)
    (paths.recordings / "s0" / "0.sealed").write_bytes(b"sealed")
    return paths
