"""Updates that wait until the server says what became of them: one file each, written durably before it is sent.

Flower delivers a message at most once; the outbox makes it exactly once. An update is kept until the server names its
id as accepted or dropped, and a task whose update is kept already is answered with it, without training again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from client.learner import Learned
from mcoe_model.files import write_bytes
from mcoe_model.protocol import MAX_OUTBOX, OutboxNews, ProtocolError, TrainReport, UpdateMeta


class Outbox:
    """A folder of updates, each named by its id. What cannot be read is as good as never trained, and goes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ids(self) -> tuple[str, ...]:
        """The updates that are kept, oldest first, at most as many as a check-in may list."""
        files = sorted(self.folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
        return tuple(path.stem for path in files[-MAX_OUTBOX:])

    def put(self, learned: Learned) -> None:
        """Keep an update. Raises DiskFull."""
        tensors = {name: np.asarray(learned.update[name], order="C") for name in sorted(learned.update)}
        said = {"meta": json.dumps(learned.meta.to_record()), "report": json.dumps(learned.report.to_record())}
        write_bytes(self._path(learned.meta.update_id), bytes(save(tensors, metadata=said)))

    def find(self, update_id: str, round_number: int) -> Learned | None:
        """The kept update with this id, as an answer in this round; None when there is none that can be read."""
        path = self._path(update_id)
        try:
            with safe_open(path, framework="numpy") as file:
                said = file.metadata()
                update = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dict)
            meta = UpdateMeta.from_record(json.loads(said["meta"]))
            report = TrainReport.from_record(json.loads(said["report"]))
        except FileNotFoundError:
            return None
        except (SafetensorError, ProtocolError, ValueError, KeyError, TypeError):
            path.unlink(missing_ok=True)
            return None
        return Learned(update, replace(meta, round_number=round_number), report)

    def hear(self, news: OutboxNews) -> None:
        """Let go of what the server has taken or will never take."""
        self._remove((*news.accepted, *news.dropped))

    def _remove(self, update_ids: Iterable[str]) -> None:
        for update_id in update_ids:
            self._path(update_id).unlink(missing_ok=True)

    def _path(self, update_id: str) -> Path:
        return self.folder / f"{update_id}.safetensors"
