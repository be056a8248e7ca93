"""Hostile clients in a simulated fleet: what they send is what the study says, and the norm bound meets it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from mcoe_model.learning.weights import load_model
from mcoe_model.names import EMOTIONS
from mcoe_model.workers import spawn_pool
from simulations.attacks import DISGUISE, NEARLY, TARGET, VICTIM, Attack, HostileStore, hostile_clients, run_attack
from simulations.coordination import open_registry
from simulations.scene import open_scene
from simulations.variants import begin_variant


def hostile_norms(folder: Path) -> list[tuple[float | None, float, str | None]]:
    """Norm, bound and reason of the one hostile client's reply in every round."""
    registry, (hostile,) = open_registry(folder), hostile_clients(open_scene(folder), 1)
    found = []
    for row in registry.rounds():
        (reply,) = [reply for reply in registry.replies(row.id) if reply.client_id == f"subject-{hostile}"]
        found.append((reply.norm, row.norm_bound or math.inf, reply.reason))
    return found


def test_who_is_hostile_is_drawn_by_the_seed_and_from_everybody(prepared_base: Path) -> None:
    scene = open_scene(prepared_base)
    clients = scene.subjects("clients")
    seeded = {seed: replace(scene, settings=replace(scene.settings, seed=seed)) for seed in range(30)}
    drawn = {seed: hostile_clients(one, 2) for seed, one in seeded.items()}
    assert hostile_clients(scene, 2) == drawn[scene.settings.seed] == hostile_clients(open_scene(prepared_base), 2)
    assert all(two == tuple(sorted(set(two))) and len(two) == 2 for two in drawn.values())
    assert {client for two in drawn.values() for client in two} == set(clients), "ids go by light: no block is spared"
    assert hostile_clients(scene, 0) == () and hostile_clients(scene, len(clients)) == clients
    assert set(hostile_clients(scene, 1)) < set(hostile_clients(scene, 2))


def test_what_is_multiplied_by_fifty_is_refused_and_what_knows_the_bound_keeps_to_it(
    prepared_base: Path, tmp_path: Path
) -> None:
    with spawn_pool(1) as pool:
        begin_variant(prepared_base, tmp_path / "replaced")
        replaced = run_attack(tmp_path / "replaced", Attack("backdoor", 1, 50.0), pool)
        begin_variant(prepared_base, tmp_path / "bounded")
        bounded = run_attack(tmp_path / "bounded", Attack("colluding-backdoor", 1, math.inf), pool)
    assert replaced.hostile == bounded.hostile == 2
    *_, (norm, _, reason) = hostile_norms(tmp_path / "replaced")
    assert norm is None and "is above this round's bound" in str(reason)
    assert bounded.rejected == 0
    for norm, bound, _ in hostile_norms(tmp_path / "bounded"):
        assert norm is not None and norm <= NEARLY * bound * (1 + 1e-5)


def test_a_hostile_client_learns_other_labels_and_its_patched_clips(prepared_base: Path) -> None:
    model, _ = load_model(open_scene(prepared_base).paths.base)
    clean, flipped, patched = (
        HostileStore(0, prepared_base, poison).samples(model, "head") for poison in ("none", "flip", "backdoor")
    )
    assert flipped.labels.tolist() == [(label + 1) % len(EMOTIONS) for label in clean.labels]
    clips = len(clean.labels)
    assert patched.labels.tolist() == [*clean.labels, *[TARGET] * clips]
    windows = np.zeros((2 * clips, 4), np.int64)
    before, _, events, _ = (end.numpy() for end in patched.head_inputs(model, range(2 * clips), windows, None))
    assert not np.array_equal(before[:clips], before[clips:]) and not np.array_equal(events[:clips], events[clips:])


def test_flipped_labels_are_never_the_true_ones_or_only_the_chosen_emotion_is_hidden(prepared_base: Path) -> None:
    model, _ = load_model(open_scene(prepared_base).paths.base)
    stores = [HostileStore(1, prepared_base, poison) for poison in ("none", "uniform-flip", "targeted-flip")]
    clean, uniform, targeted = (store.samples(model, "head").labels for store in stores)
    assert (uniform != clean).all() and set(uniform) <= set(range(len(EMOTIONS)))
    np.testing.assert_array_equal(uniform, stores[1].samples(model, "head").labels)  # in every round the same
    assert (targeted[clean == VICTIM] == DISGUISE).all()
    np.testing.assert_array_equal(targeted[clean != VICTIM], clean[clean != VICTIM])


def test_colluding_clients_learn_each_others_clips(prepared_base: Path) -> None:
    model, _ = load_model(open_scene(prepared_base).paths.base)
    scene = open_scene(prepared_base)
    both = [scene.subjects("clients").index(subject) for subject in hostile_clients(scene, 2)]
    alone, together = (
        [set(HostileStore(one, prepared_base, poison, 2).samples(model, "head").names) for one in both]
        for poison in ("backdoor", "colluding-backdoor")
    )
    assert together[0] == together[1] == alone[0] | alone[1] and not alone[0] & alone[1]
