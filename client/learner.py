"""What a client does with a train task: check it, fine-tune its own clips, say what changed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from mcoe_model.errors import DataMissing, ModelInvalid
from mcoe_model.learning.fine_tune import fine_tune, measure
from mcoe_model.learning.samples import Samples
from mcoe_model.learning.weights import copy_weights, model_specs, tensors_of
from mcoe_model.model_file import ModelCard, Tensors, tensors_sha256
from mcoe_model.networks import MCOENet
from mcoe_model.protocol import CheckIn, TrainReport, TrainTask, UpdateMeta, update_id
from mcoe_model.update import TrainMode, make_update, manifest, payload_names


class ClipStore(Protocol):
    """A wearer's labelled clips and the model of their generation, wherever they are kept."""

    client_id: str

    def clip_names(self) -> tuple[str, ...]:
        """The labelled clips that are ready to be learned, in the order of `samples`."""
        ...

    def model(self) -> tuple[MCOENet, ModelCard]:
        """The resident model, whose backbones are those of the generation; its head may hold anything."""
        ...

    def samples(self, model: MCOENet, train_mode: TrainMode) -> Samples:
        """The labelled clips: as features of the model's frozen backbones for ``head``, as pictures for ``full``."""
        ...


@dataclass(frozen=True)
class Learned:
    """The reply to a train task."""

    update: Tensors
    meta: UpdateMeta
    report: TrainReport


def check_in(store: ClipStore, outbox: tuple[str, ...] = ()) -> CheckIn:
    """Who this client is, what it has to learn and which updates it keeps."""
    return CheckIn(store.client_id, len(store.clip_names()), outbox)


def learn(store: ClipStore, task: TrainTask, payload: Tensors) -> Learned:
    """Train the task's model on the store's clips.

    Raises ModelInvalid when the tensors are not the ones the task names, or are of another generation, DataMissing when
    there is no clip.
    """
    model, card = store.model()
    if card.generation.id != task.generation:
        raise ModelInvalid(f"the task is for generation {task.generation}, this client has {card.generation.id}")
    specs = model_specs(model)
    expected = payload_names(specs, task.train_mode)
    if tuple(sorted(payload)) != expected or tensors_sha256(payload) != task.payload_sha256:
        raise ModelInvalid("the tensors received are not the ones the task names; the next message brings them anew")
    started = time.perf_counter()
    copy_weights(model, payload)
    model.eval()
    samples = store.samples(model, task.train_mode)
    if not samples.names:
        raise DataMissing(f"{store.client_id} has no labelled clips to learn")
    before = measure(model, samples)
    experts = fine_tune(
        model,
        samples,
        task.fine_tune,
        train_mode=task.train_mode,
        keys=(task.seed, task.round_number, store.client_id),
        expert_load=task.expert_load,
    )
    if task.all_experts:
        experts = tuple(range(model.config.experts))
    after = measure(model, samples)
    trained = tensors_of(model)
    update = make_update(payload, trained, manifest(specs, task.train_mode, experts))
    meta = UpdateMeta(
        update_id(store.client_id, task.base_sha256, samples.names),
        store.client_id,
        task.round_number,
        task.base_sha256,
        task.generation,
        task.train_mode,
        experts,
    )
    seconds = time.perf_counter() - started
    return Learned(update, meta, TrainReport(len(samples.names), before.loss, after.loss, seconds, before.router))
