"""Consents, sessions, segments, spans and labels, as a wearer's store keeps them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_times import GEOMETRY, KEY, TEXT, Clock, agree, opened, plain_segment, record

from client.keys import DeviceKey
from client.sessions import PARTIAL, RECORDING, WHOLE, Label, Prediction, Store, StoreRules
from client.sessions.values import SAYINGS
from mcoe_model.consent import CONSENTS
from mcoe_model.errors import ConsentMissing, DataInvalid, DataMissing, Locked, SettingsError

SECOND = 1_000_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with opened(tmp_path, clock=clock) as made:
        yield made


@pytest.fixture
def session(store: Store, tmp_path: Path) -> str:
    agree(store)
    return record(store, tmp_path / "memory", b"first " * 100, b"second " * 100)


class TestConsent:
    def test_nothing_is_recorded_before_the_wearer_agreed(self, store: Store) -> None:
        assert store.consents() == {}
        with pytest.raises(ConsentMissing, match="capture"):
            store.begin_session("DAVIS346", GEOMETRY)
        agree(store, "capture")
        store.begin_session("DAVIS346", GEOMETRY)
        assert [kind for kind in CONSENTS if store.allowed(kind)] == ["capture"]

    def test_no_is_an_answer(self, store: Store) -> None:
        store.answer_consents({"capture": True, "export": False}, TEXT)
        assert {kind: answer.given for kind, answer in store.consents().items()} == {"capture": True, "export": False}
        assert not store.allowed("export")

    def test_another_version_of_the_text_is_asked_for_again(self, store: Store, tmp_path: Path) -> None:
        agree(store)
        with opened(tmp_path, rules=StoreRules(consent_version="2")) as newer:
            assert not any(newer.allowed(kind) for kind in CONSENTS)
            with pytest.raises(DataInvalid, match="text 2, not 1"):
                newer.answer_consents({"capture": True}, TEXT)
            newer.answer_consents({"capture": True}, replace(TEXT, version="2"))
            assert newer.allowed("capture")

    def test_withdrawal_is_added_and_every_answer_stays(self, store: Store, clock: Clock) -> None:
        agree(store, "capture")
        clock.turn(1)
        store.withdraw("capture")
        store.withdraw("export")
        assert not store.allowed("capture")
        history = [(answer.kind, answer.given, answer.utc_us) for answer in store.consent_history()]
        hour = 3_600 * SECOND
        assert history == [("capture", True, clock.at.utc_us - hour), ("capture", False, clock.at.utc_us)]
        assert store.consent_text(store.consents()["capture"].text_sha256) == TEXT

    @pytest.mark.parametrize("change", ["UPDATE consents SET given = 1", "DELETE FROM consents"])
    def test_no_answer_can_be_changed_in_the_database(self, store: Store, tmp_path: Path, change: str) -> None:
        agree(store)
        connection = sqlite3.connect(tmp_path / "store.sqlite")
        with pytest.raises(sqlite3.IntegrityError, match="never changed"):
            connection.execute(change)
        connection.close()
        assert len(store.consent_history()) == len(CONSENTS)

    def test_a_locked_wearable_can_be_told_to_stop(self, store: Store, tmp_path: Path) -> None:
        agree(store)
        store.lock()
        store.withdraw("capture")
        assert store.locked and not store.allowed("capture")

    def test_what_comes_after_the_withdrawal_is_not_kept(self, store: Store, tmp_path: Path) -> None:
        agree(store)
        session = record(store, tmp_path / "memory", b"before", end=False)
        store.withdraw("capture")
        plain = plain_segment(tmp_path / "memory", b"after", 1)
        with pytest.raises(ConsentMissing):
            store.add_segment(session, 1, plain, 0, SECOND, events=1, frames=1)
        assert not plain.exists()
        assert [segment.number for segment in store.segments(session)] == [0]

    def test_labels_need_a_consent_of_their_own(self, store: Store, session: str) -> None:
        store.withdraw("labels")
        with pytest.raises(ConsentMissing, match="labels"):
            store.add_span(session, 0, SECOND)

    def test_unknown_kinds_are_refused(self, store: Store) -> None:
        with pytest.raises(DataInvalid, match="telemetry"):
            store.answer_consents({"telemetry": True}, TEXT)

    def test_the_servers_record_has_what_is_allowed(self, store: Store) -> None:
        store.answer_consents({"capture": True, "labels": True, "export": False}, TEXT)
        store.withdraw("labels")
        assert [(consent.kind, consent.version) for consent in store.agreed()] == [("capture", "1")]


class TestRecording:
    def test_what_was_recorded_can_be_opened_and_nothing_plain_is_left(
        self, store: Store, session: str, tmp_path: Path
    ) -> None:
        contents = [b"".join(store.open_segment(segment)) for segment in store.segments(session)]
        assert contents == [b"first " * 100, b"second " * 100]
        assert list((tmp_path / "memory").iterdir()) == []
        found = store.session(session)
        assert (found.state, found.geometry, found.camera) == (WHOLE, GEOMETRY, "DAVIS346")
        assert (found.starts_us, found.ends_us, found.segments) == (0, 20 * SECOND, 2)
        assert found.bytes == store.used_bytes() == sum(path.stat().st_size for path in tmp_path.rglob("*.sealed"))

    def test_a_session_runs_until_it_is_ended_once(self, store: Store, tmp_path: Path) -> None:
        agree(store)
        session = record(store, tmp_path / "memory", b"a", end=False)
        assert store.session(session).state == RECORDING
        store.end_session(session, partial=True, why="unplugged")
        store.end_session(session)
        assert (store.session(session).state, store.session(session).ended_why) == (PARTIAL, "unplugged")

    def test_a_session_starts_with_its_first_picture_which_may_be_before_it_was_asked_for(
        self, store: Store, tmp_path: Path, clock: Clock
    ) -> None:
        agree(store)
        pressed, second_ns = clock.at, 1_000_000_000
        session = store.begin_session("DAVIS346", GEOMETRY)
        # What capture says of the time 15 s before, as it understands it; UTC was set meanwhile.
        before = {"utc_us": pressed.utc_us - 99 * SECOND, "monotonic_ns": pressed.monotonic_ns - 15 * second_ns}
        store.add_clock(session, 1000 * SECOND, replace(pressed, **before))
        for number, starts_us in enumerate((999_900_000, 1_010_000_000)):
            path = plain_segment(tmp_path / "memory", b"eye", number)
            store.add_segment(session, number, path, starts_us, starts_us + 5 * SECOND, events=1, frames=1)
            assert store.session(session).started_us == pressed.utc_us - 15_100_000
        span = store.add_span(session, 999_900_000, 1_015_000_000)
        store.ask(span.id)
        clock.turn(1 / 60)
        store.label(span.id, Label("fear"))
        assert [prompt.delay_us for prompt in store.prompts()] == [60 * SECOND]

    def test_a_segment_is_never_written_over(self, store: Store, session: str, tmp_path: Path) -> None:
        again = plain_segment(tmp_path / "memory", b"other", 0)
        store.add_segment(session, 0, again, 0, SECOND, events=1, frames=1)
        assert b"".join(store.open_segment(store.segments(session)[0])) == b"first " * 100
        assert not again.exists()
        with pytest.raises(DataMissing, match="segment 2"):
            store.add_segment(session, 2, again, 0, SECOND, events=1, frames=1)
        assert store.session(session).segments == 2

    def test_another_wearables_key_opens_nothing(self, store: Store, session: str, tmp_path: Path) -> None:
        segment = store.segments(session)[0]
        with opened(tmp_path, key=DeviceKey(bytes(32))) as other, pytest.raises(DataInvalid):
            b"".join(other.open_segment(segment))

    def test_a_locked_store_records_and_shows_nothing(self, store: Store, session: str) -> None:
        segment = store.segments(session)[0]
        store.add_span(session, 0, SECOND)
        store.lock()
        with pytest.raises(Locked):
            b"".join(store.open_segment(segment))
        with pytest.raises(Locked):
            store.begin_session("DAVIS346", GEOMETRY)
        with pytest.raises(Locked):
            store.spans()
        store.unlock(KEY)
        assert b"".join(store.open_segment(segment)) == b"first " * 100

    def test_a_session_of_another_geometry_is_listed_and_its_pictures_are_not_made(
        self, store: Store, session: str, tmp_path: Path
    ) -> None:
        connection = sqlite3.connect(tmp_path / "store.sqlite")
        connection.execute("UPDATE sessions SET geometry = json_set(geometry, '$.version', 99)")
        connection.commit()
        connection.close()
        (found,) = store.sessions()
        with pytest.raises(SettingsError, match="version 99"):
            _ = found.geometry

    def test_unknown_sessions_are_named(self, store: Store) -> None:
        with pytest.raises(DataMissing, match="no session abc"):
            store.session("abc")


class TestLabels:
    def test_the_latest_label_wins_and_undo_goes_back(self, store: Store, session: str, clock: Clock) -> None:
        span = store.add_span(session, SECOND, 4 * SECOND)
        assert span.label is None
        store.label(span.id, Label("fear", 2))
        clock.turn(1)
        changed = store.label(span.id, Label("surprise"), source="protocol")
        assert (changed.label, changed.source, changed.edited_us) == (Label("surprise"), "protocol", clock.at.utc_us)
        assert changed.versions == 2
        assert store.undo(span.id).label == Label("fear", 2)
        assert store.undo(span.id).label is None
        assert store.undo(span.id).label is None

    def test_trimming_keeps_the_label_and_can_be_undone(self, store: Store, session: str) -> None:
        span = store.add_span(session, SECOND, 4 * SECOND)
        store.label(span.id, Label("other"))
        trimmed = store.trim(span.id, SECOND, 2 * SECOND)
        assert (trimmed.end_us, trimmed.label) == (2 * SECOND, Label("other"))
        assert store.undo(span.id).end_us == 4 * SECOND

    @pytest.mark.parametrize("start, end", [(0, 499_999), (0, 0), (2, 1), (0, 30_000_001), (19_500_001, 20_000_001)])
    def test_spans_that_cannot_be_are_refused(self, store: Store, session: str, start: int, end: int) -> None:
        with pytest.raises(DataInvalid, match="span"):
            store.add_span(session, start, end)
        span = store.add_span(session, 0, SECOND)
        with pytest.raises(DataInvalid, match="span"):
            store.trim(span.id, start, end)

    def test_a_session_without_recordings_has_no_spans(self, store: Store) -> None:
        agree(store)
        with pytest.raises(DataInvalid, match="nothing"):
            store.add_span(store.begin_session("DAVIS346", GEOMETRY), 0, SECOND)

    def test_whatever_is_said_trimmed_and_undone_the_newest_that_was_not_undone_counts(
        self, store: Store, session: str
    ) -> None:
        @settings(max_examples=12)
        @given(st.lists(st.sampled_from(["undo", "trim", *SAYINGS]), max_size=12))
        def check(steps: list[str]) -> None:
            span = store.add_span(session, 0, 10 * SECOND)
            stands: list[tuple[str | None, int]] = [(None, 10 * SECOND)]
            for number, step in enumerate(steps):
                said, end_us = stands[-1]
                if step == "undo":
                    seen = store.undo(span.id)
                    stands = stands[:-1] or stands
                elif step == "trim":
                    end_us = (9 - number % 5) * SECOND
                    seen = store.trim(span.id, 0, end_us)
                    stands.append((said, end_us))
                else:
                    seen = store.label(span.id, Label(step))
                    stands.append((step, end_us))
                assert (seen.label and seen.label.said, seen.end_us) == stands[-1]
            assert len(store.versions(span.id)) == sum(step != "undo" for step in steps)

        check()

    @pytest.mark.parametrize("said, intensity", [("joy", None), ("fear", 0), ("fear", 6)])
    def test_labels_that_are_none_are_refused(self, said: str, intensity: int | None) -> None:
        with pytest.raises(DataInvalid):
            Label(said, intensity)

    def test_the_models_guess_is_kept_apart_and_shown_only_after_the_wearer_chose(
        self, store: Store, session: str
    ) -> None:
        guess = Prediction((0.05, 0.05, 0.5, 0.1, 0.1, 0.1, 0.1), "a" * 64)
        span = store.add_span(session, 0, SECOND, predicted=guess)
        assert span.predicted is None
        labelled = store.label(span.id, Label("surprise"))
        assert labelled.predicted == guess and guess.emotion == "fear"
        assert labelled.label == Label("surprise")

    def test_a_form_that_is_sent_twice_counts_once(self, store: Store, session: str) -> None:
        first = store.add_span(session, 0, SECOND, once="form 1")
        assert store.add_span(session, 0, SECOND, once="form 1") == first
        store.label(first.id, Label("fear"), once="form 2")
        store.label(first.id, Label("fear"), once="form 2")
        store.label(first.id, Label("fear"), once="form 3")
        store.undo(first.id, once="form 4")
        assert store.undo(first.id, once="form 4").label == Label("fear")
        assert len(store.spans(session)) == 1

    def test_spans_are_counted_with_their_session(self, store: Store, session: str) -> None:
        labelled, undone, discarded = (store.add_span(session, start, start + SECOND) for start in (0, 1, 2))
        for span in (labelled, undone, discarded):
            store.label(span.id, Label("skip"))
        store.undo(undone.id)
        store.discard_span(discarded.id)
        assert (store.session(session).spans, store.session(session).labelled) == (2, 1)
        with pytest.raises(DataMissing):
            store.span(discarded.id)

    def test_every_version_and_guess_is_kept_for_the_export(self, store: Store, session: str, clock: Clock) -> None:
        guess = Prediction((0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1), "a" * 64)
        span = store.add_span(session, 0, 2 * SECOND, predicted=guess)
        store.label(span.id, Label("fear", 1))
        store.trim(span.id, 0, SECOND)
        store.undo(span.id)
        said = [(version.end_us, version.label, version.undone) for version in store.versions(span.id)]
        assert said == [(2 * SECOND, Label("fear", 1), False), (SECOND, Label("fear", 1), True)]
        assert store.predictions(session) == {span.id: guess}

    def test_all_can_be_changed_before_it_was_learned(self, store: Store, session: str) -> None:
        assert store.add_span(session, 0, SECOND).change == "everything"


def test_questions_take_no_longer_than_there_are_spans(store: Store, session: str) -> None:
    start_us = store.session(session).starts_us or 0
    questions = (store.sessions, store.spans, store.standing, store.to_learn)

    def steps(spans: int) -> list[int]:
        """Thousands of steps of SQLite's machine for each question, once there are so many spans."""
        for number in range(len(store.spans()), spans):
            span = store.add_span(session, start_us + number, start_us + number + SECOND)
            store.label(span.id, Label("fear"))
        counted = [0]
        raw = store.engine.raw_connection()
        raw.driver_connection.set_progress_handler(lambda: counted.append(counted.pop() + 1), 100)  # type: ignore[union-attr]
        raw.close()
        found = []
        for question in questions:
            counted[0] = 0
            question()
            found.append(counted[0])
        return found

    few, many = steps(30), steps(120)
    assert all(now < 8 * max(before, 10) for before, now in zip(few, many, strict=True)), (few, many)
