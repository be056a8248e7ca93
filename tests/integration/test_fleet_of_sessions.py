"""What wearers recorded and labelled goes into a round of a real fleet, once, and nothing of it but the update."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from real_fleet import Client, Server, make_base, make_data, run, wait_for

from client.enrolment import ClientPaths
from client.keys import make_keyfile
from client.lesson_book import Clip, LessonBook
from mcoe_model.model_file import read_card
from mcoe_model.networks import build
from mcoe_model.streams import stream

CLIPS = 6


class Wearer(Client):
    """A client whose clips are in its lesson book, as the learning process leaves them."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder, folder, "", name)
        self.key = make_keyfile(ClientPaths(folder).device_key).derive("lessons")

    def enrol(self, server: Server, *flags: object) -> None:
        line = server.ask("clients", "invite", self.name, *flags)["invitation"]
        run("mcoe-client", "enrol", line, "--dir", self.folder)

    def fill(self, generation: str) -> LessonBook:
        """Clips of features in which the emotion shows; the fourth is held out."""
        book = LessonBook(ClientPaths(self.folder).lessons, self.key, generation)
        size, random = build("mcoe-tiny", seed=0).feature_size, stream(self.name)
        for span in range(1, CLIPS + 2):
            emotion = span % 2
            made = random.normal(size=(2, 20, size)).astype(np.float32) + emotion
            features = {("frame", "any"): made[0], ("event", "any"): made[1]}
            book.put(Clip(f"{span}-{span}", emotion, 20_000, features))
        return book


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "server", make_base(make_data(tmp_path / "data"), tmp_path / "base.safetensors"))
    wearers = [Wearer(tmp_path / name, name) for name in ("w1", "w2")]
    made.wearers = wearers  # type: ignore[attr-defined]
    try:
        made.start("--min-clients", 2, "--pause-s", 0.1, "--deadline-s", 600)
        yield made
    finally:
        for process in [wearer.process for wearer in wearers] + [made.process]:
            if process is not None and process.popen.poll() is None:
                process.end()


def test_each_labelled_span_is_in_one_update_of_the_fleet(server: Server) -> None:
    wearers: list[Wearer] = server.wearers  # type: ignore[attr-defined]
    books = [wearer.fill(read_card(server.base).generation.id) for wearer in wearers]
    assert all(len(book.waiting) == CLIPS and book.held_out == ("4-4",) for book in books)
    for wearer in wearers:
        wearer.enrol(server)
        wearer.start()
    server.wait_for_round(1, 600)
    [first] = server.published()[:1]
    replies = server.registry().replies(first.id)
    assert {(reply.client_id, reply.reason) for reply in replies} == {("w1", None), ("w2", None)}
    # The news that an update was accepted comes with the next check-in.
    wait_for(lambda: all(book.waiting == () for book in books), 300, "the news that every clip was taken")
    wait_for(lambda: "0 clients with new clips are there" in server.log("coordinator"), 300, "the wait for new clips")
    assert len(server.published()) == 1 and all(wearer.trained() == [1] for wearer in wearers)
    assert all(book.held_out == ("4-4",) for book in books)
