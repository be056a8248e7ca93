"""Sessions that a study drives: a file says what the wearer is shown, when, for how long, and what it is to evoke.

A CSV file with the columns ``onset_s,duration_s,stimulus,label``, in the order of the onsets, in seconds from the
recording's start. ``label`` is an emotion, ``other``, or empty for a stimulus that is not labelled.
"""

from __future__ import annotations

import asyncio
import csv
import io
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from client.sessions.values import LONGEST_US, SAYINGS, SHORTEST_US
from mcoe_model.errors import CameraMissing, DataMissing, SettingsError

if TYPE_CHECKING:
    from client.wearable import Wearable

COLUMNS = ("onset_s", "duration_s", "stimulus", "label")
#: Seconds that are recorded after the last stimulus.
TAIL_S = 0.5


@dataclass(frozen=True)
class Stimulus:
    """One line of the file. ``label`` None: not labelled."""

    onset_s: float
    duration_s: float
    name: str
    label: str | None


def read_protocol(text: str) -> tuple[Stimulus, ...]:
    """The stimuli of a protocol file. Raises SettingsError with everything that is wrong with it."""
    rows = csv.DictReader(io.StringIO(text))
    if tuple(rows.fieldnames or ()) != COLUMNS:
        raise SettingsError([f"a protocol file begins with the line {','.join(COLUMNS)}"])
    stimuli: list[Stimulus] = []
    faults: list[str] = []
    for number, row in enumerate(rows, start=2):
        try:
            found = Stimulus(float(row["onset_s"]), float(row["duration_s"]), row["stimulus"], row["label"] or None)
        except (TypeError, ValueError):
            faults.append(f"line {number}: onset and duration are numbers of seconds")
            continue
        faults += [f"line {number}: {fault}" for fault in _faults(found, stimuli[-1] if stimuli else None)]
        stimuli.append(found)
    if not stimuli and not faults:
        faults.append("a protocol file holds at least one stimulus")
    if faults:
        raise SettingsError(faults)
    return tuple(stimuli)


def _faults(found: Stimulus, before: Stimulus | None) -> list[str]:
    faults = []
    if not 0 <= found.onset_s < 24 * 3600:
        faults.append("an onset lies between 0 s and a day")
    if before is not None and found.onset_s < before.onset_s + before.duration_s:
        faults.append("a stimulus begins before the one above it has ended")
    if not SHORTEST_US <= found.duration_s * 1e6 <= LONGEST_US:
        faults.append(f"a stimulus lasts from {SHORTEST_US / 1e6:g} to {LONGEST_US / 1e6:g} s")
    if not found.name:
        faults.append("the stimulus has no name")
    if found.label is not None and found.label not in SAYINGS:
        faults.append(f"a label is one of {', '.join(SAYINGS)}, or empty")
    return faults


async def run_protocol(wearable: Wearable, stimuli: tuple[Stimulus, ...]) -> str:
    """Record a session with a marker at each onset, then a span with its label for each; the session's id.

    The recording ends with what was done until then when it is stopped from elsewhere, and when anything fails.
    Raises as `start_recording`, and ConsentMissing without the consent to labels, of which markers are a kind.
    """
    await wearable.kept(lambda store: store.require("labels"))
    session = await wearable.start_recording(driven=True)
    began = time.monotonic()
    known: list[tuple[int, int, str]] = []
    try:
        with suppress(CameraMissing, DataMissing):  # then it has just ended
            for stimulus in stimuli:
                await _wait(wearable, session, began + stimulus.onset_s)
                shown = time.monotonic()  # later than planned where the machine is busy
                at_us = await wearable.marker(stimulus.name, "protocol")
                if known:  # one that began late must not share a moment with what follows: labels would contradict
                    start_us, end_us, label = known[-1]
                    known[-1] = start_us, min(end_us, max(at_us, start_us + SHORTEST_US)), label
                if stimulus.label:
                    known.append((at_us, at_us + round(stimulus.duration_s * 1e6), stimulus.label))
            await _wait(wearable, session, shown + stimuli[-1].duration_s + TAIL_S)
    finally:
        recording = wearable.recording()
        if recording is not None and recording.session == session:
            with suppress(DataMissing):  # it has just ended
                await wearable.stop_recording()
    await wearable.label_known(session, known)
    return session


async def _wait(wearable: Wearable, session: str, until: float) -> None:
    """Until this time of the monotonic clock. Raises DataMissing as soon as the session is over."""
    while True:
        recording = wearable.recording()
        if recording is None or recording.session != session:
            raise DataMissing("the session was ended from elsewhere")
        if (left := until - time.monotonic()) <= 0:
            return
        await asyncio.sleep(min(0.2, left))
