"""What clients keep from round to round, in the run's folder: one file for each client and round that it took part in.

A round reads what earlier rounds wrote and nothing of its own, so its result does not depend on who was first, and a
round that was killed is done again with the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mcoe_model.files import write_bytes
from mcoe_model.model_file import Tensors
from mcoe_model.tensors import pack, unpack
from simulations.coordination import open_registry


@dataclass(frozen=True)
class ClientState:
    """The states of one kind: files ``folder``/CLIENT/ROUND.safetensors."""

    folder: Path

    def write(self, client: str, number: int, tensors: Tensors) -> None:
        """Keep what a client has after a round."""
        write_bytes(self._path(client, number), pack(tensors))

    def before(self, client: str, number: int) -> Tensors:
        """What the client had before a round; nothing before it took part in one."""
        earlier = [int(path.stem) for path in self.folder.glob(f"{client}/*.safetensors") if int(path.stem) < number]
        return unpack(self._path(client, max(earlier)).read_bytes()) if earlier else {}

    def _path(self, client: str, number: int) -> Path:
        return self.folder / client / f"{number}.safetensors"


def current_round(folder: Path) -> int:
    """The number of the run's newest round."""
    return open_registry(folder).rounds()[-1].number
