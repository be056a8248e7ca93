"""Train messages that wait for a reply, kept in a file: the coordinator's next process pulls their replies."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from pathlib import Path

from mcoe_model.files import read_json, write_json


def leave_out(file: Path, client: str) -> None:
    """Take a client out of a file that nobody holds."""
    stored = read_json(file) if file.is_file() else {}
    clients = {message_id: other for message_id, other in stored.get("clients", {}).items() if other != client}
    if stored and clients != stored["clients"]:
        write_json(file, {**stored, "clients": clients})


class UnderWay(MutableMapping[str, str]):
    """The client of each message by the message's id, for one round in one Flower run.

    Empty at first, unless the file is of that round in that run: every change is in the file before it is seen.
    """

    def __init__(self, file: Path, run_id: int, round_name: str) -> None:
        self._file = file
        self._of = {"run": run_id, "round": round_name}
        stored = read_json(file) if file.is_file() else {}
        same = {key: stored.get(key) for key in self._of} == self._of
        self._clients: dict[str, str] = stored["clients"] if same else {}

    def __getitem__(self, message_id: str) -> str:
        return self._clients[message_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._clients)

    def __len__(self) -> int:
        return len(self._clients)

    def __setitem__(self, message_id: str, client: str) -> None:
        self._write({**self._clients, message_id: client})

    def __delitem__(self, message_id: str) -> None:
        self._write({other: client for other, client in self._clients.items() if other != message_id})

    def _write(self, clients: dict[str, str]) -> None:
        write_json(self._file, {**self._of, "clients": clients})
        self._clients = clients
