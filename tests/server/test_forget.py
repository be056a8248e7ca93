"""Leaving and being forgotten: what becomes of rounds under way and of models, and what the receipt says."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from registry_databases import DATABASES, fresh_database
from toy_fleet import CARD, enlist, honest_reply, toy_engine, toy_model

from mcoe_model.errors import DataMissing, DecisionNeeded, McoeError
from mcoe_model.model_file import tensors_sha256
from server.acceptance import Accepted, Rejected, judge
from server.fleet import Fleet
from server.forgetting import run_errands, write_errand
from server.lock import hold
from server.paths import ServerPaths
from server.registry import ABANDONED, PUBLISHED, Transfer, utc_now
from server.registry.models import CANARY, RETIRED
from server.registry.privacy import Receipt
from server.registry.tables import Base
from server.rounds import RoundInProgress
from server.under_way import UnderWay


class Told:
    """A round engine, and the fleet that shares its data folder."""

    def __init__(self, folder: Path, url: str) -> None:
        self.engine = toy_engine(folder, url=url)
        enlist(self.engine, *"abcd")
        self.registry = self.engine.registry
        self.fleet = Fleet(self.registry, ServerPaths(folder), "127.0.0.1:1")
        self.receipts = folder / "receipts"

    def begin(self, clients: str, answering: str | None = None) -> RoundInProgress:
        """A round of these clients, in which they answer honestly."""
        current = self.engine.open(tuple(clients))
        for client in clients if answering is None else answering:
            assert isinstance(self.engine.receive(current, honest_reply(current.expectation, client)), Accepted)
        return current

    def play(self, clients: str) -> str:
        made = self.engine.finish(self.begin(clients))
        assert made is not None
        return made

    def rows(self) -> dict[str, list[Any]]:
        with self.registry.engine.connect() as connection:
            return {
                table.name: sorted(map(str, connection.execute(sa.select(table))))
                for table in Base.metadata.sorted_tables
            }


@pytest.fixture(params=DATABASES)
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Told]:
    with fresh_database(request.param, tmp_path, migrated=True) as url:
        made = Told(tmp_path / "server", url)
        yield made
        made.registry.engine.dispose()


@pytest.fixture
def without_a(tmp_path: Path) -> str:
    """The values of the model that b and c make alone."""
    engine = toy_engine(tmp_path / "without")
    enlist(engine, *"bc")
    current = engine.open(("b", "c"))
    for client in "bc":
        engine.receive(current, honest_reply(current.expectation, client))
    tensors, _ = engine.artifacts.get(str(engine.finish(current)))
    engine.registry.engine.dispose()
    return tensors_sha256(tensors)


def values(told: Told, sha256: str | None) -> str:
    return tensors_sha256(told.engine.artifacts.get(str(sha256))[0])


# -- rounds under way -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("resumed", [False, True])
def test_a_round_that_is_not_published_gives_the_bits_of_the_round_without_the_client(
    told: Told, without_a: str, closed: bool, resumed: bool
) -> None:
    current = told.begin("abc")
    if closed:
        told.registry.close_round(current.row.id)
    receipt = told.fleet.forget("a")
    assert receipt.plain() | {"time": ""} == {
        "client_id": "a", "time": "", "choice": None, "released_again": None, "descendants": [],
        "rounds_without_it": [1], "round_abandoned": None,
        "deleted": {"router_statistics": 4, "privacy_budget": 0, "replies": 1, "members": 1, "check_ins": 1,
                    "canary_clients": 0, "client_evaluations": 0, "consents": 0, "health": 0,
                    "clients": 1},
    }  # fmt: skip
    left = sorted(path.stem for path in told.engine.spool.rglob("*.safetensors"))
    assert left == [contribution.update_id for contribution in told.registry.contributions(current.row.id)]
    again = told.engine.resume() if resumed else current
    assert again is not None
    assert values(told, told.engine.finish(again)) == without_a


@pytest.mark.parametrize("when", ["before the model is stored", "before it is published"])
def test_who_is_forgotten_while_the_round_is_aggregated_is_not_in_what_is_published(
    told: Told, without_a: str, when: str
) -> None:
    engine, put = told.engine, told.engine.artifacts.put

    def forget_once(*anything: Any) -> None:
        if "a" in {client.id for client in told.registry.clients()}:
            told.fleet.forget("a")

    if when == "before it is published":
        engine.artifacts.put = lambda *given: (put(*given), forget_once())[0]  # type: ignore[method-assign]
    else:
        engine.artifacts.put = lambda *given: (forget_once(), put(*given))[1]  # type: ignore[method-assign]
    made = engine.finish(told.begin("abc"))
    assert values(told, made) == without_a
    assert {path.stem for path in engine.artifacts.folder.iterdir()} == {m.sha256 for m in told.registry.models()}


def test_a_model_that_was_not_published_before_a_kill_goes_with_who_is_forgotten_since(
    told: Told, without_a: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    def die(*anything: Any) -> None:
        raise Killed

    engine = told.engine
    others = engine.artifacts.put(toy_model(seed=9), replace(CARD, trained_on={"experiment": "other", "round": 1}))
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(told.registry, "publish_round", die)
        engine.finish(told.begin("abc"))
    assert len(engine.artifacts.stored()) == 3
    told.fleet.forget("a")
    current = engine.resume()
    assert engine.artifacts.stored() == told.registry.named_artifacts() | {others}
    assert current is not None and values(told, engine.finish(current)) == without_a


def test_a_round_of_which_nobody_is_left_is_abandoned(told: Told) -> None:
    current = told.begin("a")
    told.registry.close_round(current.row.id)
    told.fleet.forget("a")
    assert told.engine.finish(current) is None
    (row,) = told.registry.rounds()
    assert row.state == ABANDONED and row.reason and row.reason.startswith("0 of 0")
    assert not list(told.engine.spool.iterdir())


def test_who_is_forgotten_before_it_answered_is_not_awaited_and_its_answer_leaves_nothing(told: Told) -> None:
    current = told.begin("abc", answering="bc")
    assert told.engine.waiting_for(current) == ("a",)
    told.fleet.forget("a")
    assert told.engine.waiting_for(current) == ()
    reply = honest_reply(current.expectation, "a")
    assert told.engine.receive(current, reply) == Rejected("the round is over, or its client has left the fleet")
    assert len(list(told.engine.spool.rglob("*.safetensors"))) == 2
    assert "a" not in {reply.client_id for reply in told.registry.replies(current.row.id)}


def test_who_withdrew_is_not_awaited(told: Told) -> None:
    current = told.begin("abc", answering="bc")
    told.fleet.withdraw("a")
    assert told.engine.waiting_for(current) == ()


@pytest.mark.parametrize("closed", [False, True])
def test_a_round_that_is_not_published_goes_on_without_who_withdrew(told: Told, without_a: str, closed: bool) -> None:
    current = told.begin("abc")
    if closed:
        told.registry.close_round(current.row.id)
    told.fleet.withdraw("a")
    left = {path.stem for path in told.engine.spool.rglob("*.safetensors")}
    assert left == {contribution.update_id for contribution in told.registry.contributions(current.row.id)}
    assert told.registry.router_statistics(current.row.id).keys() == {"b", "c"}
    gone = told.registry.replies(current.row.id)[0]
    assert (gone.client_id, gone.accepted, gone.reason) == ("a", False, "the client has withdrawn")
    assert {gone.update_id, gone.examples, gone.norm, gone.loss_before, gone.loss_after, gone.seconds} == {None}
    again = told.engine.resume()
    assert again is not None
    assert values(told, told.engine.finish(again)) == without_a
    assert told.registry.client("a").state == "withdrawn"


@pytest.mark.parametrize("when", ["before the model is stored", "before it is published"])
def test_who_withdraws_while_the_round_is_aggregated_is_not_in_what_is_published(
    told: Told, without_a: str, when: str
) -> None:
    engine, place = told.engine, "put" if when == "before the model is stored" else "publish_round"
    owner: Any = engine.artifacts if place == "put" else told.registry
    real = getattr(owner, place)

    def withdraw_once(*given: Any) -> Any:
        if told.registry.client("a").state == "enrolled":
            told.fleet.withdraw("a")
        return real(*given)

    setattr(owner, place, withdraw_once)
    made = engine.finish(told.begin("abc"))
    assert values(told, made) == without_a
    assert {path.stem for path in engine.artifacts.folder.iterdir()} == {m.sha256 for m in told.registry.models()}


def test_a_closed_round_with_too_few_left_for_its_rule_is_abandoned(told: Told) -> None:
    told.engine.settings = replace(told.engine.settings, rule="median")
    before = told.registry.newest_model()
    current = told.begin("abc")
    told.registry.close_round(current.row.id)
    told.fleet.withdraw("b")
    assert told.engine.finish(current) is None
    (row,) = told.registry.rounds()
    assert (row.state, row.reason) == (ABANDONED, "2 of 3 replies were accepted, 3 are needed")
    assert told.registry.newest_model() == before


def test_a_reply_of_who_withdrew_leaves_nothing(told: Told) -> None:
    current = told.begin("abc", answering="bc")
    told.fleet.withdraw("a")
    reply = honest_reply(current.expectation, "a")
    assert told.engine.receive(current, reply) == Rejected("the round is over, or its client has left the fleet")
    assert len(list(told.engine.spool.rglob("*.safetensors"))) == 2


def test_what_was_published_before_keeps_what_it_says_of_who_withdrew(told: Told) -> None:
    told.play("abc")
    told.fleet.withdraw("a")
    assert [reply.accepted for reply in told.registry.replies(told.registry.rounds()[0].id)] == [True] * 3


def test_updates_that_were_kept_for_replay_go_too(told: Told) -> None:
    told.engine.settings = type(told.engine.settings)(**{**vars(told.engine.settings), "keep_updates": True})
    told.play("ab")
    assert len(list(told.engine.spool.rglob("*.safetensors"))) == 2
    told.fleet.forget("a", "keep")
    assert len(list(told.engine.spool.rglob("*.safetensors"))) == 1


# -- models ---------------------------------------------------------------------------------------------------


def test_without_a_choice_nothing_is_deleted_where_models_descend(told: Told) -> None:
    told.play("ab")
    before = told.rows()
    with pytest.raises(DecisionNeeded, match=r"version 2; say --rollback-before.*version 1 again.*--keep"):
        told.fleet.forget("a")
    assert told.rows() == before
    assert not told.receipts.exists()


def test_keeping_leaves_the_models_as_they_are(told: Told) -> None:
    made = told.play("ab")
    receipt = told.fleet.forget("a", "keep")
    assert (receipt.choice, receipt.released) == ("keep", None)
    assert [model.version for model in receipt.descendants] == [2]
    assert told.registry.newest_model() == made


def test_rolling_back_releases_the_newest_model_without_the_clients_updates(told: Told) -> None:
    untouched = told.play("b")
    told.play("ab")
    told.play("bc")  # not a's, but made from what a had a part in
    receipt = told.fleet.forget("a", "rollback-before")
    assert [model.version for model in receipt.descendants] == [3, 4]
    assert (receipt.choice, receipt.released) == ("rollback-before", 5)
    assert told.registry.model(5).sha256 == told.registry.newest_model() == untouched
    current = told.begin("bc")
    assert current.row.base_sha256 == untouched


def test_a_round_that_is_based_on_such_a_model_ends_with_the_rollback(told: Told) -> None:
    told.play("ab")
    current = told.begin("abc", answering="b")
    receipt = told.fleet.forget("a", "rollback-before")
    assert receipt.abandoned == 2
    assert told.engine.waiting_for(current) == ()
    assert told.engine.receive(current, honest_reply(current.expectation, "c")) == Rejected("the round is closed")
    assert told.engine.finish(current) is None
    assert [row.state for row in told.registry.rounds()] == [PUBLISHED, ABANDONED]
    assert told.registry.newest_model() == told.registry.model(1).sha256
    assert not list(told.engine.spool.iterdir())


def test_a_canary_of_such_a_model_is_retired_by_the_rollback(told: Told) -> None:
    made = told.play("ab")
    told.registry.set_model_state(made, CANARY)
    receipt = told.fleet.forget("a", "rollback-before")
    assert receipt.released is None  # the newest released one is none of them
    assert told.registry.model(2).state == RETIRED


def test_a_rollback_that_has_nowhere_to_go_deletes_nothing(told: Told) -> None:
    first = told.registry.model(1).sha256
    told.play("ab")
    before = told.rows()
    told.engine.artifacts.path(first).unlink()
    with pytest.raises(DataMissing, match="version 1 is gone"):
        told.fleet.forget("a", "rollback-before")
    assert told.rows() == before
    told.engine.artifacts.put(toy_model(), CARD)
    told.registry.set_model_state(first, "held")
    with pytest.raises(DataMissing, match="every model descends"):
        told.fleet.forget("a", "rollback-before")
    assert len(told.registry.clients()) == 4


def test_no_rounds_filter_names_who_is_forgotten(told: Told) -> None:
    told.engine.settings = replace(told.engine.settings, cohort_filter="a,b, c*")
    told.play("bc")
    told.fleet.forget("a")
    assert told.registry.rounds()[0].settings["cohort_filter"] == "(forgotten), b, c*"


# -- the receipt ----------------------------------------------------------------------------------------------


def test_the_receipt_is_issued_for_the_owner_alone_and_the_audit_names_nobody(told: Told) -> None:
    told.play("ab")
    receipt = told.fleet.forget("a", "rollback-before")
    (file,) = told.receipts.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    issued = json.loads(file.read_text())
    assert issued == receipt.plain()
    assert (issued["client_id"], issued["choice"], issued["released_again"]) == ("a", "rollback-before", 3)
    assert [model["version"] for model in issued["descendants"]] == [2]
    (event,) = [event for event in told.registry.events(100) if event.kind == "client forgotten"]
    assert event.client_id is None and "rollback-before" in event.detail
    assert "a" not in {event.client_id for event in told.registry.events(100)}


def test_what_names_the_client_while_a_coordinator_is_away_is_taken_out(told: Told) -> None:
    paths, current = told.fleet.paths, told.begin("ab", answering="")
    file = paths.under_way_of(told.registry.experiment)
    sent = UnderWay(file, 7, current.row.spool_name)
    sent.update({"message to a": "a", "message to b": "b"})
    told.registry.say_waiting("1 clients are there, 2 are needed (present: with new clips a)")
    told.fleet.forget("a")
    assert dict(UnderWay(file, 7, current.row.spool_name)) == {"message to b": "b"}
    assert told.registry.waiting() is None


def test_a_running_coordinator_keeps_its_own_file(told: Told) -> None:
    paths, current = told.fleet.paths, told.begin("ab", answering="")
    file = paths.under_way_of(told.registry.experiment)
    UnderWay(file, 7, current.row.spool_name)["message to a"] = "a"
    with hold(paths.lock_of(told.registry.experiment), ""):
        told.fleet.forget("a")
    assert dict(UnderWay(file, 7, current.row.spool_name)) == {"message to a": "a"}


@pytest.mark.parametrize("step", ["write_json", "hold", "compact", "scrub"])
def test_what_could_not_be_cleared_at_once_is_cleared_later(
    told: Told, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at any step after the rows are gone, as by a kill or a locked file."""
    current = told.begin("abc", answering="ab")
    spool = told.engine.spool / current.row.spool_name
    assert len(list(spool.iterdir())) == 2

    def locked(*_: object) -> None:
        raise McoeError("locked")

    with monkeypatch.context() as patch:
        patch.setattr(f"server.forgetting.{step}", locked)
        if step == "write_json":  # the errand itself cannot be written: then nothing is deleted
            with pytest.raises(McoeError, match="locked"):
                told.fleet.forget("a")
            assert {client.id for client in told.registry.clients()} == set("abcd")
            return
        told.fleet.forget("a")
    assert len(list((told.fleet.paths.errands).iterdir())) == 1
    run_errands(told.fleet.paths, told.registry.engine)
    assert not list(told.fleet.paths.errands.iterdir())
    assert len(list(spool.iterdir())) == 1 and len(list(told.receipts.iterdir())) == 1


def test_an_errand_of_a_client_that_was_not_deleted_after_all_does_nothing(told: Told) -> None:
    receipt = Receipt("a", utc_now(), {}, (), None, None, (), None, ("0" * 32,))
    write_errand(told.fleet.paths, told.registry.experiment, None, receipt)
    (errand,) = told.fleet.paths.errands.iterdir()
    run_errands(told.fleet.paths, told.registry.engine)
    assert errand.exists()  # the transaction may be about to commit
    os.utime(errand, (0, 0))
    run_errands(told.fleet.paths, told.registry.engine)
    assert not errand.exists() and not told.receipts.exists()
    assert {client.id for client in told.registry.clients()} == set("abcd")


def test_a_reply_that_is_judged_while_its_round_ends_leaves_nothing(told: Told) -> None:
    current = told.begin("abc", answering="a")
    reply = honest_reply(current.expectation, "b")
    verdict = judge(reply, current.expectation)
    told.registry.abandon_round(current.row.id, "ended by others")
    assert not told.registry.record_reply(current.row.id, "b", verdict, Transfer(1, 1))
    assert [stored.client_id for stored in told.registry.replies(current.row.id)] == ["a"]


def test_an_event_names_nobody_who_was_forgotten_meanwhile(told: Told) -> None:
    told.fleet.forget("a")
    told.registry.audit("evaluation rejected", "a", "not finite")
    told.registry.audit("evaluation rejected", "b", "not finite")
    assert [event.client_id for event in told.registry.events(2)] == ["b", None]
