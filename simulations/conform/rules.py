"""What an aggregation rule has to be (`server.aggregation.rule.Rule`), tried on a toy model of a few tensors."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mcoe_model.model_file import Tensors, tensors_sha256
from mcoe_model.router_statistics import RouterStatistics
from mcoe_model.streams import stream
from mcoe_model.update import expert_of, manifest, specs_of
from server.aggregation import aggregate, block
from server.aggregation.rule import Contribution, Rule, RuleSettings
from server.spool import open_update, write_update
from simulations.conform.properties import Fresh, Properties, expect

EXPERTS, TOP_K = 4, 2
#: The experts that everybody sends, one that some send, and one that nobody does.
_EVERYBODYS, _SOME, _UNUSED = (0, 1), 2, 3
#: Blocks that are larger than one tile of columns.
_SHAPES: dict[str, tuple[int, ...]] = {
    "mamba.scale": (),
    "moe.router.weight": (EXPERTS, 64),
    "projection.weight": (64, 80),
    **{f"moe.experts.{expert}.weight": (30, 50) for expert in range(EXPERTS)},
}
_MODEL: Tensors = {
    name: np.asarray(stream(0, "conformance model", name).normal(size=shape), np.float32)
    for name, shape in _SHAPES.items()
}
_SETTINGS = RuleSettings()


def _says_what_it_is(fresh: Fresh) -> None:
    rule: Rule = fresh()
    expect(isinstance(rule.name, str) and bool(rule.name), "name must be a text")
    least = rule.least(_SETTINGS)
    expect(type(least) is int and least >= 1, f"least must be a whole number from 1, not {least!r}")
    expect(not rule.needs_reference, "a rule that needs an update of the server's own cannot be simulated")


def _fits(fresh: Fresh) -> None:
    rule: Rule = fresh()
    made = _aggregated(rule, _sent(rule))
    for name, value in _MODEL.items():
        there = f"{made[name].shape} {made[name].dtype}"
        expect(made[name].shape == value.shape and made[name].dtype == value.dtype, f"{name} became {there}")
        expect(bool(np.isfinite(made[name]).all()), f"{name} is not finite")


def _finite(fresh: Fresh) -> None:
    """With one update of zeros, several equal ones and a huge one."""
    rule: Rule = fresh()
    sent = _sent(rule, more=4)
    for name, value in sent[0][1].items():
        sent[1][1][name] = np.zeros_like(value)
        sent[2][1][name] = value.copy()
        sent[3][1][name] = np.full_like(value, 1e15)
    made = _aggregated(rule, sent)
    wrong = [name for name in _MODEL if not np.isfinite(made[name]).all()]
    expect(not wrong, f"an update of zeros, two equal ones and one of 1e15 made {', '.join(wrong)} not finite")


def _any_order(fresh: Fresh) -> None:
    rule: Rule = fresh()
    sent = _sent(rule)
    orders = [sent, sent[::-1], [sent[i] for i in stream(0, "conformance order").permutation(len(sent))]]
    _all_equal([_aggregated(rule, order) for order in orders], "updates that arrived in another order gave other bits")


def _any_chunks(fresh: Fresh) -> None:
    rule: Rule = fresh()
    sent = _sent(rule)
    whole = _aggregated(rule, sent)
    with _small_chunks():
        _all_equal([whole, _aggregated(rule, sent)], "columns that were read in smaller chunks gave other bits")


def _no_memory(fresh: Fresh) -> None:
    rule: Rule = fresh()
    sent = _sent(rule)
    first = _aggregated(rule, sent)
    _aggregated(rule, _sent(rule, seed=1))
    again = [_aggregated(rule, sent), _aggregated(fresh(), sent)]
    _all_equal([first, *again], "the same updates gave other bits after other rounds: a rule must not remember")


def _unused(fresh: Fresh) -> None:
    rule: Rule = fresh()
    if rule.needs_every_expert:
        return
    name = f"moe.experts.{_UNUSED}.weight"
    made = _aggregated(rule, _sent(rule))
    expect(np.array_equal(made[name], _MODEL[name]), "an expert that nobody sent has changed")


def _zeros(fresh: Fresh) -> None:
    rule: Rule = fresh()
    sent = [(one, {name: np.zeros_like(value) for name, value in update.items()}) for one, update in _sent(rule)]
    _all_equal([_MODEL, _aggregated(rule, sent)], "updates of zeros have changed the model")


def _moves(fresh: Fresh) -> None:
    """Whatever everybody sent moves: a rule that yields nothing would pass all else."""
    rule: Rule = fresh()
    made = _aggregated(rule, _sent(rule))
    sent = [name for name in _SHAPES if expert_of(name) in (None, *_EVERYBODYS)]
    still = [name for name in sent if np.array_equal(made[name], _MODEL[name])]
    expect(not still, f"updates that all differ have not moved {', '.join(still)}")


Sent = list[tuple[Contribution, Tensors]]


def _sent(rule: Rule, seed: int = 0, more: int = 0) -> Sent:
    """As many updates as the rule needs and a few more; some of them hold only some of the experts."""
    found = []
    for index in range(rule.least(_SETTINGS) + 4 + more):
        random = stream(seed, "conformance update", index)
        some = _EVERYBODYS if index % 2 else (*_EVERYBODYS, _SOME)
        experts = range(EXPERTS) if rule.needs_every_expert else some
        examples = int(random.integers(4, 40))
        mass = tuple(float(m) for m in examples * random.dirichlet(np.ones(EXPERTS)))
        routed = RouterStatistics(examples, TOP_K, (examples * TOP_K // EXPERTS,) * EXPERTS, mass)
        specs = manifest(specs_of(_MODEL), "head", experts)
        update = {name: np.asarray(random.normal(size=spec.shape), np.float32) for name, spec in specs.items()}
        contribution = Contribution(f"{int(random.integers(1 << 62)):032x}", f"client {index}", examples, routed)
        found.append((contribution, update))
    return found


def _aggregated(rule: Rule, sent: Sent) -> Tensors:
    """The toy after a round of these updates; that the base is left alone is looked at every time."""
    before = tensors_sha256(_MODEL)
    with tempfile.TemporaryDirectory(prefix="mcoe-conformance-") as folder:
        for contribution, update in sent:
            write_update(Path(folder), contribution.update_id, update)
            open_update(Path(folder), contribution.update_id)
        listed = [contribution for contribution, _ in sent]
        trainable = manifest(specs_of(_MODEL), "head", range(EXPERTS))
        made = aggregate(_MODEL, trainable, Path(folder), listed, rule, _SETTINGS)
    expect(tensors_sha256(_MODEL) == before, "the base model has changed in place")
    return made


def _all_equal(models: Sequence[Tensors], otherwise: str) -> None:
    first = models[0]
    for other in models[1:]:
        wrong = [name for name in first if not np.array_equal(first[name], other[name], equal_nan=True)]
        expect(not wrong, f"{otherwise} ({', '.join(wrong)})")


@contextmanager
def _small_chunks() -> Iterator[None]:
    """Blocks are read one tile at a time meanwhile."""
    usual, block.CHUNK_BYTES = block.CHUNK_BYTES, 1
    try:
        yield
    finally:
        block.CHUNK_BYTES = usual


PROPERTIES: Properties = {
    "says its name and how few updates it can work with": _says_what_it_is,
    "keeps shapes and dtypes, and is finite": _fits,
    "is finite for an update of zeros, equal ones and a huge one": _finite,
    "moves every tensor that everybody sent": _moves,
    "leaves the model as it is when nobody changed anything": _zeros,
    "leaves an expert alone that nobody sent": _unused,
    "gives the same bits in any order of arrival": _any_order,
    "gives the same bits in chunks of any size": _any_chunks,
    "remembers nothing from one round to the next": _no_memory,
}
