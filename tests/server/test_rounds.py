"""The round engine on a real SQLite file and real folders."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_fleet import CARD, EXPERTS, enlist, honest_reply, toy_engine, toy_model

from mcoe_model.errors import DataMissing, ModelInvalid, SettingsError
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.model_file import tensors_sha256
from mcoe_model.protocol import CheckIn, News
from mcoe_model.update import block_norms
from server.acceptance import Accepted, Rejected
from server.aggregation import RULES
from server.delivery import news_for
from server.registry import ABANDONED, CLOSED, PUBLISHED
from server.registry.models import CANDIDATE, RELEASED
from server.rounds import NORM_FACTOR, RoundEngine, RoundSettings
from server.spool import spool_path


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[RoundEngine]:
    made = toy_engine(tmp_path)
    enlist(made, "a", "b", "c", "d")
    yield made
    made.registry.engine.dispose()


def play(engine: RoundEngine, clients: str = "abc", *, order: str | None = None, scale: float = 0.01) -> str | None:
    """One whole round in which every client answers honestly, in this order."""
    current = engine.open(tuple(clients))
    for client in order or clients:
        assert isinstance(engine.receive(current, honest_reply(current.expectation, client, scale=scale)), Accepted)
    return engine.finish(current)


def state(engine: RoundEngine) -> list[str]:
    return [row.state for row in engine.registry.rounds()]


def spools(engine: RoundEngine) -> list[Path]:
    return sorted(engine.spool.glob("round-*"))


def test_a_round_is_opened_received_finished_and_published(engine: RoundEngine) -> None:
    first = engine.registry.newest_model()
    current = engine.open(("c", "a", "b"))
    assert current.row.cohort == engine.waiting_for(current) == ("a", "b", "c")
    assert (current.task.round_number, current.task.base_sha256) == (1, first)
    assert current.task.payload_sha256 == tensors_sha256(current.payload)
    for index, client in enumerate("bca"):
        engine.receive(current, honest_reply(current.expectation, client))
        assert len(engine.waiting_for(current)) == 2 - index
    sha256 = engine.finish(current)
    assert sha256 is not None and sha256 != first
    assert engine.registry.newest_model() == sha256
    tensors, card = engine.artifacts.get(sha256)
    assert card.parent_sha256 == first
    assert card.trained_on == {"experiment": "toy", "round": 1, "clients": 3}
    moved = {name for name, value in toy_model().items() if not np.array_equal(tensors[name], value)}
    experts = {"moe.experts.0.weight", "moe.experts.2.weight"}
    assert moved == {"mamba.scale", "moe.router.weight", "projection.weight"} | experts
    assert state(engine) == [PUBLISHED]
    assert spools(engine) == []


def test_what_travels_to_a_client_is_the_head_or_all_but_never_the_dead(tmp_path: Path, engine: RoundEngine) -> None:
    head = set(engine.open(("a",)).payload)
    full_engine = toy_engine(tmp_path / "full", train_mode="full")
    enlist(full_engine, "a")
    full = set(full_engine.open(("a",)).payload)
    assert head == {name for name in toy_model() if not name.startswith(("backbones.", "dead."))}
    assert full == {name for name in toy_model() if not name.startswith("dead.")}


def test_the_first_model_is_kept_when_the_experiment_starts_again(engine: RoundEngine) -> None:
    sha256 = play(engine)
    _, card = engine.artifacts.get(str(sha256))
    assert engine.start_from(toy_model(seed=5), card) == sha256


def test_an_experiment_without_a_model_cannot_open_a_round(engine: RoundEngine) -> None:
    engine.registry.experiment = "another"
    with pytest.raises(ModelInvalid):
        engine.open(("a",))


def test_a_missed_quorum_abandons_the_round_and_the_next_attempt_works(engine: RoundEngine) -> None:
    before = engine.registry.newest_model()
    current = engine.open(("a", "b", "c"))
    engine.receive(current, honest_reply(current.expectation, "a"))
    engine.no_reply(current, "b", "no reply")
    assert engine.finish(current) is None
    row = engine.registry.rounds()[0]
    assert (row.state, row.reason) == (ABANDONED, "1 of 3 replies were accepted, 2 are needed")
    assert engine.registry.newest_model() == before
    assert engine.registry.last_published() == 0
    assert spools(engine) == []
    assert engine.registry.failed_attempts() == 1
    again = engine.open(("a", "b", "c"))
    assert (again.row.number, again.row.attempt) == (1, 2)
    for client in "abc":
        engine.receive(again, honest_reply(again.expectation, client))
    assert engine.finish(again) is not None
    assert engine.registry.failed_attempts() == 0


def test_the_quorum_is_a_share_rounded_up_and_at_least_one(tmp_path: Path) -> None:
    for quorum, clients, needed in ((0.5, 3, 2), (0.01, 3, 1), (1.0, 4, 4), (0.28, 25, 7)):
        names = tuple(f"{index:03}" for index in range(clients))
        engine = toy_engine(tmp_path / str(quorum), quorum=quorum)
        enlist(engine, *names)
        for accepted in (needed - 1, needed):
            current = engine.open(names)
            for client in names[:accepted]:
                engine.receive(current, honest_reply(current.expectation, client))
            assert (engine.finish(current) is None) == (accepted < needed)


def test_a_second_reply_of_a_client_changes_nothing(engine: RoundEngine) -> None:
    once = play(engine)
    other = toy_engine(engine.spool.parent / "other")
    enlist(other, "a", "b", "c")
    current = other.open(("a", "b", "c"))
    for client in "aabcab":
        other.receive(current, honest_reply(current.expectation, client))
    forged = honest_reply(current.expectation, "a", scale=1.0)
    assert isinstance(other.receive(current, forged), Rejected)
    assert [reply.accepted for reply in other.registry.replies(current.row.id)] == [True] * 3
    assert other.finish(current) == once


def test_a_reply_that_was_rejected_cannot_be_mended_in_the_same_round(engine: RoundEngine) -> None:
    current = engine.open(("a", "b"))
    spoilt = honest_reply(current.expectation, "a", scale=float("nan"))
    assert isinstance(engine.receive(current, spoilt), Rejected)
    assert isinstance(engine.receive(current, honest_reply(current.expectation, "a")), Rejected)
    stored = engine.registry.replies(current.row.id)[0]
    assert (stored.accepted, stored.update_id, stored.examples) == (False, None, None)
    assert "not finite" in str(stored.reason)
    assert stored.bytes_up > 0
    assert engine.registry.router_statistics(current.row.id) == {}


def test_a_client_cannot_take_the_place_of_anothers_update(engine: RoundEngine) -> None:
    honest = play(engine, "ab")
    other = toy_engine(engine.spool.parent / "other")
    enlist(other, "a", "b", "mallory")
    current = other.open(("a", "b", "mallory"))
    forged = honest_reply(current.expectation, "mallory", scale=0.1)
    stolen = honest_reply(current.expectation, "a").meta["update_id"]
    verdict = other.receive(current, replace(forged, meta={**forged.meta, "update_id": stolen}))
    assert isinstance(verdict, Rejected)
    assert "not its client's" in verdict.reason
    for client in "ab":
        assert isinstance(other.receive(current, honest_reply(current.expectation, client)), Accepted)
    assert other.finish(current) is not None
    assert tensors_sha256(other.artifacts.get(str(other.registry.newest_model()))[0]) == tensors_sha256(
        engine.artifacts.get(str(honest))[0]
    )


def test_what_a_killed_process_left_in_the_spool_is_replaced_by_what_is_judged(engine: RoundEngine) -> None:
    expected = play(engine)
    other = toy_engine(engine.spool.parent / "other")
    enlist(other, "a", "b", "c")
    current = other.open(("a", "b", "c"))
    left = honest_reply(current.expectation, "a", scale=0.5, experts=(0, 1))
    other.receive(current, left)
    saved = {path: path.read_bytes() for path in spools(other)[0].iterdir()}
    other.registry.abandon_round(current.row.id, "test")
    again = other.open(("a", "b", "c"))
    folder = other.spool / f"round-1-{again.row.attempt}"
    folder.mkdir()
    for path, content in saved.items():
        (folder / path.name).write_bytes(content)
    for client in "abc":
        other.receive(again, honest_reply(again.expectation, client))
    assert other.finish(again) == expected


def test_a_client_that_was_not_asked_leaves_no_trace(engine: RoundEngine) -> None:
    current = engine.open(("a", "b"))
    assert isinstance(engine.receive(current, honest_reply(current.expectation, "c")), Rejected)
    engine.no_reply(current, "c", "no reply")
    assert engine.registry.replies(current.row.id) == []
    assert spools(engine) == []


def test_a_closed_round_takes_no_more_replies(engine: RoundEngine, tmp_path: Path) -> None:
    """The set of updates is fixed when the round is closed, also for a process that resumes it."""
    expected = play(engine, "ab")
    other = toy_engine(tmp_path / "other")
    enlist(other, "a", "b", "c")
    current = other.open(("a", "b", "c"))
    for client in "ab":
        other.receive(current, honest_reply(current.expectation, client))
    other.registry.close_round(current.row.id)
    resumed = other.resume()
    assert resumed is not None and resumed.row.state == CLOSED
    assert other.waiting_for(resumed) == ()
    verdict = other.receive(resumed, honest_reply(resumed.expectation, "c"))
    assert verdict == Rejected("the round is closed")
    other.no_reply(resumed, "c", "no reply")
    assert len(other.registry.replies(resumed.row.id)) == 2
    found, wanted = other.finish(resumed), engine.artifacts.get(str(expected))[0]
    assert tensors_sha256(other.artifacts.get(str(found))[0]) == tensors_sha256(wanted)


def test_a_late_reply_to_a_finished_round_changes_nothing(engine: RoundEngine) -> None:
    current = engine.open(("a", "b", "c"))
    for client in "ab":
        engine.receive(current, honest_reply(current.expectation, client))
    sha256 = engine.finish(current)
    assert engine.receive(current, honest_reply(current.expectation, "c")) == Rejected("the round is closed")
    assert (state(engine), engine.registry.newest_model(), spools(engine)) == ([PUBLISHED], sha256, [])


def test_resume_finds_nothing_in_a_finished_experiment_and_removes_old_spools(engine: RoundEngine) -> None:
    play(engine)
    (engine.spool / "round-1-1").mkdir(parents=True)
    assert engine.resume() is None
    assert spools(engine) == []


def test_resume_goes_on_with_the_open_round(engine: RoundEngine) -> None:
    current = engine.open(("a", "b", "c"))
    engine.receive(current, honest_reply(current.expectation, "b"))
    resumed = engine.resume()
    assert resumed is not None
    assert resumed.row == current.row and resumed.task == current.task
    assert engine.waiting_for(resumed) == ("a", "c")
    assert len(list(spools(engine)[0].iterdir())) == 1


@pytest.mark.parametrize("rule", [name for name, rule in RULES.items() if not rule.needs_reference])
def test_the_order_in_which_replies_arrive_changes_no_bit(rule: str, tmp_path: Path) -> None:
    found = set()
    for order in ("abcde", "edcba", "cadbe"):
        engine = toy_engine(tmp_path / order, rule=rule)
        enlist(engine, *"abcde")
        found.add((play(engine, "abcde", order=order), play(engine, "abcde")))
        engine.registry.engine.dispose()
    assert len(found) == 1


def test_the_norm_bound_comes_from_earlier_rounds_and_is_stored(engine: RoundEngine) -> None:
    first = engine.open(("a", "b", "c"))
    norms = []
    for client in "abc":
        reply = honest_reply(first.expectation, client)
        engine.receive(first, reply)
        norms.append(block_norms(reply.update)[None])
    base = toy_model()
    shared = [base[name].reshape(-1) for name in ("mamba.scale", "moe.router.weight", "projection.weight")]
    assert first.row.norm_bound == pytest.approx(np.linalg.norm(np.concatenate(shared).astype(np.float64)), rel=1e-12)
    engine.finish(first)
    second = engine.open(("a", "b", "c"))
    bound = second.expectation.norm_bound
    assert bound == second.row.norm_bound == NORM_FACTOR * sorted(norms)[1]
    attack = honest_reply(second.expectation, "a", scale=0.01 * 50)
    assert isinstance(engine.receive(second, attack), Rejected)
    resumed = engine.resume()
    assert resumed is not None and resumed.expectation.norm_bound == bound


def test_updates_of_zero_do_not_set_a_bound_that_rejects_everything(engine: RoundEngine) -> None:
    assert play(engine, scale=0.0) is not None
    assert play(engine, scale=0.01) is not None


def test_the_expert_load_of_the_last_round_travels_with_the_next_task(engine: RoundEngine) -> None:
    first = engine.open(("a", "b", "c"))
    assert first.task.expert_load == ()
    counts = np.zeros(EXPERTS)
    for client in "abc":
        verdict = engine.receive(first, honest_reply(first.expectation, client))
        assert isinstance(verdict, Accepted)
        counts += verdict.report.router.routed
    engine.finish(first)
    np.testing.assert_allclose(engine.open(("a",)).task.expert_load, counts / counts.sum(), rtol=1e-12)


def test_a_model_whose_bytes_changed_is_not_trained_on(engine: RoundEngine) -> None:
    sha256 = str(play(engine))
    path = engine.artifacts.path(sha256)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ModelInvalid, match="no longer has the bytes"):
        engine.open(("a",))
    assert engine.registry.unfinished_round() is None
    path.write_bytes(whole)
    engine.open(("a",))
    path.unlink()
    with pytest.raises(DataMissing):
        engine.resume()


@pytest.mark.parametrize("damage", ["gone", "all gone", "torn", "not an update"])
@pytest.mark.parametrize("resumed", [False, True])
def test_an_accepted_update_that_is_lost_ends_the_round_and_the_next_attempt_takes_it_again(
    engine: RoundEngine, tmp_path: Path, damage: str, resumed: bool
) -> None:
    undisturbed = toy_engine(tmp_path / "undisturbed")
    enlist(undisturbed, *"abc")
    expected = play(undisturbed)
    current = engine.open(("a", "b", "c"))
    replies = [honest_reply(current.expectation, client) for client in "abc"]
    for reply in replies:
        engine.receive(current, reply)
    path = spool_path(spools(engine)[0], str(replies[1].meta["update_id"]))
    if damage == "gone":
        path.unlink()
    elif damage == "all gone":
        shutil.rmtree(path.parent)
    else:
        path.write_bytes(path.read_bytes()[:-1] if damage == "torn" else b"nothing")
    if resumed:
        engine.registry.close_round(current.row.id)
        found = engine.resume()
        assert found is not None
        current = found
    before = engine.registry.newest_model()
    assert engine.finish(current) is None
    row = engine.registry.rounds()[0]
    lost = 3 if damage == "all gone" else 1
    assert row.state == ABANDONED and str(row.reason).endswith(f"from clients that still keep them: {lost} of 3")
    assert (engine.registry.newest_model(), spools(engine)) == (before, [])
    listed = CheckIn("b", 10, (str(replies[1].meta["update_id"]),))
    assert news_for(engine.registry, listed) == News(), "its client keeps it"
    again = engine.open(("a", "b", "c"))
    for reply in replies:
        assert isinstance(engine.receive(again, reply), Accepted)
    assert engine.finish(again) == expected
    assert news_for(engine.registry, listed).accepted == listed.outbox


def test_a_rule_that_needs_more_updates_than_came_abandons_the_round(tmp_path: Path) -> None:
    engine = toy_engine(tmp_path, rule="krum")
    enlist(engine, *"abcd")
    assert play(engine, "abcd") is None
    assert engine.registry.rounds()[0].reason == "4 of 4 replies were accepted, 5 are needed"


def test_a_new_model_that_is_a_candidate_is_not_built_on_until_it_is_released(tmp_path: Path) -> None:
    engine = toy_engine(tmp_path)
    engine.new_state = CANDIDATE
    enlist(engine, *"abc")
    first = engine.registry.newest_model()
    made = play(engine)
    assert [model.state for model in engine.registry.models()] == ["released", "candidate"]
    assert engine.registry.newest_model() == first
    engine.registry.decide(2, CANDIDATE, RELEASED, "it is good")
    assert engine.registry.newest_model() == made


def test_a_round_is_replayed_with_its_kept_updates_and_its_own_settings(tmp_path: Path) -> None:
    kept = toy_engine(tmp_path)
    enlist(kept, *"abc")
    kept.settings = replace(kept.settings, keep_updates=True)
    published = play(kept)
    kept.settings = replace(kept.settings, rule="median", keep_updates=False)
    play(kept)
    assert kept.resume() is None
    assert kept.replay(1) == (published, published)
    with pytest.raises(DataMissing, match="not kept"):
        kept.replay(2)
    with pytest.raises(DataMissing, match="not published"):
        kept.replay(3)


def test_a_round_goes_on_with_the_settings_it_was_opened_with(tmp_path: Path) -> None:
    engine = toy_engine(tmp_path)
    enlist(engine, *"abc")
    opened = engine.open(("a", "b", "c"))
    engine.settings = replace(engine.settings, rule="median", quorum=1.0, train_mode="full")
    resumed = engine.resume()
    assert resumed is not None and resumed.task == opened.task and resumed.settings == opened.settings


def test_round_settings_name_every_fault() -> None:
    with pytest.raises(SettingsError) as caught:
        RoundSettings(FineTuneSettings(), train_mode="all", rule="loudest", quorum=float("nan"))  # type: ignore[arg-type]
    assert len(caught.value.faults) == 3


def test_ten_rounds_leave_the_file_handles_as_they_were(engine: RoundEngine) -> None:
    play(engine)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        play(engine)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert state(engine) == [PUBLISHED] * 11


def test_a_new_generation_learns_nothing_of_the_rounds_of_the_old_one(engine: RoundEngine) -> None:
    play(engine)
    usual = engine.open(tuple("abc"))
    assert usual.task.expert_load and usual.row.norm_bound
    other = replace(CARD, generation=replace(CARD.generation, top_k=1))
    engine.registry.import_model(engine.artifacts.put(toy_model(seed=1), other), other.generation.id)
    assert engine.finish(usual) is None
    assert engine.registry.rounds()[-1].reason == "a model of another generation was released"
    fresh = engine.open(tuple("abc"))
    assert (fresh.task.generation, fresh.expectation.top_k) == (other.generation.id, 1)
    assert fresh.task.expert_load == ()
    assert fresh.row.norm_bound != usual.row.norm_bound
    trained = {name: toy_model(seed=1)[name] for name in ("mamba.scale", "moe.router.weight", "projection.weight")}
    assert fresh.row.norm_bound == block_norms(trained)[None]
    late = honest_reply(usual.expectation, "a")
    refused = engine.receive(fresh, replace(late, meta=dict(late.meta) | {"round_number": fresh.row.number}))
    assert isinstance(refused, Rejected)
