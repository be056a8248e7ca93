"""How two models do on the wearer's own clips, for `client.serving`.

    python -m client.trial DIR NEWER SERVED

reads the key of the lesson book and of models that were learned here (hex, or an empty line) from standard input, and
prints a `Comparison`. A process of its own, since a model is made with torch's random state, which belongs to the
training that may be going on, and so that it can stand still while a recording runs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from client.child_process import killed_with_parent, no_core_dump
from client.comparison import Comparison, compare
from client.enrolment import ClientPaths, read_membership
from client.folder_store import FolderStore
from client.lesson_book import LessonBook
from client.lesson_samples import samples_of
from client.own_models import open_model
from client.serving import has_folder, to_json
from mcoe_model.errors import McoeError
from mcoe_model.learning.fine_tune import measure
from mcoe_model.learning.samples import Samples
from mcoe_model.learning.weights import backbone_sha256, model_of
from mcoe_model.update import TrainMode
from mcoe_model.workers import end_with_parent, one_thread


def try_both(paths: ClientPaths, newer: Path, served: Path, lessons_key: bytes | None = None) -> Comparison:
    """Both model files on the middle window of every clip for it. Raises DataMissing, DataInvalid, ModelInvalid."""
    labels, newer_hits = recognised(paths, newer, lessons_key)
    return compare(labels, newer_hits, recognised(paths, served, lessons_key)[1])


def recognised(
    paths: ClientPaths, model_file: Path, lessons_key: bytes | None = None
) -> tuple[list[int], tuple[bool, ...]]:
    """The emotions of the clips that models are tried on, and which of them a model recognises.

    Raises DataMissing, DataInvalid, ModelInvalid, Locked.
    """
    tensors, card = open_model(model_file, lessons_key)
    model = model_of(tensors, card, model_file)
    if lessons_key is not None and not has_folder(paths):
        book = LessonBook(paths.lessons, lessons_key, card.generation.id)
        samples: Samples = samples_of(book.clips(book.held_out))
        return samples.labels.tolist(), measure(model, samples).hits
    member = read_membership(paths)
    store = FolderStore(paths, member.client_id, Path(member.clips), member.subject, model_file, lessons_key)
    frozen = backbone_sha256(tensors) == card.generation.backbone_sha256
    mode: TrainMode = "head" if frozen else "full"
    samples = store.samples(model, mode)
    return samples.labels.tolist(), measure(model, samples).hits


def main() -> None:
    """Print what was found, or one line of what is wrong."""
    one_thread()
    killed_with_parent()  # also while it stands still
    end_with_parent()  # which may have ended before that
    no_core_dump()
    os.nice(10)
    folder, newer, served = map(Path, sys.argv[1:4])
    key = bytes.fromhex(sys.stdin.readline().strip()) or None
    try:
        found = try_both(ClientPaths(folder), newer, served, key)
    except McoeError as fault:
        print(fault, file=sys.stderr)
        sys.exit(fault.exit_code)
    print(to_json(found))


if __name__ == "__main__":
    main()
