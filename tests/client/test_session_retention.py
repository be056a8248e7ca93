"""How long recordings stay, what is in the way, what is learned, and what may be asked when."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from session_times import GEOMETRY, RULES, TRAINING, Clock, agree, opened, record

from client.sessions import Label, PromptRules, RetentionRules, Store, StoreRules
from client.sessions.times import DAY_US
from mcoe_model.errors import ConsentMissing, DataInvalid, DataMissing, DiskFull, LabelFirst

SECOND = 1_000_000
PLENTY = 10**12


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "memory"


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with opened(tmp_path, clock=clock) as made:
        agree(made)
        yield made


def labelled(store: Store, memory: Path, said: str = "fear", size: int = 100) -> str:
    session = record(store, memory, bytes(size))
    store.label(store.add_span(session, 0, 5 * SECOND).id, Label(said))
    return session


def learn(store: Store) -> None:
    assert store.mark_learned([(one.span, one.label_id) for one in store.to_learn().lessons], TRAINING)


class TestTime:
    def test_unlearned_recordings_go_after_fourteen_days_and_learned_ones_after_seven(
        self, store: Store, memory: Path, clock: Clock
    ) -> None:
        kept, learned = record(store, memory, b"a"), labelled(store, memory)
        clock.turn(24)
        learn(store)
        assert store.session(learned).raw_until_us == clock.at.utc_us + 7 * DAY_US
        clock.turn(7 * 24 - 0.1)
        assert store.delete_due() == 0
        clock.turn(0.2)
        assert store.delete_due() == 1
        assert (store.session(learned).raw, store.session(kept).raw) == (False, True)
        clock.turn(6 * 24)
        assert store.delete_due() == 1 and not store.session(kept).raw

    def test_learning_late_does_not_prolong_it(self, store: Store, memory: Path, clock: Clock) -> None:
        session = labelled(store, memory)
        before = store.session(session).raw_until_us
        clock.turn(12 * 24)
        learn(store)
        assert store.session(session).raw_until_us == before

    def test_the_wearer_can_keep_it_fourteen_days_more(self, store: Store, memory: Path, clock: Clock) -> None:
        session = labelled(store, memory)
        until = store.keep_more(session)
        assert until == clock.at.utc_us + 28 * DAY_US
        learn(store)
        assert (store.session(session).raw_until_us, store.session(session).kept) == (until, True)

    def test_what_a_session_that_runs_has_is_not_touched(self, store: Store, memory: Path, clock: Clock) -> None:
        session = record(store, memory, b"a", end=False)
        clock.turn(15 * 24)
        assert store.delete_due() == 0
        with pytest.raises(DataInvalid, match="being recorded"):
            store.delete_raw(session)

    def test_a_clock_that_was_wrong_costs_no_day(self, store: Store, memory: Path, clock: Clock) -> None:
        clock.at = replace(clock.at, utc_us=0, clock_state="unsynchronised")
        session = record(store, memory, b"a")
        clock.at = Clock().at
        assert store.delete_due() == 0
        clock.turn(14 * 24 + 1)
        assert store.delete_due() == 1 and not store.session(session).raw


class TestDeletion:
    def test_the_key_and_the_files_are_gone_and_the_history_stays(
        self, store: Store, memory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        session = labelled(store, memory)
        segment = store.segments(session)[0]
        database = tmp_path / "store.sqlite"
        with sqlite3.connect(database) as connection:
            (wrapped,) = connection.execute("SELECT wrapped_key FROM sessions").fetchone()
        connection.close()
        assert wrapped in b"".join(path.read_bytes() for path in tmp_path.glob("store.sqlite*"))
        copy = tmp_path / "store.sqlite.before-0000"
        copy.write_bytes(wrapped)
        with caplog.at_level(logging.INFO):
            store.delete_raw(session)
        assert wrapped not in b"".join(path.read_bytes() for path in tmp_path.glob("store.sqlite*"))
        assert not copy.exists()
        assert list((tmp_path / "recordings").iterdir()) == []
        with pytest.raises(DataMissing):
            b"".join(store.open_segment(segment))
        with pytest.raises(DataMissing):
            store.keep_more(session)
        found = store.session(session)
        assert (found.raw, found.bytes, found.labelled, found.ends_us) == (False, 0, 1, 10 * SECOND)
        assert store.used_bytes() == 0 and store.segments(session) == []
        (line,) = [record.getMessage() for record in caplog.records]
        assert "1 files" in line and session not in line and str(tmp_path) not in line

    @pytest.mark.parametrize("way", ["delete_raw", "discard"])
    def test_no_key_that_was_deleted_stays_in_the_file(
        self, store: Store, memory: Path, tmp_path: Path, way: str
    ) -> None:
        sessions = [record(store, memory, b"a") for _ in range(12)]
        with sqlite3.connect(tmp_path / "store.sqlite") as connection:
            keys = dict(connection.execute("SELECT id, wrapped_key FROM sessions").fetchall())
        connection.close()
        gone = sessions[1::3]
        for session in gone:
            getattr(store, way)(session)
        written = b"".join(path.read_bytes() for path in tmp_path.glob("store.sqlite*"))
        assert [session for session in sessions if keys[session] not in written] == gone

    def test_a_locked_store_deletes_too(self, store: Store, memory: Path) -> None:
        session = record(store, memory, b"a")
        store.lock()
        store.delete_raw(session)
        assert not store.session(session).raw

    def test_discarding_leaves_nothing_of_a_session(self, store: Store, memory: Path, tmp_path: Path) -> None:
        session = labelled(store, memory)
        store.add_marker("stimulus", "film", session_id=session)
        assert store.ask(store.spans(session)[0].id) is not None
        store.discard(session)
        assert (store.sessions(), store.spans(), store.markers(), store.prompts()) == ([], [], [], [])
        assert list((tmp_path / "recordings").iterdir()) == []
        plain = memory / "late.aedat4"
        plain.write_bytes(b"late")
        with pytest.raises(DataMissing):
            store.add_segment(session, 1, plain, 0, SECOND, events=1, frames=1)
        assert not plain.exists()


def quota(size: int) -> StoreRules:
    return replace(RULES, retention=RetentionRules(quota_bytes=size, floor_bytes=1000))


class TestRoom:
    def test_learned_recordings_make_room_oldest_first_and_others_never(
        self, tmp_path: Path, memory: Path, clock: Clock
    ) -> None:
        with opened(tmp_path, rules=quota(1500), clock=clock) as store:
            agree(store)
            waits = record(store, memory, bytes(900))
            clock.turn(1)
            first = labelled(store, memory, size=400)
            clock.turn(1)
            second = labelled(store, memory, size=400)
            assert store.delete_due() == 0
            learn(store)
            assert store.due() == [first]
            store.delete_due()
            assert [store.session(found).raw for found in (waits, first, second)] == [True, False, True]

    def test_what_the_wearer_keeps_is_not_in_the_way(self, tmp_path: Path, memory: Path, clock: Clock) -> None:
        with opened(tmp_path, rules=quota(100), clock=clock) as store:
            agree(store)
            session = labelled(store, memory)
            learn(store)
            store.keep_more(session)
            assert store.due() == []

    def test_recording_is_refused_and_what_to_free_is_named(self, tmp_path: Path, memory: Path, clock: Clock) -> None:
        with opened(tmp_path, rules=quota(1000), clock=clock) as store:
            agree(store)
            assert store.refuses_to_record(PLENTY) is None
            waits = record(store, memory, bytes(1200))
            refused = store.refuses_to_record(PLENTY)
            assert isinstance(refused, LabelFirst) and waits in str(refused) and "2026-11-21" in str(refused)
            dealt_with = labelled(store, memory, size=1200)
            refused = store.refuses_to_record(PLENTY)
            assert isinstance(refused, DiskFull)
            assert str(refused).index(dealt_with) < str(refused).index(waits)
            store.delete_raw(dealt_with)
            store.delete_raw(waits)
            assert store.refuses_to_record(PLENTY) is None

    def test_what_is_being_recorded_counts(self, tmp_path: Path, memory: Path, clock: Clock) -> None:
        with opened(tmp_path, rules=quota(1000), clock=clock) as store:
            agree(store)
            learned = labelled(store, memory, size=400)
            learn(store)
            record(store, memory, bytes(500), end=False)
            assert store.due() == [] and store.refuses_to_record(PLENTY) is None
            record(store, memory, bytes(600), end=False)
            assert store.due() == [learned] and learned in str(store.refuses_to_record(PLENTY))
            store.delete_due()
            assert "stop the one" in str(store.refuses_to_record(PLENTY))

    def test_markers_of_no_session_go_when_a_recording_would(self, store: Store, memory: Path, clock: Clock) -> None:
        session = record(store, memory, b"a")
        store.add_marker("stimulus", "film", session_id=session)
        store.add_marker("stimulus", "before any recording")
        clock.turn(13.9 * 24)
        store.delete_due()
        assert len(store.markers()) == 2
        clock.turn(0.2 * 24)
        store.delete_due()
        assert [marker.text for marker in store.markers()] == ["film"]

    def test_a_disk_that_is_nearly_full_refuses_too(self, tmp_path: Path, memory: Path, clock: Clock) -> None:
        with opened(tmp_path, rules=quota(PLENTY), clock=clock) as store:
            agree(store)
            assert "elsewhere" in str(store.refuses_to_record(999))
            session = record(store, memory, b"a")
            assert session in str(store.refuses_to_record(999))
            assert store.refuses_to_record(1000) is None


class TestLessons:
    def test_only_emotions_of_sound_sessions_are_learned_and_once(self, store: Store, memory: Path) -> None:
        session = record(store, memory, b"a")
        spans = [store.add_span(session, number * SECOND, (number + 1) * SECOND) for number in range(4)]
        for span, said in zip(spans, ("fear", "skip", "other"), strict=False):
            store.label(span.id, Label(said))
        flawed = labelled(store, memory)
        store.flag(flawed, "out-of-sync")
        deleted = labelled(store, memory)
        store.delete_raw(deleted)
        found = store.to_learn()
        assert [(lesson.span, lesson.emotion) for lesson in found.lessons] == [(spans[0].id, "fear")]
        assert (found.contradicted, found.flawed) == (0, 1), "the wearer hears of what is never learned"
        learn(store)
        assert store.to_learn().lessons == ()
        assert store.span(spans[0].id).change == "next learning"
        assert store.session(session).learned_us is None  # one span waits for its label

    def test_another_label_is_learned_anew(self, store: Store, memory: Path) -> None:
        session = labelled(store, memory)
        learn(store)
        span = store.spans(session)[0]
        store.label(span.id, Label("surprise"))
        assert [lesson.emotion for lesson in store.to_learn().lessons] == ["surprise"]
        store.delete_raw(session)
        assert store.span(span.id).change == "history"

    def test_of_labels_that_contradict_each_other_the_latest_counts(self, store: Store, memory: Path) -> None:
        session = labelled(store, memory, "fear")
        store.label(store.add_span(session, 4 * SECOND, 8 * SECOND).id, Label("surprise"))
        store.label(store.add_span(session, 8 * SECOND, 9 * SECOND).id, Label("neutral"))
        found = store.to_learn()
        assert [lesson.emotion for lesson in found.lessons] == ["surprise", "neutral"]
        assert found.contradicted == 1

    def test_what_can_be_learned_anew_waits_and_the_rest_is_lost(
        self, store: Store, memory: Path, clock: Clock
    ) -> None:
        here, gone, unread = (labelled(store, memory) for _ in range(3))
        clips = [(one.span, one.label_id) for one in store.to_learn().lessons]
        learn(store)
        until_us = store.session(here).raw_until_us
        store.delete_raw(gone)
        assert store.lost() == 0
        clock.turn(24)
        assert store.learn_anew([*clips, (99, 99)]) == 2
        assert [one.session for one in store.to_learn().lessons] == [here, unread]
        assert (store.lost(), store.session(here).learned_us) == (1, None)
        assert store.spans(here)[0].change == "next learning"  # which had seen it, and so had others
        store.flag(unread, "unreadable")
        assert store.lost() == 2
        learn(store)
        assert store.session(here).raw_until_us == until_us and store.session(here).learned_us == clock.at.utc_us
        assert store.learn_anew(clips) == 1 and store.lost() == 2
        store.label(store.spans(gone)[0].id, Label("skip"))
        assert store.lost() == 1

    def test_learning_needs_its_consent(self, store: Store, memory: Path) -> None:
        labelled(store, memory)
        store.withdraw("learning")
        with pytest.raises(ConsentMissing, match="learning"):
            store.to_learn()
        with pytest.raises(ConsentMissing, match="learning"):
            store.learn_anew([])

    def test_labels_are_learned_while_their_consent_is_in_force(self, store: Store, memory: Path) -> None:
        labelled(store, memory)
        (lesson,) = store.to_learn().lessons
        store.withdraw("labels")
        with pytest.raises(ConsentMissing, match="labels"):
            store.to_learn()
        agree(store, "labels")
        assert store.to_learn().lessons == (lesson,)


class TestPrompts:
    def spans(self, store: Store, memory: Path, count: int) -> list[int]:
        session = record(store, memory, b"a")
        return [store.add_span(session, number * SECOND, (number + 1) * SECOND).id for number in range(count)]

    def test_a_question_waits_is_shown_and_answered_with_its_delay(
        self, store: Store, memory: Path, clock: Clock
    ) -> None:
        (span,) = self.spans(store, memory, 1)
        asked = store.ask(span)
        assert store.ask(span) is None
        assert [prompt.shown_us for prompt in store.waiting_prompts()] == [None]
        assert [prompt.shown_us for prompt in store.show_prompts()] == [clock.at.utc_us]
        clock.turn(1)
        assert store.label(span, Label("fear")).source == "prompt"
        (prompt,) = store.prompts()
        assert (prompt.id, prompt.ended, prompt.answered_us) == (asked, "answered", clock.at.utc_us)
        assert prompt.delay_us == 3600 * SECOND - SECOND  # the span ended a second after its session began
        assert store.waiting_prompts() == []

    def test_so_many_a_day_and_no_more(self, store: Store, memory: Path, clock: Clock) -> None:
        spans = self.spans(store, memory, 8)
        assert sum(store.ask(span) is not None for span in spans[:7]) == PromptRules().per_day == 6
        clock.turn(11)  # 23:00 of the same day in Berlin
        assert store.ask(spans[7]) is None
        clock.turn(2)
        assert store.ask(spans[7]) is not None

    def test_none_in_the_quiet_time_and_none_too_late(self, store: Store, memory: Path, clock: Clock) -> None:
        clock.turn(8)  # 20:00
        store.ask(self.spans(store, memory, 1)[0])
        clock.turn(2)
        assert store.waiting_prompts() == []
        clock.turn(-0.1)
        assert len(store.waiting_prompts()) == 1
        clock.turn(12)
        assert store.waiting_prompts() == [] and [prompt.ended for prompt in store.prompts()] == ["expired"]

    def test_a_question_can_be_put_off(self, store: Store, memory: Path, clock: Clock) -> None:
        store.ask(self.spans(store, memory, 1)[0])
        (prompt,) = store.show_prompts()
        store.snooze(prompt.id)
        assert store.waiting_prompts() == []
        clock.turn(0.5)
        assert [waiting.id for waiting in store.waiting_prompts()] == [prompt.id]
        clock.turn(12)
        assert [prompt.ended for prompt in store.prompts()] == [None], "who only reads ends none"
        assert store.waiting_prompts() == [] and [prompt.ended for prompt in store.prompts()] == ["expired"]
        with pytest.raises(DataMissing):
            store.snooze(prompt.id)

    def test_a_clock_that_is_set_makes_no_question_older(self, store: Store, memory: Path, clock: Clock) -> None:
        clock.turn(-4)  # 8:00
        right, three_days_us = clock.at, 3 * DAY_US
        clock.at = replace(right, utc_us=right.utc_us - three_days_us, clock_state="unsynchronised")
        first, second = self.spans(store, memory, 2)
        store.ask(first)
        clock.turn(1)
        store.snooze(store.show_prompts()[0].id)
        clock.at = replace(clock.at, utc_us=clock.at.utc_us + three_days_us, clock_state="synchronised")
        store.ask(second)
        assert [prompt.span for prompt in store.waiting_prompts()] == [second]
        clock.turn(0.6)  # what was put off comes again
        before, after = store.waiting_prompts()
        hour_us = 3600 * SECOND
        assert (before.event_us, before.asked_us) == (right.utc_us + SECOND, right.utc_us)
        assert (before.shown_us, before.expires_us) == (right.utc_us + hour_us, right.utc_us + 12 * hour_us)
        assert (after.event_us, after.asked_us) == (right.utc_us + 2 * SECOND, right.utc_us + hour_us)
        clock.turn(10.3)
        assert len(store.waiting_prompts()) == 2
        store.label(second, Label("fear"))
        clock.turn(0.2)
        assert store.waiting_prompts() == []
        found = [(prompt.ended, prompt.delay_us) for prompt in store.prompts()]
        assert found == [("expired", None), ("answered", None)]

    def test_of_a_question_of_an_earlier_boot_without_a_clock_the_hours_begin_anew(
        self, store: Store, memory: Path, clock: Clock
    ) -> None:
        clock.turn(-4)
        right = replace(clock.at, monotonic_ns=10**15)
        clock.at = replace(right, utc_us=0, clock_state="unsynchronised")
        store.ask(self.spans(store, memory, 1)[0])
        clock.at = replace(right, monotonic_ns=1)
        assert [prompt.expires_us for prompt in store.waiting_prompts()] == [right.utc_us + 12 * 3600 * SECOND]

    def test_an_answer_before_its_question_has_no_delay(self, store: Store, memory: Path, clock: Clock) -> None:
        (span,) = self.spans(store, memory, 1)
        store.ask(span)
        clock.at = replace(clock.at, utc_us=clock.at.utc_us - DAY_US)  # it woke in the past
        store.label(span, Label("fear"))
        assert [prompt.delay_us for prompt in store.prompts()] == [None]

    def test_a_span_that_is_discarded_is_not_asked_about(self, store: Store, memory: Path) -> None:
        (span,) = self.spans(store, memory, 1)
        store.ask(span)
        store.discard_span(span)
        assert store.waiting_prompts() == []


class TestMarkers:
    def test_markers_are_kept_with_their_time_and_session(self, store: Store, memory: Path, clock: Clock) -> None:
        session = record(store, memory, b"a", end=False)
        store.add_marker("stimulus", "film 3 begins", session_id=session, camera_us=1234)
        store.add_marker("wearer", "a noise")
        found = [(marker.text, marker.camera_us) for marker in store.markers()]
        assert found == [("film 3 begins", 1234), ("a noise", None)]
        assert [found.utc_us for found in store.markers(session)] == [clock.at.utc_us]

    @pytest.mark.parametrize("text", ["", "  ", "x" * 201])
    def test_markers_without_words_or_with_too_many_are_refused(self, store: Store, text: str) -> None:
        with pytest.raises(DataInvalid, match="marker"):
            store.add_marker("wearer", text)

    def test_markers_of_unknown_sessions_are_refused(self, store: Store) -> None:
        with pytest.raises(DataMissing):
            store.add_marker("wearer", "x", session_id="abc")


def test_a_clock_that_was_set_is_written_down(store: Store, clock: Clock) -> None:
    session = store.begin_session("DAVIS346", GEOMETRY)
    store.add_clock(session, 1000, clock.at)
    clock.turn(5)
    store.add_clock(session, 2000, clock.at, stepped=True)
    rows = [(reading.camera_us, reading.stepped, reading.zone) for reading in store.clocks(session)]
    assert rows == [(1000, False, "+01:00"), (2000, True, "+01:00")]
