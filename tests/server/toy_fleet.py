"""For the tests of the server: a model small enough to reason about, and clients that answer without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from migrated import migrated_file

from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.model_file import Generation, ModelCard, Normalisation, Tensors
from mcoe_model.protocol import CheckIn, TrainReport, UpdateMeta, update_id
from mcoe_model.router_statistics import RouterStatistics
from mcoe_model.streams import stream
from mcoe_model.update import TrainMode, manifest, specs_of
from server.acceptance import Expectation, Reply
from server.aggregation.rule import RuleSettings
from server.registry import Registry
from server.registry.artifacts import Artifacts
from server.registry.database import open_database, sqlite_url
from server.rounds import RoundEngine, RoundSettings

EXPERTS, TOP_K = 4, 2
CARD = ModelCard(Generation("toy", "0" * 64, 8, Normalisation(0.0, 1.0, 0.0, 1.0)), "test")
#: Shapes of the floating tensors; one has no dimension at all.
SHAPES: dict[str, tuple[int, ...]] = {
    "backbones.frame.weight": (3, 4),
    "dead.weight": (2, 2),
    "mamba.scale": (),
    "moe.router.weight": (EXPERTS, 5),
    "projection.weight": (6, 5),
    **{f"moe.experts.{expert}.weight": (5, 3) for expert in range(EXPERTS)},
}


def toy_model(seed: int = 0) -> Tensors:
    """The toy's tensors, drawn from a seed, with one counter that is no floating tensor."""
    random = stream(seed, "toy model")
    drawn = {name: np.asarray(random.normal(size=shape), np.float32) for name, shape in SHAPES.items()}
    return drawn | {"backbones.frame.batches": np.array(7, np.int64)}


def expectation(**changes: Any) -> Expectation:
    """What round 1 over the toy expects of the clients a, b and c."""
    usual: dict[str, Any] = {
        "round_number": 1,
        "base_sha256": "b" * 64,
        "generation": CARD.generation.id,
        "train_mode": "head",
        "model": specs_of(toy_model()),
        "experts": EXPERTS,
        "top_k": TOP_K,
        "cohort": frozenset("abc"),
        "norm_bound": None,
    }
    return Expectation(**usual | changes)


def statistics(client: str, examples: int) -> RouterStatistics:
    """Router statistics that add up, different for every client."""
    random = stream(client, examples, "routing")
    gate = random.dirichlet(np.ones(EXPERTS), size=examples)
    return RouterStatistics.count(gate, np.argsort(gate, axis=1)[:, -TOP_K:])


def honest_reply(
    expected: Expectation,
    client: str,
    *,
    examples: int = 10,
    experts: tuple[int, ...] = (0, 2),
    scale: float = 0.01,
) -> Reply:
    """What an honest client sends: the same arguments give the same bits."""
    random = stream(client, expected.round_number, "update")
    wanted = manifest(expected.model, expected.train_mode, experts)
    update = {
        name: np.asarray(scale * random.normal(size=spec.shape), np.float32) for name, spec in wanted.items()
    }
    meta = UpdateMeta(
        update_id(client, expected.base_sha256, [f"clip {client}"]),
        client,
        expected.round_number,
        expected.base_sha256,
        expected.generation,
        expected.train_mode,
        experts,
    )
    report = TrainReport(examples, 2.0, 1.5, 0.25, statistics(client, examples))
    return Reply(client, update, meta.to_record(), report.to_record())


def toy_engine(
    folder: Path,
    *,
    rule: str = "weighted-mean",
    train_mode: TrainMode = "head",
    quorum: float = 0.5,
    rule_settings: RuleSettings | None = None,
    url: str | None = None,
    experiment: str = "toy",
) -> RoundEngine:
    """An engine on a real database and a real folder, with the toy as its first model."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = RoundSettings(FineTuneSettings(), train_mode, rule, rule_settings or RuleSettings(), quorum)
    registry = Registry(open_database(url or sqlite_url(migrated_file(folder / "registry.sqlite"))), experiment)
    engine = RoundEngine(registry, Artifacts(folder / "models"), folder / "spool", settings)
    engine.start_from(toy_model(), CARD)
    return engine


def enlist(engine: RoundEngine, *clients: str) -> None:
    """Let these clients check in, so that a round may ask them."""
    for client in clients:
        engine.registry.saw(CheckIn(client, 10))
