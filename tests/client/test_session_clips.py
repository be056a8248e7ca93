"""Recorded sessions as clips of the fleet: each is in one accepted update, held-out ones in none."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from toy_store import ToyStore, base, payload, task

from client import fleet
from client.assess import assess
from client.enrolment import ClientPaths
from client.kept import kept_clips
from client.learner import check_in, learn
from client.lesson_book import Clip, LessonBook, forget_generation, generations, keep_lessons
from client.outbox import Outbox
from client.session_clips import SessionClips, take_clips
from mcoe_model.errors import DataMissing
from mcoe_model.learning.replay import UNKNOWN_LIGHTING, ReplayMemory
from mcoe_model.learning.replay_samples import exemplars_of
from mcoe_model.model_file import tensors_sha256, write_model
from mcoe_model.protocol import EvaluateTask, News
from mcoe_model.tensors import Payload

KEY = bytes(range(32))
HERE, OTHERS = [f"{span}-{span + 50}" for span in range(1, 11)], 5


@pytest.fixture
def paths(tmp_path: Path) -> ClientPaths:
    return ClientPaths(tmp_path)


@pytest.fixture
def book(paths: ClientPaths) -> LessonBook:
    """Ten clips, of which the fourth and the ninth are held out."""
    made = LessonBook(paths.lessons, KEY, base()[1].generation.id)
    toy = ToyStore("w1", len(HERE))
    samples = toy.samples(toy.resident, "head")
    for name, emotion, features in zip(HERE, samples.labels, samples.features, strict=True):  # type: ignore[attr-defined]
        made.put(Clip(name, int(emotion), 20_000, features))
    return made


@pytest.fixture
def store(paths: ClientPaths, book: LessonBook) -> SessionClips:
    path = paths.models / "base.safetensors"
    write_model(path, *base())
    return SessionClips(paths, "w1", path, KEY)


def test_clips_are_in_one_accepted_update(paths: ClientPaths, book: LessonBook, store: SessionClips) -> None:
    learned_names = tuple(name for name in HERE if name not in ("4-54", "9-59"))
    outbox = Outbox(paths.outbox, KEY, lambda learned: book.take(learned.clips))
    assert store.clip_names() == learned_names and check_in(store).examples == 8
    learned = learn(store, task(), Payload.of(payload()))
    assert (learned.clips, learned.report.examples) == (learned_names, 8)
    outbox.put(learned)
    assert store.clip_names() == learned_names, "they await the server's word"
    outbox.hear(News(dropped=("f" * 32,)))
    outbox.hear(News(accepted=(learned.meta.update_id,)))
    assert (store.clip_names(), outbox.ids(), check_in(store).examples) == ((), (), 0)
    assert book.held_out == ("4-54", "9-59")
    with pytest.raises(DataMissing, match="no labelled clips"):
        learn(store, task(), Payload.of(payload()))


def test_without_the_consent_to_labels_no_round_has_a_clip_and_none_is_lost(
    paths: ClientPaths, store: SessionClips
) -> None:
    silent = SessionClips(paths, "w1", paths.models / "base.safetensors", KEY, labels=False)
    assert (silent.clip_names(), check_in(silent).examples) == ((), 0)
    with pytest.raises(DataMissing, match="no labelled clips"):
        learn(silent, task(), Payload.of(payload()))
    assert silent.tried(silent.model()[0], "head").names == ()
    assert len(store.clip_names()) == 8 and len(store.tried(store.model()[0], "head").names) == 2


def test_the_fleets_part_is_told_whether_labels_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counted = list[bool]()
    for name in ("end_with_parent", "_listen"):
        monkeypatch.setattr(fleet, name, lambda *_: None)
    monkeypatch.setattr(fleet, "run_fleet", lambda *_, labels: counted.append(labels))
    monkeypatch.setattr(sys, "argv", ["client.fleet", str(tmp_path), str(tmp_path)])
    for labels in (True, False):
        said = {"outbox": "00", "lessons": "00", "recording": False, "labels": labels}
        monkeypatch.setattr(sys, "stdin", StringIO(json.dumps(said) + "\n"))
        fleet.main()
    assert counted == [True, False]


def test_a_dropped_update_leaves_its_clips_for_the_next(
    paths: ClientPaths, book: LessonBook, store: SessionClips
) -> None:
    outbox = Outbox(paths.outbox, KEY, lambda learned: book.take(learned.clips))
    learned = learn(store, task(), Payload.of(payload()))
    outbox.put(learned)
    outbox.hear(News(dropped=(learned.meta.update_id,)))
    assert store.clip_names() == learned.clips and outbox.ids() == ()


def test_what_a_round_had_is_in_no_other_one_of_its_generation_although_it_is_learned_here_anew(
    paths: ClientPaths, book: LessonBook, store: SessionClips
) -> None:
    """A wearable goes on with another generation, and comes back: then the lesson book begins anew."""
    learned, others = learn(store, task(), Payload.of(payload())), LessonBook(paths.lessons, KEY, "0a" * 8)
    clips = {clip.name: clip for clip in book.clips(HERE)}
    others.put(clips["1-51"])
    take_clips(paths, KEY, learned)
    assert book.waiting == () and others.waiting == ("1-51",), "it is taken in the update's generation alone"
    for generation in generations(paths.lessons):
        forget_generation(paths.lessons, generation)
    for clip in (*clips.values(), replace(clips["1-51"], name="1-99")):
        book.put(clip)
    assert book.waiting == ("1-99",), "another label is another clip"
    assert {clip.name for clip in book.clips(HERE)} == set(HERE) - {"1-51"} and kept_clips(paths.lessons) == 1
    for name, clip in clips.items():
        others.put(clip)
        assert name in (*others.waiting, *others.held_out), "the other generation's rounds have not had it"
    book.forget_again()
    assert [clip.name for clip in book.clips(HERE)] == ["4-54", "9-59"]
    keep_lessons(paths.lessons, KEY, HERE[1:], 20_000)
    for clip in clips.values():
        book.put(clip)
    assert book.waiting == ("1-51",), "of what does not stand nothing is remembered"


def test_earlier_clips_are_replayed_and_not_counted(book: LessonBook, store: SessionClips) -> None:
    alone = learn(store, task(), Payload.of(payload()))
    model, card = store.model()
    toy = ToyStore("w2", OTHERS)
    kept = exemplars_of(model, toy.samples(model, "head"), lightings=[UNKNOWN_LIGHTING] * OTHERS, day=20_000)
    memory = ReplayMemory(card.generation.id).add(kept)
    book.write_memory(memory.to_bytes())
    both = learn(store, task(), Payload.of(payload()))
    assert (both.clips, both.report.examples, both.meta.update_id) == (alone.clips, 8, alone.meta.update_id)
    assert tensors_sha256(both.update) != tensors_sha256(alone.update)
    mine = exemplars_of(model, store.samples(model, "head"), lightings=[UNKNOWN_LIGHTING] * 8, day=20_000)
    book.write_memory(ReplayMemory(card.generation.id).add(mine).to_bytes())
    again = learn(store, task(), Payload.of(payload()))
    assert tensors_sha256(again.update) == tensors_sha256(alone.update), "they are not replayed beside themselves"


def test_a_memory_that_cannot_be_read_is_as_good_as_none(book: LessonBook, store: SessionClips) -> None:
    alone = learn(store, task(), Payload.of(payload()))
    for content in (b"no memory", ReplayMemory("0" * 16).to_bytes()):
        book.write_memory(content)
        assert tensors_sha256(learn(store, task(), Payload.of(payload())).update) == tensors_sha256(alone.update)


def test_models_are_tried_on_the_clips_that_are_held_out(store: SessionClips) -> None:
    new, old = payload(), {name: np.zeros_like(value) for name, value in payload().items()}
    asked = EvaluateTask("a" * 64, tensors_sha256(new), tensors_sha256(old), base()[1].generation.id, "head")
    assert assess(store, asked, Payload.of(new), Payload.of(old)).examples == 2


def test_only_heads_learn_here(store: SessionClips) -> None:
    assert check_in(store).capabilities == ("train-head", "evaluate")
    with pytest.raises(DataMissing, match="only the head"):
        store.samples(store.model()[0], "full")
