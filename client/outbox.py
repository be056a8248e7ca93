"""Updates that wait until the server says what became of them: one sealed file each, durable before it is sent.

Flower delivers a message at most once; the outbox makes it exactly once. An update is kept until the server names its
id as accepted or dropped, and a task whose update is kept already is answered with it, without training again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from pathlib import Path

from client.kept import kept_ids
from client.learner import Learned
from mcoe_model.errors import DataInvalid, DataMissing
from mcoe_model.protocol import News, ProtocolError, TrainReport, UpdateMeta
from mcoe_model.sealed import read_sealed, write_sealed
from mcoe_model.tensors import pack_with, unpack_with


class Outbox:
    """A folder of updates, each named by its id and sealed under ``key`` (32 bytes).

    What cannot be read is as good as never trained, and goes. ``sent`` are those that this process has answered with
    and not heard of since. ``taken`` is told of every update that the server has accepted.
    """

    def __init__(
        self, folder: Path, key: bytes, taken: Callable[[Learned], None] = lambda learned: None
    ) -> None:
        self.folder = folder
        self._key = key
        self._taken = taken
        self.sent: set[str] = set()

    def ids(self) -> tuple[str, ...]:
        """`kept_ids` of its folder."""
        return kept_ids(self.folder)

    def put(self, learned: Learned) -> None:
        """Keep an update. Raises DiskFull."""
        said = {"meta": json.dumps(learned.meta.to_record()), "report": json.dumps(learned.report.to_record())}
        said["clips"] = json.dumps(learned.clips)
        update_id = learned.meta.update_id
        write_sealed(self._path(update_id), self._key, _context(update_id), [pack_with(learned.update, said)])

    def find(self, update_id: str, round_number: int) -> Learned | None:
        """The kept update with this id, as an answer in this round; None when there is none that can be read."""
        path = self._path(update_id)
        try:
            update, said = unpack_with(b"".join(read_sealed(path, self._key, _context(update_id))))
            meta = UpdateMeta.from_record(json.loads(said["meta"]))
            report = TrainReport.from_record(json.loads(said["report"]))
            clips = tuple(map(str, json.loads(said["clips"])))
        except DataMissing:
            return None
        except (DataInvalid, ProtocolError, ValueError, KeyError, TypeError):
            path.unlink(missing_ok=True)
            return None
        return Learned(update, replace(meta, round_number=round_number), report, clips)

    def retain(self, bases: Collection[str]) -> None:
        """Let go of every update that was made from another base: rounds have gone past it."""
        for path in self.folder.glob("*.sealed"):
            kept = self.find(path.stem, 0)
            if kept is not None and kept.meta.base_sha256 not in bases:
                path.unlink(missing_ok=True)

    def hear(self, news: News) -> None:
        """Let go of what the server has taken or will never take."""
        for update_id in news.accepted:
            kept = self.find(update_id, 0)
            if kept is not None:
                self._taken(kept)
        self._remove((*news.accepted, *news.dropped))

    def _remove(self, update_ids: Iterable[str]) -> None:
        for update_id in update_ids:
            self.sent.discard(update_id)
            self._path(update_id).unlink(missing_ok=True)

    def _path(self, update_id: str) -> Path:
        return self.folder / f"{update_id}.sealed"


def _context(update_id: str) -> str:
    return f"update {update_id}"
