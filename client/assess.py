"""What a client does with an evaluate task: count its own clips that a new model and its parent recognise."""

from __future__ import annotations

from client.learner import ClipStore, check_payload
from mcoe_model.errors import DataMissing
from mcoe_model.learning.fine_tune import measure
from mcoe_model.learning.weights import copy_weights
from mcoe_model.protocol import EvaluateReport, EvaluateTask
from mcoe_model.tensors import Payload


def assess(store: ClipStore, task: EvaluateTask, payload: Payload, parent: Payload) -> EvaluateReport:
    """Compare both on the middle window of every labelled clip.

    Raises ModelInvalid when the tensors are not the ones the task names, or are of another generation, DataMissing when
    there is no clip.
    """
    model, _ = store.model()
    for received, sha256 in ((payload, task.payload_sha256), (parent, task.parent_payload_sha256)):
        check_payload(store, task.generation, task.train_mode, received, sha256)
    correct = []
    for received in (payload, parent):
        copy_weights(model, received.tensors)
        model.eval()
        samples = store.tried(model, task.train_mode)
        if not samples.names:
            raise DataMissing(f"{store.client_id} has no labelled clips to compare models on")
        correct.append(measure(model, samples).correct)
    return EvaluateReport(store.client_id, task.model_sha256, len(samples.names), *correct)
