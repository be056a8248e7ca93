"""A clock that tests set, and a store with everything agreed to. For the tests of the session store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from client.consent_text import ConsentText
from client.keys import DeviceKey
from client.sessions import Moment, Store, StoreRules, Training
from client.sessions.times import HOUR_US, SECOND_US
from mcoe_model.consent import CONSENTS
from mcoe_model.data.geometry import Geometry

KEY = DeviceKey(bytes(range(32)))
TEXT = ConsentText("1", "en", "You agree that this wearable records your eye.")
RULES = StoreRules("1")
GEOMETRY = Geometry(x=20, side=200, rotation=3.5, eye="left")


class Clock:
    """Noon of a day in November, in Berlin, until a test turns it on."""

    def __init__(self) -> None:
        self.at = Moment(1_795_258_800 * SECOND_US, 5_000_000_000, "+01:00", "synchronised")

    def __call__(self) -> Moment:
        return self.at

    def turn(self, hours: float) -> None:
        at = self.at
        utc_us, monotonic_ns = at.utc_us + int(hours * HOUR_US), at.monotonic_ns + int(hours * HOUR_US) * 1000
        self.at = replace(at, utc_us=utc_us, monotonic_ns=monotonic_ns)


#: One time that the head learned, as the store is told of it.
TRAINING = Training(0, "UTC", "b" * 64, "c" * 64, 1, "learned", 1.0, {"clips": 20, "before": 5, "after": 9})


@contextmanager
def opened(
    folder: Path, key: DeviceKey | None = KEY, rules: StoreRules = RULES, clock: Clock | None = None
) -> Iterator[Store]:
    """A store in this folder, closed in the end."""
    store = Store(folder / "store.sqlite", folder / "recordings", rules, key, clock or Clock())
    try:
        yield store
    finally:
        store.close()


def agree(store: Store, *kinds: str) -> None:
    store.answer_consents(dict.fromkeys(kinds or CONSENTS, True), TEXT)


def plain_segment(folder: Path, content: bytes, number: int = 0) -> Path:
    """A finished file, as the recorder leaves it in memory."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{number}.aedat4"
    path.write_bytes(content)
    return path


def record(store: Store, memory: Path, *contents: bytes, end: bool = True) -> str:
    """A session with one segment of ten seconds for each content."""
    session = store.begin_session("DAVIS346", GEOMETRY)
    for number, content in enumerate(contents):
        starts_us = number * 10 * SECOND_US
        path = plain_segment(memory, content, number)
        store.add_segment(session, number, path, starts_us, starts_us + 10 * SECOND_US, events=7, frames=3)
    if end:
        store.end_session(session)
    return session
