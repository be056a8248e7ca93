"""The gate before a release: a real process scores models on real clips, and its scores belong to those clips alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from mcoe_model.data.synthetic.settings import SyntheticSettings
from mcoe_model.data.synthetic.writer import write_see
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, Normalisation
from mcoe_model.networks import build
from server.evaluation import EvaluationGate
from server.registry import Registry
from server.registry.artifacts import Artifacts
from server.registry.database import open_database, sqlite_url
from server.registry.tables import Evaluation


@pytest.fixture
def gate(tmp_path: Path) -> EvaluationGate:
    write_see(tmp_path / "one" / "clips", SyntheticSettings(subjects=1, sequences=2, size=32, seed=7))
    registry = Registry(open_database(sqlite_url(tmp_path / "registry.sqlite")), "gate")
    artifacts = Artifacts(tmp_path / "models")
    return EvaluationGate(registry, artifacts, tmp_path / "one" / "clips", tmp_path / "cache", 0.02)


def test_a_model_is_scored_once_on_a_set_and_anew_on_another_of_the_same_name(
    gate: EvaluationGate, tmp_path: Path
) -> None:
    tensors = tensors_of(build("mcoe-tiny", seed=1))
    generation = Generation("mcoe-tiny", backbone_sha256(tensors), 32, Normalisation(0.3, 0.2, 0.5, 0.1))
    model = gate.artifacts.put(tensors, ModelCard(generation, "test"))
    assert gate(model, model) is None
    with gate.registry.engine.connect() as connection:
        (stored,) = connection.execute(sa.select(Evaluation.evaluation_set, Evaluation.scores)).all()
    assert stored.evaluation_set.startswith("clips ") and 0.0 <= stored.scores["war"] <= 1.0

    gate.artifacts.path(model).unlink()  # what has to score it now cannot
    assert gate(model, model) is None
    other = tmp_path / "other" / "clips"
    write_see(other, SyntheticSettings(subjects=1, sequences=2, size=32, seed=8))
    same_name = EvaluationGate(gate.registry, gate.artifacts, other, gate.cache, gate.margin)
    assert "could not be scored on clips" in str(same_name(model, model))
    gate.registry.engine.dispose()


def test_without_clips_a_model_is_held_back(gate: EvaluationGate) -> None:
    (gate.data / "emotion.json").unlink()
    assert "no annotation" in str(gate("0" * 64, "1" * 64))
    gate.registry.engine.dispose()
