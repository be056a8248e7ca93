"""What a simulated client's training adds: by its formulas, and in rounds of a small fleet."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from mcoe_model.errors import SettingsError
from mcoe_model.learning.fine_tune import middle_window
from mcoe_model.learning.weights import load_model
from mcoe_model.model_file import Tensors, read_model, tensors_sha256
from server.aggregation.router import is_router
from simulations.coordination import coordinate, open_registry
from simulations.experiment import CLIENT_APP, begin
from simulations.flower_app import SubjectStore
from simulations.local_grid import LOCAL_POLL, LocalGrid
from simulations.local_methods.fedprox import FedProx
from simulations.local_methods.personal import personal_tensors
from simulations.local_methods.state import ClientState
from simulations.local_methods.terms import trained_parameters
from simulations.parts import make_parts
from simulations.scene import open_scene
from simulations.settings import SimulationSettings
from simulations.variants import begin_variant

NO_DRAWS = np.random.default_rng(0)


class AtOnce:
    """A pool of no workers: what is to be done is done before it is asked for."""

    def submit(self, do: Callable[..., None], letter: Path, *rest: Any) -> Future[None]:
        made, path = letter.__reduce__()  # as on its way to a worker
        done: Future[None] = Future()
        done.set_result(do(made(*path), *rest))  # type: ignore[operator]
        return done


def federate(prepared: Path, folder: Path, **changed: Any) -> list[Tensors]:
    """Run the rounds of a variant; every round's model."""
    begin_variant(prepared, folder, **changed)
    scene = open_scene(folder)
    nodes = [{"partition-id": partition} for partition in range(len(scene.subjects("clients")))]
    with closing(LocalGrid(CLIENT_APP, nodes, {"run-folder": str(folder)}, AtOnce())) as grid:  # type: ignore[arg-type]
        coordinate(grid, folder, lambda _: None, poll=LOCAL_POLL)
    rows = open_registry(folder).rounds()
    return [read_model(scene.paths.models / f"{row.published_sha256}.safetensors")[0] for row in rows]


@pytest.fixture(scope="module")
def plain(prepared_base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Tensors]:
    return federate(prepared_base, tmp_path_factory.mktemp("plain") / "run", batch_size=1)


def test_the_proximal_term_is_half_mu_times_the_squared_distance(prepared_base: Path) -> None:
    model, _ = load_model(open_scene(prepared_base).paths.base)
    method = FedProx(model, 0.5)
    assert method.term(model, 8, NO_DRAWS)[0].item() == 0
    with torch.no_grad():
        model.moe.router.down.bias += 2.0
    experts = len(model.moe.experts)
    assert method.term(model, 8, NO_DRAWS)[0].item() == pytest.approx(0.25 * experts * 4)


def test_fedprox_holds_the_model_nearer_to_the_one_before(
    prepared_base: Path, plain: list[Tensors], tmp_path: Path
) -> None:
    base, _ = read_model(open_scene(prepared_base).paths.base)
    held = federate(prepared_base, tmp_path / "run", local_method="fedprox", proximal=100.0, batch_size=1)
    walked = [
        sum(float(np.square(after[name] - base[name], dtype=np.float64).sum()) for name in base)
        for after in (plain[-1], held[-1])
    ]
    assert 0 < walked[1] < walked[0] / 2


def test_scaffold_corrects_from_the_second_round_on_by_the_gradients_of_the_first(
    prepared_base: Path, plain: list[Tensors], tmp_path: Path
) -> None:
    corrected = federate(prepared_base, tmp_path / "run", local_method="scaffold", batch_size=1)
    assert tensors_sha256(corrected[0]) == tensors_sha256(plain[0])
    assert tensors_sha256(corrected[1]) != tensors_sha256(plain[1])
    scene = open_scene(tmp_path / "run")
    model, card = load_model(scene.paths.base)
    client = scene.subjects("clients")[0]
    samples = scene.training_samples(model, card, scene.indices("clients", client))
    positions = range(len(samples.names))
    windows = np.stack([middle_window(model.config.sampling, length) for length in samples.lengths])
    logits, _ = model.classify(samples.head_inputs(model, list(positions), windows, None))
    cross_entropy(logits, torch.from_numpy(samples.labels)).backward()
    kept = ClientState(scene.paths.folder / "scaffold").before(client, 2)
    for name, parameter in trained_parameters(model).items():
        expected = np.zeros(parameter.shape) if parameter.grad is None else parameter.grad.numpy()
        np.testing.assert_allclose(kept[name], expected, rtol=1e-4, atol=1e-6)


def test_a_router_of_ones_own_stays_with_its_client_and_the_server_has_the_average(
    prepared_base: Path, plain: list[Tensors], tmp_path: Path
) -> None:
    models = federate(prepared_base, tmp_path / "run", local_method="personal-router", batch_size=1)
    assert tensors_sha256(models[0]) == tensors_sha256(plain[0])
    assert tensors_sha256(models[1]) != tensors_sha256(plain[1])
    scene = open_scene(tmp_path / "run")
    clients = scene.subjects("clients")
    own = [personal_tensors(scene, client, 3) for client in clients]
    counts = np.array([len(scene.indices("clients", client)) for client in clients], np.float64)
    for name in own[0]:
        assert is_router(name)
        average = np.tensordot(counts / counts.sum(), np.stack([one[name] for one in own]).astype(np.float64), 1)
        np.testing.assert_allclose(models[1][name], average, rtol=1e-4, atol=1e-6)
    assert len({tensors_sha256(one) for one in own}) == len(clients)
    store = SubjectStore(scene, 1)
    model, _ = store.model()
    before = ClientState(scene.paths.folder / "personal").before(clients[1], 2)
    store.samples(model, "head")
    np.testing.assert_array_equal(model.state_dict()["moe.router.down.bias"].numpy(), before["moe.router.down.bias"])


def test_batch_normalisation_of_ones_own_stays_with_its_client_and_the_server_keeps_the_bases(
    prepared_base: Path, tmp_path: Path
) -> None:
    shared = federate(prepared_base, tmp_path / "shared", train="full", batch_norm="shared", rounds=1)
    models = federate(prepared_base, tmp_path / "local", train="full", batch_norm="local")
    scene = open_scene(tmp_path / "local")
    base, clients = read_model(scene.paths.base)[0], scene.subjects("clients")
    first = [ClientState(scene.paths.folder / "personal").before(client, 2) for client in clients]
    counts = np.array([len(scene.indices("clients", client)) for client in clients], np.float64)
    for name in base:
        if ".bn" in name or ".downsample.1." in name:  # as torchvision calls them
            assert all(np.array_equal(model[name], base[name]) for model in models)
            if not name.endswith("num_batches_tracked"):
                average = np.tensordot(counts / counts.sum(), np.stack([one.pop(name) for one in first]), 1)
                np.testing.assert_allclose(shared[0][name], average, rtol=1e-4, atol=1e-5)
                assert not np.array_equal(shared[0][name], base[name])
        else:  # a first round trains as one in which everything is averaged
            np.testing.assert_array_equal(models[0][name], shared[0][name])
    assert not any(first)
    before, after = (personal_tensors(scene, clients[1], number) for number in (2, 3))
    model, _ = SubjectStore(scene, 1).model()
    SubjectStore(scene, 1).samples(model, "full")
    for name in before:
        assert not np.array_equal(before[name], after[name])
        np.testing.assert_array_equal(model.state_dict()[name].numpy(), before[name])


def test_a_model_without_batch_normalisation_has_none_of_its_own_or_shared(tmp_path: Path) -> None:
    code = (Path(__file__).parents[2] / "examples" / "small_network.py").read_text()
    for name, norm in (("batch", "nn.BatchNorm2d(outputs)"), ("group", "nn.GroupNorm(4, outputs)")):
        (tmp_path / f"{name}.py").write_text(code.replace("nn.BatchNorm2d(outputs)", norm))
    models = {name: f"{tmp_path / name}.py:SmallConfig" for name in ("batch", "group")}
    begin(SimulationSettings(model=models["batch"], batch_norm="local"), tmp_path / "run")
    begin(SimulationSettings(model=models["group"]), tmp_path / "left-to-itself")
    for policy, model in (("local", models["group"]), ("shared", models["group"]), ("shared", "cmfnet")):
        with pytest.raises(SettingsError, match=f"--batch-norm {policy}: .* has no batch normalisation") as caught:
            begin(SimulationSettings(model=model, batch_norm=policy), tmp_path / "refused")
        assert "\n" not in str(caught.value) and not (tmp_path / "refused").exists()


@pytest.mark.parametrize("partition", ["iid", "label-skew"])
def test_mixed_clients_own_every_clip_once(partition: str, prepared_base: Path, tmp_path: Path) -> None:
    scene = open_scene(prepared_base)
    settings = replace(scene.settings, partition=partition, alpha=0.5)  # type: ignore[arg-type]
    parts = make_parts(settings, scene.clips.records)
    assert (parts.clients, parts.base, parts.test) == (scene.parts.clients, scene.parts.base, scene.parts.test)
    mixed = replace(scene, parts=parts)
    owned = [index for client in mixed.subjects("clients") for index in mixed.indices("clients", client)]
    assert sorted(owned) == list(scene.indices("clients"))
    assert len(mixed.subjects("clients")) == len(scene.subjects("clients"))
    assert mixed.subjects("test") == scene.subjects("test")
