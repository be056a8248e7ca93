"""Which model a wearer is served: a newer one unless it is worse on the wearer's own clips. No torch.

One rule for every model, whether the server offers it, somebody imports it or it was learned here. Both models say what
they see in the same labelled clips, and the newer one is worse when the clips that only the other one recognises are
more, and too many for chance: the exact test of McNemar at 5 %. Fewer than 20 clips, or clips of one emotion, say
nothing, and the newer one is served. Either way the wearer has the last word (`Running.keep`, `Running.take`).

Serving and training are separate: what is served here changes nothing of what a round trains from.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from client.enrolment import ClientPaths, read_membership
from client.lesson_book import LessonBook
from client.own_models import is_own, model_path, open_card, stand_in
from client.running import Running
from mcoe_model.data.see import read_see
from mcoe_model.errors import McoeError
from mcoe_model.learning.metrics import mcnemar

FEWEST_CLIPS = 20
FEWEST_EMOTIONS = 2
LEVEL = 0.05

Verdict = Literal["none", "passed", "worse"]


@dataclass(frozen=True)
class Comparison:
    """A newer model beside the one that is served: the clips and emotions that both saw, and who recognised what."""

    clips: int
    emotions: int
    newer: int  # clips that the newer one recognises
    served: int
    only_newer: int  # clips that only the newer one recognises
    only_served: int

    @property
    def p(self) -> float:
        """The chance of a difference this large between models that do equally well."""
        return mcnemar(self.only_newer, self.only_served)

    @property
    def verdict(self) -> Verdict:
        """See the module."""
        if self.clips < FEWEST_CLIPS or self.emotions < FEWEST_EMOTIONS:
            return "none"
        return "worse" if self.only_served > self.only_newer and self.p < LEVEL else "passed"

    def in_words(self) -> str:
        """For the wearer."""
        if self.verdict == "none":
            needed = f"{FEWEST_CLIPS} of {FEWEST_EMOTIONS} expressions are needed"
            return f"no verdict: {self.clips} labelled clips of {self.emotions} expressions, {needed}"
        found = f"the new model recognises {self.newer} of your {self.clips} clips, yours {self.served}"
        return f"{found} (p = {self.p:.3f})"


def compare(labels: Sequence[int], newer: Sequence[bool], served: Sequence[bool]) -> Comparison:
    """What two models recognised of the same clips (N,), whose emotions are ``labels``."""
    pairs = list(zip(newer, served, strict=True))
    only_newer, only_served = pairs.count((True, False)), pairs.count((False, True))
    return Comparison(len(labels), len(set(labels)), sum(newer), sum(served), only_newer, only_served)


def try_beside(paths: ClientPaths, newer: Path, served: Path, lessons_key: bytes | None = None) -> Comparison:
    """Compare two model files on the wearer's held-out clips, in a process of its own (`client.trial`).

    ``lessons_key`` opens the lesson book, and models that were learned here; the clips of a folder that was enrolled
    are all that count there. Where there are too few clips for a verdict neither model is run, and nothing recognised.
    Raises McoeError when the trial fails.
    """
    labels = labels_here(paths, newer, served, lessons_key)
    if not enough(labels):
        return Comparison(len(labels), len(set(labels)), 0, 0, 0, 0)
    command = [sys.executable, "-m", "client.trial", str(paths.folder), str(newer), str(served)]
    done = subprocess.run(command, input=(lessons_key or b"").hex() + "\n", capture_output=True, text=True)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise McoeError(said[-1] if said else f"the trial ended with code {done.returncode}")
    return Comparison(**json.loads(done.stdout.splitlines()[-1]))


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
