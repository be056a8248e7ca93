"""The training loop, written once: the wearable's fine-tuning, a fleet's base model and every baseline run through it.

A random window per clip and epoch, AdamW and cross-entropy, as the released code of MCO-E Net trains; a model can say
another loss, a recipe another optimiser. Differs: a
load-balancing term can be added, E x sum_e f_e p_e with the expert load f of the whole cohort where it is known
(Qiu et al. 2025, "Demons in the Detail", https://arxiv.org/abs/2501.11873); a mixture of experts trained on a few clips
otherwise soon uses two of them only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mcoe_model.data.sampling import Sampling
from mcoe_model.errors import DataMissing, SettingsError
from mcoe_model.learning.checkpoint import Checkpoint
from mcoe_model.learning.method import Batch, ContinualMethod
from mcoe_model.learning.samples import Samples
from mcoe_model.learning.settings import Decay, FineTuneSettings, Optimiser, rate_factor
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import Network, Routing
from mcoe_model.progress import Progress, silent
from mcoe_model.router_statistics import RouterStatistics
from mcoe_model.streams import Key, stream, stream_seed
from mcoe_model.update import TrainMode, is_head


@dataclass(frozen=True)
class Epoch:
    """One epoch of training: its number from 1, and mean loss and accuracy over its windows, before each step."""

    number: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Measured:
    """One pass of a model over clips: the mean loss, how they were routed, which were recognised, and as what."""

    loss: float
    router: RouterStatistics
    hits: tuple[bool, ...]
    predicted: tuple[int, ...]  # places in EMOTIONS

    @property
    def correct(self) -> int:
        """How many were recognised."""
        return sum(self.hits)


def fine_tune(
    model: Network,
    samples: Samples,
    settings: FineTuneSettings,
    *,
    train_mode: TrainMode,
    keys: Sequence[Key],
    expert_load: Sequence[float] = (),
    method: ContinualMethod | None = None,
    optimiser: Optimiser = "adamw",
    decay: Decay = Decay(),  # noqa: B008 (it cannot be changed)
    checkpoint: Checkpoint | None = None,
    progress: Progress = silent,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> tuple[int, ...]:
    """Train the model in place; returns the experts that were chosen at least once, in order.

    ``keys`` name this training run (seed, round, client ...): order, windows, augmentation and dropout of epoch e come
    from streams (*keys, purpose, e), so a run that goes on from a checkpoint gives the same bits as one that never
    stopped. ``expert_load`` (E,) replaces the batch's own load in the balancing term.

    ``method`` adds a term to the loss of every step, or corrects its gradient. Remembered clips in a term count in the
    balancing term; an expert that was chosen for a remembered clip was used. It needs features of frozen backbones,
    hence ``train_mode`` head. A method that has nothing to add gives the same bits as none.

    Raises DataMissing when there are no clips, SettingsError for a method where the backbones are trained.
    """
    if not samples.names:
        raise DataMissing("there are no clips to learn; label some first")
    if method is not None and train_mode != "head":
        raise SettingsError([f"train mode {train_mode} changes the backbones whose features a replay memory holds"])
    trained = [p for name, p in model.named_parameters() if _is_trained(name, train_mode)]
    descent = _optimiser(optimiser, trained, settings)
    experts = model.expert_parameters()
    used = torch.zeros(len(experts), dtype=torch.bool)
    learned = torch.from_numpy(np.bincount(samples.labels, minlength=len(EMOTIONS)))  # (7,)
    load = torch.tensor(expert_load, dtype=torch.float32) if len(expert_load) else None
    steps = math.ceil(len(samples.names) / settings.batch_size)
    first = checkpoint.restore(model, descent) if checkpoint else 0
    note = "epochs"
    with _training(model, settings):
        for epoch in range(first, settings.epochs):
            progress(epoch, settings.epochs, note)
            total, hits = 0.0, 0
            torch.manual_seed(stream_seed(*keys, "dropout", epoch))
            draws = stream(*keys, "replay", epoch)
            batches = _batches(samples, model.config.sampling, settings, keys, epoch)
            for step, (positions, windows, generator) in enumerate(batches):
                share = (epoch * steps + step) / (settings.epochs * steps)
                for group in descent.param_groups:
                    factor = rate_factor(settings.schedule, share=share, step=epoch, decay=decay)
                    group["lr"] = settings.learning_rate * factor
                with torch.set_grad_enabled(train_mode == "full"):
                    features = samples.head_inputs(model, positions, windows, generator)
                logits, routing = model.classify(features)  # (B, 7)
                labels = torch.from_numpy(samples.labels[positions])  # (B,)
                loss = model.loss(logits, labels, learned)
                total += float(loss.detach()) * len(positions)
                hits += int((logits.argmax(dim=1) == labels).sum())
                term = method.term(model, Batch(features, logits, labels), draws) if method else None
                if term:
                    loss = loss + term[0]
                    routing = _together(routing, term[1])
                if settings.balance and experts:
                    loss = loss + settings.balance * _imbalance(routing, load)
                descent.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                routing = _together(routing, method.correct(model, len(positions), draws) if method else None)
                chosen = sorted(set(routing.chosen.reshape(-1).tolist()))
                _leave_out(experts, chosen)
                descent.step()
                used[chosen] = True
            done = Epoch(epoch + 1, total / len(samples.names), hits / len(samples.names))
            note = f"epochs, loss {done.loss:.2f}"
            if on_epoch:
                on_epoch(done)
            if checkpoint:
                checkpoint.save(model, descent, epoch + 1, last=epoch + 1 == settings.epochs)
    progress(settings.epochs, settings.epochs, note)
    return tuple(int(expert) for expert in used.nonzero())


def measure(model: Network, samples: Samples, *, batch_size: int = 64) -> Measured:
    """Loss (mean cross-entropy), router statistics and what is predicted, over the middle window of every clip.

    The model is in evaluation mode meanwhile and goes back to the mode it was in.
    """
    was_training = model.training
    model.eval()
    total, router = 0.0, RouterStatistics.none(model.config.experts, model.config.top_k)
    hits, predicted = list[bool](), list[int]()
    with torch.inference_mode():
        for start in range(0, len(samples.names), batch_size):
            positions = np.arange(start, min(start + batch_size, len(samples.names)))
            windows = np.stack([middle_window(model.config.sampling, samples.lengths[p]) for p in positions])
            logits, routing = model.classify(samples.head_inputs(model, positions.tolist(), windows, None))
            labels = torch.from_numpy(samples.labels[positions])  # (B,)
            total += float(cross_entropy(logits, labels, reduction="sum"))
            taken = logits.argmax(dim=1)  # (B,)
            hits += (taken == labels).tolist()
            predicted += taken.tolist()
            router = router + RouterStatistics.count(routing.gate.numpy(), routing.chosen.numpy())
    model.train(was_training)
    return Measured(total / len(samples.names), router, tuple(hits), tuple(predicted))


def _together(routing: Routing, more: Routing | None) -> Routing:
    return routing if more is None else Routing(*(torch.cat(both) for both in zip(routing, more, strict=True)))


def _optimiser(name: Optimiser, trained: list[nn.Parameter], settings: FineTuneSettings) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(trained, settings.learning_rate, momentum=0.9, weight_decay=settings.weight_decay)
    return torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)


def _leave_out(experts: Sequence[Sequence[nn.Parameter]], chosen: Sequence[int]) -> None:
    """Drop the gradients, all zero, of experts that this step did not choose: the optimiser would still decay them."""
    for expert, parameters in enumerate(experts):
        if expert not in chosen:
            for parameter in parameters:
                parameter.grad = None


def _is_trained(name: str, train_mode: TrainMode) -> bool:
    return not name.startswith("dead.") and (train_mode == "full" or is_head(name))


@contextmanager
def _training(model: Network, settings: FineTuneSettings) -> Iterator[None]:
    """Training mode, with batch normalisation as the settings say; evaluation mode afterwards."""
    model.train()
    if settings.batch_norm == "frozen":
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    try:
        yield
    finally:
        model.eval()


def _batches(
    samples: Samples, sampling: Sampling, settings: FineTuneSettings, keys: Sequence[Key], epoch: int
) -> Iterator[tuple[list[int], NDArray[np.int64], np.random.Generator | None]]:
    """An epoch's batches: every clip once, in random order, with a random window each (B, samples)."""
    order = stream(*keys, "order", epoch).permutation(len(samples.names))
    windows = stream(*keys, "window", epoch)
    augmentation = stream(*keys, "augment", epoch) if settings.augment else None
    for start in range(0, len(order), settings.batch_size):
        positions = [int(position) for position in order[start : start + settings.batch_size]]
        yield positions, np.stack([sampling.draw(samples.lengths[p], windows) for p in positions]), augmentation


def _imbalance(routing: Routing, load: Tensor | None) -> Tensor:
    """E x sum_e f_e p_e, 1 when the load is even: f the share of choices, p the mean gate probability (B, E)."""
    gate = routing.gate  # (B, E)
    experts = gate.shape[1]
    if load is None:
        load = torch.nn.functional.one_hot(routing.chosen, experts).float().mean(dim=(0, 1))  # (E,)
    return experts * (load * gate.mean(dim=0)).sum()


def middle_window(sampling: Sampling, length: int) -> NDArray[np.int64]:
    """The middle window of a clip's sampling law: (samples,) picture numbers."""
    windows: NDArray[np.int64] = sampling.law(length).windows
    middle: NDArray[np.int64] = windows[len(windows) // 2]
    return middle
