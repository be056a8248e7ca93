"""Hostile clients in a simulated fleet: what they send is what the study says, and the norm bound meets it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mcoe_model.learning.weights import load_model
from mcoe_model.names import EMOTIONS
from mcoe_model.workers import spawn_pool
from simulations.arms import train_base
from simulations.attacks import NEARLY, TARGET, Attack, HostileStore, begin_attack, run_attack
from simulations.console import Display
from simulations.coordination import open_registry
from simulations.experiment import begin, prepare
from simulations.scene import open_scene
from simulations.settings import SimulationSettings


@pytest.fixture(scope="module")
def prepared(simulation_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run with a base that was hardly trained, ready for its rounds."""
    folder = tmp_path_factory.mktemp("attacks")
    settings = SimulationSettings(subjects=12, sequences=4, base_epochs=1, rounds=2, train="head", workers=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MCOE_CACHE", str(simulation_cache))
        begin(settings, folder / "base")
        prepare(settings, folder / "base", Display(Console(quiet=True)))
        train_base(folder / "base")
        yield folder


def hostile_norms(folder: Path) -> list[tuple[float | None, float, str | None]]:
    """Bound, norm and reason of the first client's reply in every round."""
    registry, first = open_registry(folder), open_scene(folder).subjects("clients")[0]
    found = []
    for row in registry.rounds():
        (reply,) = [reply for reply in registry.replies(row.id) if reply.client_id == f"subject-{first}"]
        found.append((reply.norm, row.norm_bound or math.inf, reply.reason))
    return found


def test_what_is_multiplied_by_fifty_is_refused_and_what_knows_the_bound_keeps_to_it(prepared: Path) -> None:
    with spawn_pool(1) as pool:
        begin_attack(prepared / "base", prepared / "replaced")
        replaced = run_attack(prepared / "replaced", Attack("backdoor", 1, 50.0), pool)
        begin_attack(prepared / "base", prepared / "bounded")
        bounded = run_attack(prepared / "bounded", Attack("backdoor", 1, math.inf), pool)
    assert replaced.hostile == bounded.hostile == 2
    *_, (norm, _, reason) = hostile_norms(prepared / "replaced")
    assert norm is None and "is above this round's bound" in str(reason)
    assert bounded.rejected == 0
    for norm, bound, _ in hostile_norms(prepared / "bounded"):
        assert norm is not None and norm <= NEARLY * bound * (1 + 1e-5)


def test_a_hostile_client_learns_other_labels_and_its_patched_clips(prepared: Path) -> None:
    model, _ = load_model(open_scene(prepared / "base").paths.base)
    clean, flipped, patched = (
        HostileStore(0, prepared / "base", poison).samples(model, "head") for poison in ("none", "flip", "backdoor")
    )
    assert flipped.labels.tolist() == [(label + 1) % len(EMOTIONS) for label in clean.labels]
    clips = len(clean.labels)
    assert patched.labels.tolist() == [*clean.labels, *[TARGET] * clips]
    windows = np.zeros((2 * clips, 4), np.int64)
    before, _, events, _ = (end.numpy() for end in patched.head_inputs(model, range(2 * clips), windows, None))
    assert not np.array_equal(before[:clips], before[clips:]) and not np.array_equal(events[:clips], events[clips:])
