"""What a client may send and what happens to the rest: every server-side row of the list of faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_fleet import EXPERTS, expectation, honest_reply

from mcoe_model.protocol import update_id
from mcoe_model.update import block_norms
from server.acceptance import Accepted, Rejected, Reply, judge

ROUTER = "moe.router.weight"


def changed(record: Any, **values: Any) -> dict[str, Any]:
    """A record with some values replaced; a double underscore stands for a hyphen."""
    return {**record, **{key.replace("__", "-"): value for key, value in values.items()}}


def with_meta(reply: Reply, **values: Any) -> Reply:
    return replace(reply, meta=changed(reply.meta, **values))


def with_report(reply: Reply, **values: Any) -> Reply:
    return replace(reply, report=changed(reply.report, **values))


def with_tensor(reply: Reply, name: str, value: Any) -> Reply:
    return replace(reply, update=reply.update | {name: value})


def without(reply: Reply, name: str) -> Reply:
    return replace(reply, update={key: value for key, value in reply.update.items() if key != name})


def spoilt(reply: Reply, value: float) -> Reply:
    tensor = reply.update[ROUTER].copy()
    tensor[1, 2] = value
    return with_tensor(reply, ROUTER, tensor)


def test_an_honest_reply_is_accepted_with_its_norm() -> None:
    reply = honest_reply(expectation(), "a")
    verdict = judge(reply, expectation())
    assert isinstance(verdict, Accepted)
    assert verdict.norm == block_norms(reply.update)[None] > 0
    assert (verdict.report.examples, verdict.meta.experts_sent) == (10, (0, 2))


def test_no_expert_at_all_may_be_sent() -> None:
    assert isinstance(judge(honest_reply(expectation(), "a", experts=()), expectation()), Accepted)


def test_in_full_mode_the_backbones_are_part_of_the_update() -> None:
    expected = expectation(train_mode="full")
    reply = honest_reply(expected, "a")
    assert "backbones.frame.weight" in reply.update
    assert isinstance(judge(reply, expected), Accepted)
    assert isinstance(judge(reply, expectation()), Rejected)


FAULTS: dict[str, tuple[Callable[[Reply], Reply], str]] = {
    "NaN": (lambda r: spoilt(r, np.nan), "not finite"),
    "another client's update id": (
        lambda r: with_meta(r, update_id=update_id("b", "base", ["clip"])),
        "not its client's",
    ),
    "Inf": (lambda r: spoilt(r, np.inf), "not finite"),
    "-Inf": (lambda r: spoilt(r, -np.inf), "not finite"),
    "missing tensor": (lambda r: without(r, ROUTER), "lacks 1 tensors and has 0 unknown"),
    "extra tensor": (lambda r: with_tensor(r, "spare", r.update[ROUTER]), "lacks 0 tensors and has 1 unknown"),
    "renamed tensor": (
        lambda r: with_tensor(without(r, ROUTER), "moe.router.weights", r.update[ROUTER]),
        "lacks 1 tensors and has 1 unknown",
    ),
    "tensor of the backbones": (
        lambda r: with_tensor(r, "backbones.frame.weight", np.zeros((3, 4), np.float32)),
        "unknown",
    ),
    "dead tensor": (lambda r: with_tensor(r, "dead.weight", np.zeros((2, 2), np.float32)), "unknown"),
    "no tensors": (lambda r: replace(r, update={}), "lacks"),
    "wrong shape": (lambda r: with_tensor(r, ROUTER, np.zeros((EXPERTS, 6), np.float32)), "expected float32"),
    "transposed": (lambda r: with_tensor(r, ROUTER, np.zeros((5, EXPERTS), np.float32)), "expected float32"),
    "broadcastable shape": (lambda r: with_tensor(r, ROUTER, np.zeros((1, 5), np.float32)), "expected float32"),
    "one value for a scalar": (lambda r: with_tensor(r, "mamba.scale", np.zeros(1, np.float32)), "expected float32"),
    "float64": (lambda r: with_tensor(r, ROUTER, r.update[ROUTER].astype(np.float64)), "is float64"),
    "float16": (lambda r: with_tensor(r, ROUTER, r.update[ROUTER].astype(np.float16)), "is float16"),
    "int8": (lambda r: with_tensor(r, ROUTER, r.update[ROUTER].astype(np.int8)), "is int8"),
    "complex": (lambda r: with_tensor(r, ROUTER, r.update[ROUTER].astype(np.complex64)), "is complex64"),
    "0 examples": (lambda r: with_report(r, examples=0), "cannot be believed"),
    "-60 examples": (lambda r: with_report(r, examples=-60), "cannot be believed"),
    "1e15 examples": (lambda r: with_report(r, examples=10**15), "cannot be believed"),
    "fractional examples": (lambda r: with_report(r, examples=10.5), "TrainReport.examples holds a float"),
    "examples as a float": (lambda r: with_report(r, examples=10.0), "TrainReport.examples holds a float"),
    "infinite examples": (lambda r: with_report(r, examples=np.inf), "TrainReport.examples holds a float"),
    "examples beyond 64 bits": (lambda r: with_report(r, examples=10**400), "TrainReport.examples holds a int"),
    "a round beyond what Python prints": (lambda r: with_meta(r, round_number=10**5000), "round_number holds a int"),
    "a loss beyond any float": (lambda r: with_report(r, loss_before=10**400), "loss_before holds a int"),
    "a gate mass beyond any float": (lambda r: with_report(r, router__gate__mass=[10**400, 0, 0, 0]), "not a number"),
    "routed examples beyond 64 bits": (lambda r: with_report(r, router__examples=10**400), "whole number"),
    "examples as a truth value": (lambda r: with_report(r, examples=True), "TrainReport.examples holds a bool"),
    "more examples than were routed": (lambda r: with_report(r, examples=1000), "the report says 1000"),
    "a lying count throughout": (
        lambda r: with_report(r, examples=1000, router__examples=1000),
        "routed counts sum to 20, not to 1000 x 2",
    ),
    "loss that is NaN": (lambda r: with_report(r, loss_after=np.nan), "not finite"),
    "infinite seconds": (lambda r: with_report(r, seconds=np.inf), "not finite"),
    "negative seconds": (lambda r: with_report(r, seconds=-1.0), "negative duration"),
    "statistics of too few experts": (
        lambda r: with_report(r, router__routed=[10, 10], router__gate__mass=[5.0, 5.0]),
        "router statistics of 2/2 experts",
    ),
    "statistics of different lengths": (lambda r: with_report(r, router__gate__mass=[10.0]), "4/1 experts"),
    "negative routed count": (lambda r: with_report(r, router__routed=[10, 10, 5, -5]), "negative or larger"),
    "routed more often than there are clips": (lambda r: with_report(r, router__routed=[20, 0, 0, 0]), "larger"),
    "routed counts that do not add up": (lambda r: with_report(r, router__routed=[5, 5, 5, 4]), "sum to 19"),
    "negative gate mass": (lambda r: with_report(r, router__gate__mass=[12.0, -2.0, 0.0, 0.0]), "gate masses"),
    "gate mass that is NaN": (lambda r: with_report(r, router__gate__mass=[np.nan, 0.0, 0.0, 10.0]), "gate masses"),
    "infinite gate mass": (lambda r: with_report(r, router__gate__mass=[np.inf, 0.0, 0.0, 0.0]), "gate masses"),
    "gate masses that do not add up": (lambda r: with_report(r, router__gate__mass=[9.0, 0.0, 0.0, 0.0]), "sum to"),
    "another top k": (lambda r: with_report(r, router__top__k=1, router__routed=[4, 3, 2, 1]), "top 1"),
    "fractional routed count": (lambda r: with_report(r, router__routed=[5.5, 4.5, 5.0, 5.0]), "whole number"),
    "no router statistics": (lambda r: replace(r, report={"examples": 10}), "incomplete"),
    "an empty report": (lambda r: replace(r, report={}), "incomplete"),
    "an empty meta record": (lambda r: replace(r, meta={}), "UpdateMeta: missing"),
    "an unknown field": (lambda r: with_meta(r, code="import os"), "unknown ['code']"),
    "another client's name": (lambda r: with_meta(r, client_id="b"), "names another client"),
    "an old round": (lambda r: with_meta(r, round_number=0), "for round 0, this is round 1"),
    "an old base": (lambda r: with_meta(r, base_sha256="a" * 64), "based on another model"),
    "another generation": (lambda r: with_meta(r, generation="f" * 16), "of generation ffff"),
    "another train mode": (lambda r: with_meta(r, train_mode="full"), "this round trains head"),
    "an unknown train mode": (lambda r: with_meta(r, train_mode="all"), "unknown train mode"),
    "another encoding": (lambda r: with_meta(r, encoding="pickle"), "unknown encoding"),
    "another protocol": (lambda r: with_meta(r, protocol_version=99), "protocol 99"),
    "an expert beyond the model": (lambda r: with_meta(r, experts_sent=[0, 2, EXPERTS]), "beyond the model's 4"),
    "an expert that is negative": (lambda r: with_meta(r, experts_sent=[-1, 0, 2]), "ascending"),
    "an expert twice": (lambda r: with_meta(r, experts_sent=[0, 0, 2]), "ascending"),
    "an expert declared, its tensors absent": (lambda r: with_meta(r, experts_sent=[0, 1, 2]), "lacks 1 tensors"),
    "an expert's tensors, not declared": (lambda r: with_meta(r, experts_sent=[0]), "has 1 unknown"),
    "an update id that is a path": (lambda r: with_meta(r, update_id="../" + "a" * 29), "32 hex digits"),
    "an update id that is too short": (lambda r: with_meta(r, update_id="abc"), "32 hex digits"),
    "a client nobody asked": (lambda r: replace(r, client_id="mallory"), "not in this round's cohort"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_reply_is_rejected_with_its_reason(fault: str) -> None:
    spoil, reason = FAULTS[fault]
    verdict = judge(spoil(honest_reply(expectation(), "a")), expectation())
    assert isinstance(verdict, Rejected)
    assert reason in verdict.reason


def test_an_update_beyond_the_norm_bound_is_rejected_and_one_on_it_accepted() -> None:
    reply = honest_reply(expectation(), "a")
    norm = max(value for value in block_norms(reply.update).values())
    assert isinstance(judge(reply, expectation(norm_bound=norm)), Accepted)
    verdict = judge(reply, expectation(norm_bound=norm * 0.999))
    assert isinstance(verdict, Rejected)
    assert "above this round's bound" in verdict.reason


def test_an_experts_norm_is_bounded_by_itself() -> None:
    reply = honest_reply(expectation(), "a", experts=(0, 2))
    bound = 2 * max(block_norms(reply.update).values())
    loud = with_tensor(reply, "moe.experts.2.weight", np.full((5, 3), bound, np.float32))
    verdict = judge(loud, expectation(norm_bound=bound))
    assert isinstance(verdict, Rejected) and verdict.reason.startswith("expert 2's norm")


def test_huge_finite_values_do_not_overflow_the_norm() -> None:
    reply = honest_reply(expectation(), "a")
    huge = with_tensor(reply, ROUTER, np.full((EXPERTS, 5), 3e38, np.float32))
    verdict = judge(huge, expectation(norm_bound=1.0))
    assert isinstance(verdict, Rejected)
    assert "above this round's bound" in verdict.reason


def test_a_reason_is_one_printable_line_whatever_the_client_wrote() -> None:
    reply = with_meta(honest_reply(expectation(), "a"), generation="x\x00\n\x1b[31m" + "y" * 5000)
    verdict = judge(reply, expectation())
    assert isinstance(verdict, Rejected)
    assert verdict.reason.isprintable()
    assert len(verdict.reason) <= 300


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**5000), 2**63, 2**63 - 1]),
    st.floats(),
    st.text(max_size=40),
    st.binary(max_size=8),
    st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=3), st.just(10**400)), max_size=6),
)
META = dict(honest_reply(expectation(), "a").meta)
REPORT = dict(honest_reply(expectation(), "a").report)
arrays = st.builds(
    lambda shape, dtype: np.zeros(shape, dtype),
    st.sampled_from([(), (1,), (4, 5), (5, 3), (0,)]),
    st.sampled_from(["float32", "float64", ">f4", "int8", "bool", "U3", "complex64", "M8[s]"]),
)


def mutated(record: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The record with an arbitrary value in one of its fields, in a field of another name, or nowhere."""
    field = st.one_of(st.sampled_from(sorted(record)), st.text(max_size=5))
    return st.one_of(st.just(record), st.builds(lambda name, value: record | {name: value}, field, plain))


@settings(max_examples=300)
@given(
    client=st.sampled_from(["a", "mallory", ""]),
    meta=st.one_of(mutated(META), st.dictionaries(st.text(max_size=5), plain, max_size=3)),
    report=st.one_of(mutated(REPORT), st.dictionaries(st.text(max_size=5), plain, max_size=3)),
    tensors=st.dictionaries(st.sampled_from([ROUTER, "spare", "mamba.scale"]), arrays, max_size=2),
)
def test_judging_never_raises(client: str, meta: dict[str, Any], report: dict[str, Any], tensors: Any) -> None:
    update = honest_reply(expectation(), "a").update | tensors
    verdict = judge(Reply(client, update, meta, report), expectation(norm_bound=1e6))
    assert isinstance(verdict, Accepted | Rejected)
    if isinstance(verdict, Accepted):
        assert (client, meta["client_id"]) == ("a", "a")
