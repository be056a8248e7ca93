"""What a client does with a train task, on the real network and the real training loop."""

from __future__ import annotations

import numpy as np
import pytest
from toy_store import BASE_SHA256, ToyStore, base, expectation, payload, task

from client.learner import Learned, check_in, learn
from mcoe_model.errors import McoeError, ModelInvalid
from mcoe_model.learning.fine_tune import measure
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.learning.weights import copy_weights, tensors_of
from mcoe_model.model_file import tensors_sha256
from mcoe_model.networks import build
from mcoe_model.protocol import update_id
from mcoe_model.tensors import Payload
from mcoe_model.update import expert_of, is_head, manifest, specs_of
from server.acceptance import Accepted, Reply, judge


@pytest.fixture(scope="module")
def learned() -> Learned:
    return learn(ToyStore("client-a", 12), task(), Payload.of(payload()))


def test_checking_in_says_who_and_how_much() -> None:
    said = check_in(ToyStore("client-a", 12))
    assert (said.client_id, said.examples) == ("client-a", 12)


def test_the_server_accepts_what_a_client_makes(learned: Learned) -> None:
    reply = Reply("client-a", learned.update, learned.meta.to_record(), learned.report.to_record())
    verdict = judge(reply, expectation("client-a"))
    assert isinstance(verdict, Accepted), verdict
    assert verdict.norm > 0


def test_the_update_is_exactly_the_manifest_and_says_what_it_is_of(learned: Learned) -> None:
    wanted = manifest(specs_of(base()[0]), "head", learned.meta.experts_sent)
    assert specs_of(learned.update) == wanted
    assert learned.meta.update_id == update_id("client-a", BASE_SHA256, [f"client-a clip {i}" for i in range(12)])
    assert (learned.meta.round_number, learned.meta.base_sha256, learned.meta.client_id) == (1, BASE_SHA256, "client-a")
    assert learned.meta.generation == base()[1].generation.id
    assert learned.report.examples == 12


def test_base_and_update_make_the_trained_model(learned: Learned) -> None:
    store = ToyStore("client-a", 12)
    learn(store, task(), Payload.of(payload()))
    trained = tensors_of(store.resident)
    for name, delta in learned.update.items():
        np.testing.assert_allclose(payload()[name] + delta, trained[name], rtol=0, atol=1e-6)
    weight_decay = 1e-3 * 3e-3 * 6  # of six steps; it is all that moves an expert that was never chosen
    for name in trained.keys() - learned.update.keys():
        decay = 1.01 * weight_decay * np.abs(base()[0][name]).max() if expert_of(name) is not None else 0
        assert np.abs(trained[name] - base()[0][name]).max() <= decay, "what is not sent moved"


def test_an_expert_that_was_never_chosen_is_absent() -> None:
    """One clip in one epoch chooses top-k experts and no more."""
    settings = FineTuneSettings(epochs=1, batch_size=1)
    learned = learn(ToyStore("client-b", 1), task(fine_tune=settings), Payload.of(payload()))
    config = build("mcoe-tiny", seed=0).config
    assert len(learned.meta.experts_sent) == config.top_k < config.experts
    assert {expert_of(name) for name in learned.update} == {None, *learned.meta.experts_sent}


def test_the_report_is_of_the_base_before_and_of_the_trained_model_after(learned: Learned) -> None:
    store = ToyStore("client-a", 12)
    model = build("mcoe-tiny", seed=1)
    copy_weights(model, payload())
    before = measure(model, store.samples(model, "head"))
    assert learned.report.loss_before == before.loss
    assert learned.report.router == before.router
    assert learned.report.loss_after < learned.report.loss_before
    assert learned.report.seconds > 0


def test_the_bits_depend_on_task_and_clips_alone_whoever_learned_before() -> None:
    resident = build("mcoe-tiny", seed=99)
    copy_weights(resident, {name: value for name, value in base()[0].items() if not is_head(name)})
    learn(ToyStore("client-b", 5, resident), task(), Payload.of(payload()))
    after_another = learn(ToyStore("client-a", 6, resident), task(), Payload.of(payload()))
    alone = learn(ToyStore("client-a", 6), task(), Payload.of(payload()))
    assert tensors_sha256(after_another.update) == tensors_sha256(alone.update)
    assert after_another.meta == alone.meta
    assert after_another.report.router == alone.report.router


@pytest.mark.parametrize("change", [{"seed": 6}, {"round_number": 2}, {"expert_load": (1.0,) + (0.0,) * 7}])
def test_seed_round_and_expert_load_change_the_update(change: dict[str, object]) -> None:
    usual = learn(ToyStore("client-a", 6), task(), Payload.of(payload()))
    other = learn(ToyStore("client-a", 6), task(**change), Payload.of(payload()))
    assert tensors_sha256(other.update) != tensors_sha256(usual.update)
    assert other.meta.update_id == usual.meta.update_id


def test_the_payload_is_not_changed_by_learning() -> None:
    given = payload()
    learn(ToyStore("client-a", 3), task(), Payload.of(given))
    assert tensors_sha256(given) == task().payload_sha256


def test_tensors_that_are_not_those_of_the_task_are_refused_before_anything_is_trained() -> None:
    name = next(iter(payload()))
    changed, lacking = payload(), payload()
    changed[name] = changed[name] + 1
    del lacking[name]
    extra = payload() | {"spare": np.zeros(1, np.float32)}
    for wrong in (changed, lacking, extra, {}):
        store = ToyStore("client-a", 3)
        before = tensors_sha256(tensors_of(store.resident))
        with pytest.raises(ModelInvalid, match="not the ones the task names"):
            learn(store, task(), Payload.of(wrong))
        assert tensors_sha256(tensors_of(store.resident)) == before


@pytest.mark.parametrize("wrong", ["lacking", "extra", "backbone", "shape", "broadcastable", "float64", "int8"])
def test_a_model_of_other_names_shapes_or_numbers_is_refused_whatever_hash_the_server_gives_it(wrong: str) -> None:
    tensors, name = payload(), next(name for name, value in payload().items() if value.ndim == 2)
    value, backbone = tensors[name], next(name for name in base()[0] if not is_head(name))
    match wrong:
        case "lacking":
            del tensors[name]
        case "extra":
            tensors["spare"] = value
        case "backbone":
            tensors[backbone] = base()[0][backbone]
        case "shape":
            tensors[name] = np.concatenate([value, value])
        case "broadcastable":
            tensors[name] = value[:1]
        case kind:
            tensors[name] = value.astype(kind)
    store = ToyStore("client-a", 3)
    before = tensors_sha256(tensors_of(store.resident))
    with pytest.raises(ModelInvalid, match="not those of mcoe-tiny"):
        learn(store, task(payload_sha256=tensors_sha256(tensors)), Payload.of(tensors))
    assert tensors_sha256(tensors_of(store.resident)) == before


def test_another_generation_is_refused() -> None:
    with pytest.raises(ModelInvalid, match="generation"):
        learn(ToyStore("client-a", 3), task(generation="f" * 16), Payload.of(payload()))


def test_a_store_without_clips_is_refused_with_a_reason() -> None:
    with pytest.raises(McoeError, match="no labelled clips"):
        learn(ToyStore("client-a", 0), task(), Payload.of(payload()))
