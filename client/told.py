"""What the server says of this client at a check-in, kept in a small file: is it new enough, when does it come again.

A server that wants check-ins only now and then says when the next one is due: until then the radio may sleep.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mcoe_model import __version__
from mcoe_model.files import read_json, write_json
from mcoe_model.protocol import News, Standing

log = logging.getLogger("mcoe")

_SAID: dict[Standing, str] = {
    "ok": f"the server takes this program's version, {__version__}",
    "update-advised": f"the server advises an update of this program, version {__version__}",
    "too-old": f"this program's version, {__version__}, is too old for the server: update it, or nothing is learned; "
    "recognition goes on",
}


@dataclass(frozen=True)
class Told:
    """``standing`` is empty before anything was heard; ``next_check_in`` is Unix time, 0: this client stays connected.

    ``client_version`` is that of the program which heard it. ``lost``: this wearable was reported lost, so it takes no
    part in the fleet until it enrols anew. ``turned_away``: why the server did not
    take it for a member when it last asked.
    """

    standing: Standing = ""
    next_check_in: float = 0.0
    client_version: str = __version__
    lost: bool = False
    turned_away: str = ""


class ToldFile:
    """The file that keeps it. One that cannot be read, or that another version of this program wrote, says nothing."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> Told:
        """What is known now."""
        try:
            told = Told(**read_json(self._file))
        except (FileNotFoundError, ValueError, TypeError):
            return Told()
        return told if told.client_version == __version__ else Told()

    def hear(self, news: News) -> None:
        """Keep what is new. Raises DiskFull."""
        before = self.read()
        standing = news.standing or before.standing
        if standing != before.standing and (before.standing or standing != "ok"):
            log.log(logging.WARNING if standing == "too-old" else logging.INFO, "%s", _SAID[standing])
        due = time.time() + news.next_check_in_s if news.next_check_in_s else 0.0
        if (standing, due, "") != (before.standing, before.next_check_in, before.turned_away):
            write_json(self._file, asdict(Told(standing, due)))

    def hear_lost(self) -> None:
        """Keep that this wearable was reported lost. Raises DiskFull."""
        write_json(self._file, asdict(replace(self.read(), next_check_in=0.0, lost=True)))

    def hear_turned_away(self, reason: str) -> None:
        """Keep why the server does not take this wearable for a member. Raises DiskFull."""
        if reason != self.read().turned_away:
            write_json(self._file, asdict(replace(self.read(), turned_away=reason)))
