"""The events themselves beside a synthetic data set: a file for each sequence, and a table of them all.

    <root>/raw/<name>.npz       the events of a sequence (`mcoe_model.data.manifest.read_events`)
    <root>/manifest.csv         a row for each sequence (`mcoe_model.data.manifest`); written last

Drawn from the same streams as the pictures that are there already: shown as `ternary`, these events are the pictures
that were drawn, before they became JPEG.
"""

from __future__ import annotations

import csv
import io
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from mcoe_model.data.manifest import OPTIONAL, REQUIRED
from mcoe_model.data.synthetic.clip import draw_raw_events
from mcoe_model.data.synthetic.design import Clip, plan
from mcoe_model.data.synthetic.settings import SyntheticSettings
from mcoe_model.data.synthetic.writer import alone, claim, in_batches
from mcoe_model.files import atomic_write, write_bytes
from mcoe_model.progress import Progress, silent

FOLDER, TABLE = "raw", "manifest.csv"


def write_raw_events(
    root: Path, settings: SyntheticSettings, *, workers: int = 1, progress: Progress = silent
) -> Path:
    """Write what of the events of a data set that `write_see` made is not there yet; returns the table.

    ``progress`` counts sequences. Raises OutputExists where ``root`` holds anything else, DiskFull.
    """
    clips = plan(settings)
    with alone(root):
        claim(root, settings)
        missing = [clip for clip in clips if not _path(root, clip).exists()]
        done = len(clips) - len(missing)
        progress(done, len(clips), "")
        with closing(in_batches(partial(_write, root, settings), missing, workers)) as batches:
            for written in batches:
                done += written
                progress(done, len(clips), "")
        write_bytes(root / TABLE, _table(clips))
    return root / TABLE


def _write(root: Path, settings: SyntheticSettings, clips: list[Clip]) -> int:
    for clip in clips:
        raw = draw_raw_events(clip, settings)
        columns = {str(name): raw.events[name] for name in raw.events.dtype.names or ()}
        with atomic_write(_path(root, clip)) as file:
            np.savez_compressed(file, allow_pickle=False, edges=raw.edges_us, **columns)
    return len(clips)


def _table(clips: tuple[Clip, ...]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*REQUIRED, *OPTIONAL))
    for clip in clips:
        frames, events = f"frame/{clip.folder}/{clip.name}", f"{FOLDER}/{clip.name}.npz"
        person, session = f"{clip.subject:03d}", clip.session or ""
        writer.writerow((clip.name, person, session, clip.emotion, frames, events, clip.lighting, clip.split))
    return text.getvalue().encode()


def _path(root: Path, clip: Clip) -> Path:
    return root / FOLDER / f"{clip.name}.npz"
