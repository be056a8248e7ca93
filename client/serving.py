"""Which model a wearer is served: a newer one unless it is worse on the wearer's own clips. No torch.

One rule for every model, whether the server offers it, somebody imports it or it was learned here. Both models say what
they see in the same labelled clips (`client.comparison`), and where these say nothing, the newer one is served. Either
way the wearer has the last word (`Running.keep`, `Running.take`).

Serving and training are separate: what is served here changes nothing of what a round trains from.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from client.comparison import FEWEST_CLIPS, FEWEST_EMOTIONS, Comparison
from client.enrolment import ClientPaths, read_membership
from client.lesson_book import LessonBook
from client.own_models import is_own, model_path, open_card, stand_in
from client.running import Running
from mcoe_model.data.see import read_see
from mcoe_model.errors import McoeError

#: Seconds between two looks whether a trial is to stand still.
_WATCH_S = 0.2


def try_beside(
    paths: ClientPaths,
    newer: Path,
    served: Path,
    lessons_key: bytes | None = None,
    recording: Callable[[], bool] = lambda: False,
) -> Comparison:
    """Compare two model files on the wearer's held-out clips, in a process of its own (`client.trial`).

    ``lessons_key`` opens the lesson book, and models that were learned here; the clips of a folder that was enrolled
    are all that count there. Where there are too few clips for a verdict neither model is run, and nothing recognised.
    While a recording runs, as ``recording`` says, the process stands still. Raises McoeError when the trial fails.
    """
    labels = labels_here(paths, newer, served, lessons_key)
    if not enough(labels):
        return Comparison(len(labels), len(set(labels)), 0, 0, 0, 0)
    command = [sys.executable, "-m", "client.trial", str(paths.folder), str(newer), str(served)]
    code, found, fault = _run(command, (lessons_key or b"").hex() + "\n", recording)
    if code != 0:
        said = fault.strip().splitlines()
        raise McoeError(said[-1] if said else f"the trial ended with code {code}")
    return Comparison(**json.loads(found.splitlines()[-1]))


def _run(command: Sequence[str], given: str, recording: Callable[[], bool]) -> tuple[int, str, str]:
    """A process to its end, which stands still while a recording runs: its code, and what it says."""
    pipe = subprocess.PIPE
    unsaid: str | None = given
    stands = False
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            while True:
                try:
                    found, fault = process.communicate(unsaid, timeout=_WATCH_S)
                    return process.returncode, found, fault
                except subprocess.TimeoutExpired:
                    unsaid = None  # it is on its way
                if recording() != stands:
                    stands = not stands
                    process.send_signal(signal.SIGSTOP if stands else signal.SIGCONT)
        finally:
            process.kill()  # nothing happens to one that has ended


def has_folder(paths: ClientPaths) -> bool:
    """Whether the wearer's clips are those of a folder that was enrolled. Raises DataInvalid."""
    return paths.membership.exists() and bool(read_membership(paths).clips)


def labels_here(paths: ClientPaths, newer: Path, served: Path, lessons_key: bytes | None) -> list[int]:
    """The emotions of the clips that both models can be tried on. Raises McoeError."""
    if has_folder(paths):
        member = read_membership(paths)
        records = read_see(Path(member.clips)).records
        return [record.class_index for record in records if record.subject == member.subject]
    if lessons_key is None:
        return []
    generation = open_card(served, lessons_key).generation
    if open_card(newer, lessons_key).generation != generation:  # its features are others
        return []
    book = LessonBook(paths.lessons, lessons_key, generation.id)
    return [clip.emotion for clip in book.clips(book.held_out)]


def enough(labels: Sequence[int]) -> bool:
    """Whether clips of these emotions allow a verdict."""
    return len(labels) >= FEWEST_CLIPS and len(set(labels)) >= FEWEST_EMOTIONS


def to_json(found: Comparison) -> str:
    """What `try_beside` reads."""
    return json.dumps(asdict(found))


def served_model(paths: ClientPaths, *, unlocked: bool) -> Path | None:
    """The file of the model that is served; None before there is one.

    One that was learned here is sealed (`client.own_models`): while the wearable is locked the fleet's stands in.
    """
    runs = Running(paths.running).read().runs
    path = model_path(paths.models, runs)
    if not runs or not path.is_file():
        return None
    return path if unlocked or not is_own(path) else stand_in(path)
