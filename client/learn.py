"""The process that learns: labelled clips in, a model for this wearer out. `client.learning` starts it for each task.

Its standard input is as `client.learn_task` says. Every new clip is encoded by the model's frozen backbones, once, and
kept sealed. Then the head is fine-tuned on the clips that are asked for, together with windows of earlier ones from the
replay memory, and tried on the held-out clips beside the model that it began from.

It may end at any moment. What was encoded is kept; training goes fast and begins anew, with the same bits, since it is
keyed by what is learned and from which model; and nothing of it counts before the result is written, whole.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.child_process import killed_with_parent, no_core_dump
from client.learn_task import PAIR, PAIR_BYTES, NewClip, Task
from client.lesson_book import Clip, LessonBook, Result, ResultFile, is_held_out
from client.lesson_samples import samples_of
from client.own_models import LEARNED_HERE, open_model, seal_model
from mcoe_model.data.cache import resized
from mcoe_model.data.lighting import lighting_of
from mcoe_model.errors import DataInvalid, McoeError, for_log
from mcoe_model.learning.continual import continual_method
from mcoe_model.learning.fine_tune import fine_tune, measure
from mcoe_model.learning.replay import ReplayMemory
from mcoe_model.learning.replay_samples import exemplars_of
from mcoe_model.learning.samples import encode_pictures
from mcoe_model.learning.settings import FineTuneSettings, ReplaySettings
from mcoe_model.learning.weights import model_of, tensors_of
from mcoe_model.model_file import model_bytes
from mcoe_model.networks import picture_encoder
from mcoe_model.workers import end_with_parent, one_thread

#: How the head is fine-tuned for its wearer.
SETTINGS, REPLAY = FineTuneSettings(epochs=10), ReplaySettings()


class Learning:
    """One task. Raises DataMissing, DataInvalid, ModelInvalid for a model that cannot be read."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._base = Path(task.model)
        self._key = bytes.fromhex(task.key)
        tensors, self._card = open_model(self._base, self._key)
        self._model = model_of(tensors, self._card, self._base)
        self._book = LessonBook(Path(task.lessons), self._key, self._card.generation.id)
        self._result = ResultFile(Path(task.lessons), self._key)

    def encode(self, clip: NewClip, pictures: NDArray[np.uint8]) -> None:
        """Put a clip of pictures (N, 2, 90, 90) into the book. Raises DiskFull."""
        generation = self._card.generation
        frames, events = (
            np.stack([resized(Image.fromarray(picture), generation.input_size) for picture in stream])  # (N, S, S)
            for stream in (pictures[:, 0], pictures[:, 1])
        )
        features = encode_pictures(picture_encoder(self._model), frames, events, generation.normalisation)
        self._book.put(Clip(clip.name, clip.emotion, clip.day, features, lighting_of(pictures[:, 0])))

    def learn(self) -> None:
        """Fine-tune, and write the result. Raises DiskFull."""
        started = time.perf_counter()
        clips = self._book.clips(self._task.learn)
        there = tuple(clip.name for clip in clips)
        if not there:
            return
        chosen = [clip for clip in clips if not is_held_out(clip.span)]
        result = Result(self._card.generation.id, there, self._base.stem, None, "held out", 0, 0.0)
        if not chosen:
            self._result.write(result)
            return
        samples, tried = samples_of(chosen), samples_of(self._book.clips(self._book.held_out))
        memory = self._memory()
        before = measure(self._model, tried).hits if tried.names else ()
        # What is learned now speaks for itself; the memory has it already where the task begins anew.
        method = continual_method(REPLAY, memory.without(samples.names))
        keys = ("lesson", self._base.stem, *samples.names)
        fine_tune(self._model, samples, SETTINGS, train_mode="head", keys=keys, method=method)
        after = measure(self._model, tried).hits if tried.names else ()
        lightings = [clip.lighting for clip in chosen]
        memory = memory.add(exemplars_of(self._model, samples, lightings=lightings, day=self._task.day))
        result = replace(
            result,
            model_sha256=self._write(len(chosen)),
            outcome="learned",
            spans=len(chosen),
            seconds=time.perf_counter() - started,
            labels=tuple(tried.labels.tolist()),
            before=before,
            after=after,
            memory=memory.to_bytes(),
        )
        self._result.write(result)

    def _memory(self) -> ReplayMemory:
        """What is remembered of clips that stand; an empty one where nothing can be read."""
        generation = self._card.generation.id
        empty = ReplayMemory(generation, REPLAY.bytes)
        content = self._book.read_memory()
        try:
            if content is None:
                return empty
            found = ReplayMemory.from_bytes(content, generation=generation, limit_bytes=REPLAY.bytes)
        except DataInvalid:
            return empty
        gone = set(found.names) - set(self._task.stand)
        return found.without(gone).expire(self._task.day, REPLAY.days)

    def _write(self, clips: int) -> str:
        """The model as a sealed file named by its hash. Raises DiskFull."""
        of_fleet = self._card.trained_on.get("fleet_model", self._base.stem)
        card = self._card.child_of(self._base.stem, LEARNED_HERE, {"clips": clips, "fleet_model": of_fleet})
        return seal_model(Path(self._task.models), self._key, model_bytes(tensors_of(self._model), card), of_fleet)


def read_task(given: BinaryIO) -> Learning:
    """The task, with every new clip encoded. Raises DataInvalid for input that is cut, DiskFull."""
    learning = Learning(Task.from_json(given.readline()))
    while (line := given.readline()) not in (b"\n", b""):
        clip = NewClip.from_json(line)
        content = given.read(clip.pairs * PAIR_BYTES)
        if len(content) != clip.pairs * PAIR_BYTES:
            raise DataInvalid("a clip was cut on its way")
        learning.encode(clip, np.frombuffer(content, np.uint8).reshape(clip.pairs, *PAIR))
    if not line:
        raise DataInvalid("the task was cut on its way")
    return learning


def main() -> None:
    """Do the task on standard input."""
    killed_with_parent()
    end_with_parent()  # which may have ended before that
    no_core_dump()
    one_thread()
    os.nice(10)
    try:
        read_task(sys.stdin.buffer).learn()
    except McoeError as fault:
        print(f"error: {for_log(fault)}", file=sys.stderr)
        sys.exit(fault.exit_code)


if __name__ == "__main__":
    main()
