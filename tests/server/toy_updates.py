"""For the tests of aggregation: updates of the toy that are drawn, not trained, and their way through the spool."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from toy_fleet import EXPERTS, toy_model

from mcoe_model.model_file import Tensors
from mcoe_model.router_statistics import RouterStatistics
from mcoe_model.streams import stream
from mcoe_model.update import expert_of, manifest, specs_of
from server.aggregation import RULES, aggregate
from server.aggregation.rule import Contribution, RuleSettings
from server.spool import open_update, write_update

TRAINABLE = manifest(specs_of(toy_model()), "head", range(EXPERTS))
SHARED = [name for name in TRAINABLE if expert_of(name) is None]

Sent = list[tuple[Contribution, Tensors]]


def sent(
    experts: Sequence[Sequence[int]],
    examples: Sequence[int] | None = None,
    masses: Sequence[Sequence[float]] | None = None,
) -> Sent:
    """One contribution for each entry: the experts it sent, its examples, its gate mass for every expert."""
    found = []
    for index, chosen in enumerate(experts):
        random = stream(index, "contribution")
        count = 10 if examples is None else examples[index]
        mass = tuple(masses[index]) if masses else tuple(float(m) for m in count * random.dirichlet(np.ones(EXPERTS)))
        router = RouterStatistics(count, 2, (count // 2,) * EXPERTS, mass)
        update_id = f"{int(random.integers(1 << 62)):032x}"
        specs = manifest(specs_of(toy_model()), "head", chosen)
        update = {name: np.asarray(random.normal(size=spec.shape), np.float32) for name, spec in specs.items()}
        found.append((Contribution(update_id, f"client {index}", count, router), update))
    return found


def combine(
    folder: Path,
    contributions: Sent,
    rule: str,
    rule_settings: RuleSettings | None = None,
    *,
    base: Tensors | None = None,
    reference: Tensors | None = None,
) -> Tensors:
    """Spool the updates and aggregate them on the toy.

    A rule that needs the server's own update, and is given none, gets the mean of what was sent.
    """
    for contribution, update in contributions:
        write_update(folder, contribution.update_id, update)
    spooled = None
    if RULES[rule].needs_reference:
        own = mean_update(contributions) if reference is None else reference
        write_update(folder, "reference", own)
        spooled = open_update(folder, "reference")
    listed = [contribution for contribution, _ in contributions]
    settings = rule_settings or RuleSettings()
    return aggregate(base or toy_model(), TRAINABLE, folder, listed, RULES[rule], settings, spooled)


def mean_update(contributions: Sent) -> Tensors:
    """Every tensor's mean over the updates that hold it."""
    updates = [update for _, update in contributions]
    names = sorted({name for update in updates for name in update})
    return {name: np.mean([u[name] for u in updates if name in u], axis=0, dtype=np.float32) for name in names}


def flat(update: Tensors, names: Iterable[str] = SHARED) -> Any:
    """The named tensors as one row of float64."""
    return np.concatenate([np.asarray(update[name], np.float64).reshape(-1) for name in names])


def stepped(name: str, delta: Any) -> Any:
    """The toy's tensor plus a delta, added in float64."""
    return (toy_model()[name].astype(np.float64) + delta).astype(np.float32)
