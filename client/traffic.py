"""How many bytes the fleet's part has sent and received today and this month, kept in a small file.

Counted is what messages and models hold. What carries them (TLS, heartbeats, questions without an answer) is some
kilobytes per check-in more (`benchmarks/wire_bytes.py`), and is not counted.
"""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mcoe_model.files import read_json, write_json

if TYPE_CHECKING:  # Flower takes seconds to import, which no command of the wearable needs
    from flwr.app import Context, Message

_ADDING = threading.Lock()  # models are fetched beside the executor


@dataclass(frozen=True)
class Used:
    """Bytes of the ``day`` and of its month, both by the wearable's clock."""

    day: str
    in_day: int = 0
    in_month: int = 0

    def on(self, day: datetime.date) -> Used:
        """What of it counts on another day."""
        today = day.isoformat()
        if today == self.day:
            return self
        return Used(today, 0, self.in_month if today[:7] == self.day[:7] else 0)


class Traffic:
    """The file that keeps it. One that cannot be read says that nothing was used."""

    def __init__(self, file: Path, today: Callable[[], datetime.date] = datetime.date.today) -> None:
        self._file = file
        self._today = today

    def used(self) -> Used:
        """What is used by now."""
        today = self._today()
        try:
            said = read_json(self._file)
            return Used(str(said["day"]), int(said["in_day"]), int(said["in_month"])).on(today)
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return Used(today.isoformat())

    def add(self, count: int) -> None:
        """Note so many bytes more. Raises DiskFull."""
        with _ADDING:
            used = self.used()
            write_json(self._file, asdict(replace(used, in_day=used.in_day + count, in_month=used.in_month + count)))

    def counted(self, message: Message, context: Context, answer: Callable[[Message, Context], Message]) -> Message:
        """A mod of the ClientApp: what a task brings and what its answer holds."""
        self.add(_size(message))
        reply = answer(message, context)
        self.add(_size(reply))
        return reply


def _size(message: Message) -> int:
    """Bytes of its arrays, and about those of its other records, which Flower cannot count where a list is empty."""
    if not message.has_content():
        return 0
    content = message.content
    arrays = sum(record.count_bytes() for record in content.array_records.values())
    others = (*content.config_records.values(), *content.metric_records.values())
    return arrays + sum(len(repr(record)) for record in others)
