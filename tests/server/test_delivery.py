"""What a client is told of the updates that it keeps."""

from __future__ import annotations

from pathlib import Path

from toy_fleet import enlist, honest_reply, toy_engine

from mcoe_model.protocol import CheckIn, News
from server.delivery import news_for
from server.rounds import RoundEngine


def round_of(engine: RoundEngine, *spoilt: str) -> dict[str, str]:
    """A round of a, b and c; returns the ids of their updates."""
    current = engine.open(("a", "b", "c"))
    ids = {}
    for client in "abc":
        reply = honest_reply(current.expectation, client, scale=float("nan") if client in spoilt else 0.01)
        engine.receive(current, reply)
        ids[client] = str(reply.meta["update_id"])
    engine.finish(current)
    return ids


def test_accepted_updates_are_named_and_unknown_ones_are_kept(tmp_path: Path) -> None:
    engine = toy_engine(tmp_path)
    enlist(engine, *"abc")
    assert news_for(engine.registry, CheckIn("a", 10, ("0" * 32,))) == News()
    first, second = round_of(engine)["a"], round_of(engine)["a"]
    assert news_for(engine.registry, CheckIn("a", 10, (first, "0" * 32, second))) == News((first, second))


def test_the_newest_is_acknowledged_though_no_check_in_listed_it(tmp_path: Path) -> None:
    engine = toy_engine(tmp_path)
    enlist(engine, *"abc")
    ids = round_of(engine)
    assert news_for(engine.registry, CheckIn("a", 10)) == News((ids["a"],))


def test_what_is_kept_after_a_rejection_is_dropped(tmp_path: Path) -> None:
    engine = toy_engine(tmp_path)
    enlist(engine, *"abc")
    first = round_of(engine)["a"]
    spoilt = round_of(engine, "a")["a"]
    assert news_for(engine.registry, CheckIn("a", 10, (first, spoilt))) == News((first,), (spoilt,))


def test_what_a_client_keeps_of_an_older_generation_is_dropped(tmp_path: Path) -> None:
    engine = toy_engine(tmp_path)
    enlist(engine, *"abc")
    taken = round_of(engine)["a"]
    old, late = str(engine.registry.newest_model()), "0" * 32
    assert news_for(engine.registry, CheckIn("a", 10, (taken, late), old)) == News((taken,))
    engine.registry.import_model("f" * 64, "another generation")
    assert news_for(engine.registry, CheckIn("a", 10, (taken, late), old)) == News((taken,), (late,))
    assert news_for(engine.registry, CheckIn("a", 10, (late,), "f" * 64)) == News((taken,))
    assert news_for(engine.registry, CheckIn("a", 10, (late,), "unheard of")) == News((taken,))


def test_another_clients_update_is_none_of_its_business(tmp_path: Path) -> None:
    engine = toy_engine(tmp_path)
    enlist(engine, *"abc")
    ids = round_of(engine)
    assert ids["b"] not in news_for(engine.registry, CheckIn("a", 10, (ids["b"],))).accepted
