"""What a client does with a train task: check it, fine-tune its own clips, say what changed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from client.running import NOTHING_RUNS, RunningModel
from mcoe_model.errors import DataMissing, ModelInvalid
from mcoe_model.learning.fine_tune import fine_tune, measure
from mcoe_model.learning.method import ContinualMethod
from mcoe_model.learning.samples import Samples
from mcoe_model.learning.weights import copy_weights, model_specs, tensors_of
from mcoe_model.model_file import ModelCard, Tensors
from mcoe_model.networks import Network
from mcoe_model.protocol import Capability, CheckIn, TrainReport, TrainTask, UpdateMeta, update_id
from mcoe_model.tensors import Payload
from mcoe_model.update import TrainMode, make_update, manifest, payload_names, specs_of


class ClipStore(Protocol):
    """A wearer's labelled clips and the model of their generation, wherever they are kept."""

    client_id: str

    @property
    def learns(self) -> tuple[TrainMode, ...]:
        """How models can be trained on these clips."""
        ...

    def clip_names(self) -> tuple[str, ...]:
        """The labelled clips that are ready to be learned, in the order of `samples`."""
        ...

    def model(self) -> tuple[Network, ModelCard]:
        """The resident model, whose backbones are those of the generation; its head may hold anything."""
        ...

    def samples(self, model: Network, train_mode: TrainMode) -> Samples:
        """The labelled clips: as features of the model's frozen backbones for ``head``, as pictures for ``full``.

        Raises DataMissing where there are no pictures any more.
        """
        ...

    def method(self) -> ContinualMethod | None:
        """What keeps clips that were learned before from being unlearned, where they are remembered."""
        ...

    def tried(self, model: Network, train_mode: TrainMode) -> Samples:
        """The clips that models are compared on; as `samples`."""
        ...


@dataclass(frozen=True)
class Learned:
    """The reply to a train task, and the names of the clips that it is of, which are not sent."""

    update: Tensors
    meta: UpdateMeta
    report: TrainReport
    clips: tuple[str, ...]


def check_in(store: ClipStore, outbox: tuple[str, ...] = (), running: RunningModel = NOTHING_RUNS) -> CheckIn:
    """Who this client is, what it has to learn, which updates it keeps, which model it runs, and what it can do."""
    said = (running.runs, running.refused, running.refusal)
    preset = store.model()[1].generation.preset
    trains: dict[TrainMode, Capability] = {"head": "train-head", "full": "train-full"}
    can = (*(trains[mode] for mode in store.learns), "evaluate", *(("run-models",) if running.runs else ()))
    return CheckIn(store.client_id, len(store.clip_names()), outbox, *said, preset, can)


def check_payload(store: ClipStore, generation: str, train_mode: TrainMode, payload: Payload, sha256: str) -> None:
    """Raises ModelInvalid when a payload is not the one with this hash, or not of the store's generation.

    Nor of its model: other names, shapes or kinds of numbers are refused whatever hash the task says they have.
    """
    model, card = store.model()
    if card.generation.id != generation:
        raise ModelInvalid(f"the task is for generation {generation}, this client has {card.generation.id}")
    if payload.sha256 != sha256:
        raise ModelInvalid("the tensors received are not the ones the task names; the next message brings them anew")
    specs = model_specs(model)
    if specs_of(payload.tensors) != {name: specs[name] for name in payload_names(specs, train_mode)}:
        raise ModelInvalid(f"the tensors received are not those of {card.generation.preset}: not trained, not tried")


def learn(store: ClipStore, task: TrainTask, payload: Payload) -> Learned:
    """Train the task's model on the store's clips.

    Raises ModelInvalid when the tensors are not the ones the task names, or are of another generation, DataMissing when
    there is no clip.
    """
    model, _ = store.model()
    check_payload(store, task.generation, task.train_mode, payload, task.payload_sha256)
    specs = model_specs(model)
    started = time.perf_counter()
    copy_weights(model, payload.tensors)
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
        method=store.method(),
    )
    if task.all_experts:
        experts = tuple(range(model.config.experts))
    after = measure(model, samples)
    trained = tensors_of(model)
    update = make_update(payload.tensors, trained, manifest(specs, task.train_mode, experts))
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
    report = TrainReport(len(samples.names), before.loss, after.loss, seconds, before.router)
    return Learned(update, meta, report, samples.names)
