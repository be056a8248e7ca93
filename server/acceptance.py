"""Is this reply fit to be aggregated? A pure judgement: `Accepted` or `Rejected` with the reason that is stored.

Flower's own strategies let one bad reply end a run or poison the model; here a rejected reply costs its sender's
contribution and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mcoe_model.model_file import Tensors
from mcoe_model.protocol import MAX_EXAMPLES, ProtocolError, TrainReport, UpdateMeta, owns_update
from mcoe_model.update import ENCODING, TensorSpec, TrainMode, block_norms, manifest

#: Letters of a reason that are kept.
REASON_LENGTH = 300


@dataclass(frozen=True)
class Reply:
    """What came back from a client, as read from the message and not yet believed."""

    client_id: str
    update: Tensors
    meta: Mapping[str, object]
    report: Mapping[str, object]


@dataclass(frozen=True)
class Expectation:
    """What a reply of this round must be like. ``norm_bound`` holds for the shared block and for each expert's.

    ``welcome``: earlier bases whose updates are still taken, with the staleness of each in versions.
    """

    round_number: int
    base_sha256: str
    generation: str
    train_mode: TrainMode
    model: Mapping[str, TensorSpec]
    experts: int
    top_k: int
    cohort: frozenset[str]
    norm_bound: float | None
    max_examples_believed: int = MAX_EXAMPLES
    all_experts: bool = False
    welcome: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Accepted:
    """The reply is fit; its meta data and report are now typed and checked. ``norm`` is the shared block's.

    ``staleness``: how many versions lie between the update's base and the round's.
    """

    meta: UpdateMeta
    report: TrainReport
    norm: float
    staleness: int = 0


@dataclass(frozen=True)
class Rejected:
    """The reply is not aggregated, for this reason: one printable line, since a client may have worded a part of it."""

    reason: str

    def __post_init__(self) -> None:
        printable = "".join(letter if letter.isprintable() else "?" for letter in self.reason[:REASON_LENGTH])
        object.__setattr__(self, "reason", printable)


def judge(reply: Reply, expected: Expectation) -> Accepted | Rejected:
    """Judge one reply. Never raises for anything a client can send."""
    if reply.client_id not in expected.cohort:
        return Rejected("client is not in this round's cohort")
    try:
        meta = UpdateMeta.from_record(reply.meta)
        report = TrainReport.from_record(reply.report)
    except ProtocolError as fault:
        return Rejected(str(fault))
    reason = _wrong_target(reply, meta, expected) or _wrong_tensors(reply.update, meta, expected)
    if reason is None:
        reason = _wrong_report(report, expected)
    if reason is not None:
        return Rejected(reason)
    norms = block_norms(reply.update)
    for expert, norm in norms.items():
        if expected.norm_bound is not None and norm > expected.norm_bound:
            named = "update" if expert is None else f"expert {expert}'s"
            return Rejected(f"{named} norm {norm:.4g} is above this round's bound {expected.norm_bound:.4g}")
    return Accepted(meta, report, norms[None], expected.welcome.get(meta.base_sha256, 0))


def _wrong_target(reply: Reply, meta: UpdateMeta, expected: Expectation) -> str | None:
    if meta.client_id != reply.client_id:
        return "update names another client than the one that sent it"
    if not owns_update(meta.client_id, meta.update_id):
        return "update has an id that is not its client's"
    if meta.round_number != expected.round_number:
        return f"update is for round {meta.round_number}, this is round {expected.round_number}"
    if meta.base_sha256 not in (expected.base_sha256, *expected.welcome):
        return "update is based on another model than this round's"
    if meta.generation != expected.generation:
        return f"update is of generation {meta.generation}, the model of {expected.generation}"
    if meta.train_mode != expected.train_mode:
        return f"update trained {meta.train_mode}, this round trains {expected.train_mode}"
    if meta.encoding != ENCODING:
        return f"unknown encoding {meta.encoding!r}"
    if any(expert >= expected.experts for expert in meta.experts_sent):
        return f"update declares an expert beyond the model's {expected.experts}"
    if expected.all_experts and len(meta.experts_sent) != expected.experts:
        return f"update has {len(meta.experts_sent)} of {expected.experts} experts, this round asks for all"
    return None


def _wrong_tensors(update: Tensors, meta: UpdateMeta, expected: Expectation) -> str | None:
    wanted = manifest(expected.model, expected.train_mode, meta.experts_sent)
    missing, extra = sorted(wanted.keys() - update.keys()), sorted(update.keys() - wanted.keys())
    if missing or extra:
        named = (missing or extra)[0]
        return f"update lacks {len(missing)} tensors and has {len(extra)} unknown ones (first: {named[:80]})"
    for name, spec in wanted.items():
        array = update[name]
        if array.shape != spec.shape or array.dtype.name != spec.dtype:
            return f"tensor {name} is {array.dtype.name}{array.shape}, expected {spec.dtype}{spec.shape}"
    for name in wanted:
        if not np.isfinite(update[name]).all():
            return f"tensor {name} holds values that are not finite"
    return None


def _wrong_report(report: TrainReport, expected: Expectation) -> str | None:
    if not 1 <= report.examples <= expected.max_examples_believed:
        return f"report of {report.examples} examples cannot be believed"
    if report.seconds < 0:
        return "report of a negative duration"
    faults = report.router.faults(examples=report.examples, experts=expected.experts, top_k=expected.top_k)
    return faults[0] if faults else None
