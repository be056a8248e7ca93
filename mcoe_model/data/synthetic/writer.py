"""Writing a synthetic data set in exactly SEE's layout, on all cores, so that a stopped run goes on where it was.

    <root>/event/<emotion>/<name>/00000.jpg ...      ternary event pictures
    <root>/frame/<emotion>/<name>/00000.jpg ...      intensity pictures
    <root>/emotion.json                              SEE's annotation; written last: a set without it is unfinished
    <root>/synthetic.json                            the settings; written first
    <root>/sessions.json                             `wearable` only: session and date of every sequence

A sequence is there whole or not at all: both folders are filled under `.partial` and renamed into place, the one under
`frame` last. The bits of a sequence depend on the settings and its plan alone, not on the number of workers.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import as_completed
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mcoe_model.data.synthetic.clip import draw_clip
from mcoe_model.data.synthetic.design import Clip, emotion_folder, plan
from mcoe_model.data.synthetic.settings import SyntheticSettings
from mcoe_model.errors import DataInvalid, DiskFull, OutputExists
from mcoe_model.files import write_json
from mcoe_model.names import EMOTIONS
from mcoe_model.progress import Progress, silent
from mcoe_model.streams import stream
from mcoe_model.workers import spawn_pool

SETTINGS_FILE, ANNOTATION_FILE, SESSIONS_FILE, PARTIAL = "synthetic.json", "emotion.json", "sessions.json", ".partial"
#: Raised whenever the same settings give other pictures than before.
GENERATOR = 7
JPEG_QUALITY = 92
#: Sequences handed to a worker at a time.
BATCH = 4


def write_see(root: Path, settings: SyntheticSettings, *, workers: int = 1, progress: Progress = silent) -> None:
    """Write the data set of ``settings`` under ``root``, or finish one that was begun with the same settings.

    ``progress`` counts sequences. A second process that writes the same folder waits for the first and finds it done.
    Raises OutputExists where ``root`` holds anything else, DiskFull on a full disk.
    """
    clips = plan(settings)
    with alone(root):
        claim(root, settings)
        missing = [clip for clip in clips if not _is_there(root, clip)]
        done = len(clips) - len(missing)
        progress(done, len(clips), "")
        try:
            with contextlib.closing(in_batches(partial(write_clips, root, settings), missing, workers)) as batches:
                for written in batches:
                    done += written
                    progress(done, len(clips), "")
        finally:
            shutil.rmtree(root / PARTIAL, ignore_errors=True)
        if settings.design == "wearable":
            write_json(root / SESSIONS_FILE, sessions(clips, settings.seed))
        write_json(root / ANNOTATION_FILE, annotation(clips))


def claim(root: Path, settings: SyntheticSettings) -> None:
    """Make the folder ``root`` that of ``settings``. Raises OutputExists where it holds something else."""
    stamp = {"generator": GENERATOR, "settings": settings.as_json()}
    if not any(root.iterdir()):
        write_json(root / SETTINGS_FILE, stamp)
        return
    try:
        found = json.loads((root / SETTINGS_FILE).read_text())
        difference = _difference(found, stamp)
    except FileNotFoundError:
        raise OutputExists(f"{root} is there and holds no synthetic data set; name another folder") from None
    except (ValueError, TypeError, KeyError):
        raise DataInvalid(f"{root / SETTINGS_FILE} cannot be read; remove {root} and start again") from None
    if difference:
        raise OutputExists(f"{root} holds a data set with other settings ({difference}); name another folder")
    shutil.rmtree(root / PARTIAL, ignore_errors=True)  # of a run that was killed


def write_clips(root: Path, settings: SyntheticSettings, clips: list[Clip]) -> int:
    """Draw and write ``clips``; returns how many. Raises DiskFull."""
    try:
        for clip in clips:
            _write_clip(root, clip, *draw_clip(clip, settings))
    except OSError as fault:
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no space left while writing {root}; free some") from fault
        raise
    return len(clips)


def annotation(clips: tuple[Clip, ...]) -> dict[str, Any]:
    """The content of `emotion.json`."""
    return {
        "labels": [emotion_folder(emotion) for emotion in EMOTIONS],
        "database": {
            clip.name: {
                "subset": clip.split,
                "annotations": {"label": clip.folder, "segment": [0, clip.length]},
            }
            for clip in clips
        },
    }


def sessions(clips: tuple[Clip, ...], seed: int) -> dict[str, Any]:
    """The content of `sessions.json`: session number and date of every sequence. Sessions are 2 to 9 days apart."""
    dates: dict[tuple[int, int], str] = {}
    for subject in sorted({clip.subject for clip in clips}):
        gaps = stream(seed, "dates", subject).integers(2, 10, size=max(clip.session for clip in clips))
        for session, days in enumerate(np.cumsum(gaps), start=1):
            dates[subject, session] = (date(2024, 1, 8) + timedelta(days=int(days))).isoformat()
    return {clip.name: {"session": clip.session, "date": dates[clip.subject, clip.session]} for clip in clips}


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold ``root``, made if need be, against other processes. Raises OutputExists where it is no folder."""
    try:
        root.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise OutputExists(f"{root} is, or lies in, a file; name another folder") from None
    descriptor = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def in_batches(
    write: Callable[[list[Clip]], int], clips: list[Clip], workers: int
) -> Generator[int, None, None]:
    """Write ``clips`` in batches, here or in worker processes; yields the size of each batch that is done."""
    batches = [clips[i : i + BATCH] for i in range(0, len(clips), BATCH)]
    if workers == 1 or len(batches) < 2:
        for batch in batches:
            yield write(batch)
        return
    pool = spawn_pool(min(workers, len(batches)))
    try:
        for future in as_completed([pool.submit(write, batch) for batch in batches]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _is_there(root: Path, clip: Clip) -> bool:
    return (root / "frame" / clip.folder / clip.name).is_dir()


def _write_clip(root: Path, clip: Clip, frames: NDArray[np.uint8], events: NDArray[np.uint8]) -> None:
    for kind, pictures in (("event", events), ("frame", frames)):
        unfinished = root / PARTIAL / kind / clip.name
        unfinished.mkdir(parents=True)
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(unfinished / f"{number:05d}.jpg", quality=JPEG_QUALITY)
    for kind in ("event", "frame"):
        finished = root / kind / clip.folder / clip.name
        finished.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(finished, ignore_errors=True)  # an event folder whose frames never came
        os.rename(root / PARTIAL / kind / clip.name, finished)


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The settings in which a folder's stamp and the wanted one differ, for the user; empty when they agree."""
    there, here = ({**stamp["settings"], "generator": stamp["generator"]} for stamp in (found, wanted))
    return ", ".join(f"{key} {there.get(key)} there, {here[key]} here" for key in here if there.get(key) != here[key])

