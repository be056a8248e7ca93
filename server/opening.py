"""When a round opens: as soon as clients have something new to learn, on a schedule, or on the operator's word."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mcoe_model.errors import SettingsError

OpenWhen = Literal["ready", "schedule", "command"]
OPEN_WHEN: tuple[OpenWhen, ...] = get_args(OpenWhen)

#: Clients that are named where one says who is there.
_NAMED = 5


@dataclass(frozen=True)
class Opening:
    """When rounds open. `mcoe-server rounds open` asks for one whatever stands here; enough clients it always takes.

    - ``when``: `ready`, as soon as enough clients have something new to learn; `schedule`, so many hours after the
      last one opened; `command`, never by itself.
    - ``min_clients``: how many clients are enough.
    - ``every_hours``: of the schedule.
    - ``same_data_rounds``: a client whose number of clips has not changed for so many published rounds that learned
      them has nothing new; 0: it always has.
    """

    when: OpenWhen = "ready"
    min_clients: int = 1
    every_hours: float = 24.0
    same_data_rounds: int = 0

    def __post_init__(self) -> None:
        found = []
        if self.when not in OPEN_WHEN:
            found.append(f"open_when must be one of {', '.join(OPEN_WHEN)}, not {self.when!r}")
        if self.min_clients < 1:
            found.append(f"min_clients must be at least 1, not {self.min_clients}")
        if not 0 < self.every_hours < float("inf"):
            found.append(f"round_every_hours must be above 0 and finite, not {self.every_hours}")
        if self.same_data_rounds < 0:
            found.append(f"same_data_rounds must not be negative, not {self.same_data_rounds}")
        if found:
            raise SettingsError(found)

    def not_yet(self, now: datetime.datetime, last: datetime.datetime | None, requested: bool) -> str | None:
        """Why it is not time, or None. ``last``: when a round was last opened; ``requested``: the operator asked."""
        if requested or self.when == "ready":
            return None
        if self.when == "command":
            return "rounds open on command: mcoe-server rounds open"
        every = datetime.timedelta(hours=self.every_hours)
        if last is None or not last <= now < last + every:  # a time in the future is that of a wrong clock
            return None
        return f"the next round opens at {last + every:%Y-%m-%d %H:%M} UTC, or with: mcoe-server rounds open"

    def too_few(self, ready: Sequence[str], idle: Sequence[str], absent: Sequence[str] = ()) -> str | None:
        """Who is awaited, or None.

        ``ready`` clients are there with something to learn, ``idle`` ones without; ``absent`` ones are enrolled alone.
        """
        if len(ready) >= self.min_clients:
            return None
        here = [f"with new clips {_named(ready)}"] if ready else []
        here += [f"without {_named(idle)}"] if idle else []
        said = f"{len(ready)} clients with new clips are there, {self.min_clients} are needed"
        missing = f"; absent: {_named(absent)}" if absent else ""
        return f"{said} (present: {', '.join(here) or 'nobody'}{missing})"


def _named(clients: Sequence[str]) -> str:
    more = f" and {len(clients) - _NAMED} more" if len(clients) > _NAMED else ""
    return " ".join(clients[:_NAMED]) + more
