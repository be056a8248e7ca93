"""What a model has to be (`mcoe_model.networks.network`), tried on pictures of noise.

Letters: B batch, S side of a picture [pixels], E experts, k chosen ones, c classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mcoe_model.learning.settings import Recipe
from mcoe_model.learning.weights import copy_weights, tensors_of
from mcoe_model.names import EMOTIONS
from mcoe_model.networks.network import ModelConfig, Network
from mcoe_model.streams import stream
from mcoe_model.update import expert_of, is_head
from simulations.conform.properties import Fresh, Properties, expect

_BATCH = 8
#: A clip's length in pictures: SEE's shortest, usual and longest.
_LENGTHS = (18, 53, 131)
#: How far logits may be apart that differ in rounding alone.
_ROUNDING = 1e-3
_STEPS, _RATE = 30, 1e-3


class _Windows(NamedTuple):
    """Normalised pictures and labels of B windows."""

    frame: Tensor  # (B, frames, S, S)
    event: Tensor  # (B, events, S, S), or (B, events, C, S, S)
    labels: Tensor  # (B,)

    @property
    def learned(self) -> Tensor:
        """How many windows of each class there are (c,)."""
        return self.labels.bincount(minlength=len(EMOTIONS))


def _says_what_it_is(fresh: Fresh) -> None:
    config: ModelConfig = fresh()
    expect(isinstance(config.preset, str) and 0 < len(config.preset) <= 40, "preset must be a text of 1 to 40 letters")
    sizes = (config.input_size, config.experts, config.top_k)
    expect(all(type(size) is int and size >= 0 for size in sizes), f"sizes must be whole numbers, not {sizes}")
    expect(16 <= config.input_size <= 512, f"input_size must be 16 to 512 pixels, not {config.input_size}")
    expect(config.top_k <= config.experts, f"top_k is {config.top_k}, of {config.experts} experts")
    for name in ("recipe", "published_recipe"):
        expect(isinstance(getattr(config, name), Recipe), f"{name} must be a Recipe")
    expect(isinstance(config.make(), Network), "make must give a Network (mcoe_model.networks.network)")


def _samples(fresh: Fresh) -> None:
    sampling = fresh().sampling
    for length in _LENGTHS:
        windows, probability = sampling.law(length)
        expect(abs(float(np.sum(probability)) - 1) < 1e-9, f"windows of {length} pictures must have probabilities of 1")
        inside = windows.min() >= 0 and windows.max() < length
        expect(bool(inside), f"windows of {length} pictures reach beyond them")
        drawn = [tuple(sampling.draw(length, stream(0, "conformance", i)).tolist()) for i in range(20)]
        expect(set(drawn) <= {tuple(row) for row in windows.tolist()}, "draw gave a window that law does not have")


def _same_seed(fresh: Fresh) -> None:
    first, again = (tensors_of(_made(fresh)) for _ in range(2))
    wrong = [name for name in first if not np.array_equal(first[name], again[name])]
    expect(not wrong, f"the same seed gave other weights: {', '.join(wrong[:3])}")


def _parts(fresh: Fresh) -> None:
    model = _made(fresh)
    names = [name for name, _ in model.named_parameters()]
    expect(any(not is_head(name) for name in names), "no parameter is under backbones., which --train head freezes")
    expect(any(is_head(name) for name in names), "no parameter is outside backbones., so that there is no head")
    numbered = {e for e in map(expert_of, names) if e is not None}
    expect(numbered == set(range(model.config.experts)),
           f"experts are {sorted(numbered)} by the names moe.experts.<e>., and {model.config.experts} by the config")
    expect(len(model.expert_parameters()) == model.config.experts, "expert_parameters must have one entry per expert")


def _answers(fresh: Fresh) -> None:
    model = _made(fresh).eval()
    for count in (1, _BATCH):
        with torch.inference_mode():
            features = model.features(*_windows(model, count)[:2])
            expect(all(len(part) == count for part in features), "features must have the batch first")
            logits, routing = model.classify(features)
        expect(logits.shape == (count, len(EMOTIONS)), f"logits must be {(count, len(EMOTIONS))}, not {logits.shape}")
        expect(bool(logits.isfinite().all()), "logits are not finite")
        shapes = tuple(routing.gate.shape), tuple(routing.chosen.shape)
        wanted = (count, model.config.experts), (count, model.config.top_k)
        expect(shapes == wanted, f"the routing must be {wanted[0]} and {wanted[1]}, not {shapes[0]} and {shapes[1]}")


def _channels(fresh: Fresh) -> None:
    model = _made(fresh).eval()
    grey = _windows(model, 2)
    three = grey.event[:, :, None].expand(-1, -1, 3, -1, -1)
    with torch.inference_mode():
        one, other = (model.classify(model.features(grey.frame, event))[0] for event in (grey.event, three))
    expect(_near(one, other), "three equal channels must be seen as one grey picture is; use three_channels")


def _sizes(fresh: Fresh) -> None:
    config: ModelConfig = fresh()
    if config.fixed_size:
        return
    model = _made(fresh).eval()
    with torch.inference_mode():
        model.classify(model.features(*_windows(model, 2, config.input_size + 16)[:2]))


def _deterministic(fresh: Fresh) -> None:
    model = _made(fresh).eval()
    windows = _windows(model, _BATCH)
    before = tensors_of(model)
    with torch.inference_mode():
        first, again = (model.classify(model.features(*windows[:2]))[0] for _ in range(2))
        alone = torch.cat([model.classify(model.features(*(p[i : i + 1] for p in windows[:2])))[0]
                           for i in range(_BATCH)])
    expect(torch.equal(first, again), "the same pictures gave other logits the second time, in evaluation mode")
    expect(_near(first, alone), "what is said of a window depends on the others of its batch, in evaluation mode")
    after = tensors_of(model)
    changed = [name for name in before if not np.array_equal(before[name], after[name], equal_nan=True)]
    expect(not changed, f"recognising changed {', '.join(changed[:3])}, in evaluation mode")


def _restored(fresh: Fresh) -> None:
    model, other = _made(fresh).eval(), _made(fresh, seed=1).eval()
    odd = [name for name, value in tensors_of(model).items() if value.dtype.name not in ("float32", "int64")]
    expect(not odd, f"tensors must be float32 or int64: {', '.join(odd[:3])}")
    copy_weights(other, tensors_of(model))
    windows = _windows(model, _BATCH)
    with torch.inference_mode():
        first, again = (one.classify(one.features(*windows[:2]))[0] for one in (model, other))
    expect(torch.equal(first, again), "a model with the same weights gave other logits: it holds more than its tensors")


def _gradient(fresh: Fresh) -> None:
    model = _made(fresh).train()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad and not name.startswith("dead.")}
    reached, chosen = set[str](), set[int]()
    descent = torch.optim.AdamW(trained.values(), lr=_RATE)
    for seed in range(_STEPS):  # dropout, rare experts and silent neurons leave something out now and then
        torch.manual_seed(seed)
        windows = _windows(model, _BATCH, seed=seed)
        logits, routing = model.classify(model.features(*windows[:2]))
        loss = model.loss(logits, windows.labels, windows.learned)
        expect(loss.shape == () and bool(loss.isfinite()), "the loss is not one finite number")
        descent.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        chosen |= set(routing.chosen.reshape(-1).tolist())
        reached |= {name for name, p in trained.items() if p.grad is not None and bool(p.grad.abs().max() > 0)}
        missing = [name for name in trained if name not in reached and expert_of(name) in (None, *chosen)]
        if not missing:
            return
        descent.step()
    expect(False, f"the gradient of the loss does not reach {', '.join(missing[:5])} in {_STEPS} steps; "
                  "name it dead. if it is to rest")


def _head_alone(fresh: Fresh) -> None:
    model = _made(fresh).train()
    windows = _windows(model, _BATCH)
    with torch.no_grad():
        features = model.features(*windows[:2])
    model.loss(model.classify(features)[0], windows.labels, windows.learned).backward()  # type: ignore[no-untyped-call]
    reached = [name for name, p in model.named_parameters() if p.grad is not None]
    expect(bool(reached), "no gradient reaches the head from fixed features")
    wrong = [name for name in reached if not is_head(name)]
    expect(not wrong, f"classify uses {', '.join(wrong[:3])}, which are under backbones. and frozen by --train head")


def _learns(fresh: Fresh) -> None:
    model = _made(fresh).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    windows = _windows(model, _BATCH)
    descent = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=_RATE)
    losses = []
    for _ in range(_STEPS):
        logits, _ = model.classify(model.features(*windows[:2]))
        loss = model.loss(logits, windows.labels, windows.learned)
        descent.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        descent.step()
        losses.append(float(loss.detach()))
    expect(losses[-1] < 0.9 * losses[0],
           f"{_STEPS} steps on {_BATCH} windows lowered their loss from {losses[0]:.3f} to {losses[-1]:.3f} only")


def _made(fresh: Fresh, seed: int = 0) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: Network = fresh().make()
        return made


def _windows(model: Network, count: int, size: int = 0, seed: int = 0) -> _Windows:
    """Noise of normalised pictures, and every label in turn."""
    side, sampling = size or model.config.input_size, model.config.sampling
    random = stream(seed, "conformance windows")
    frame, event = (
        torch.from_numpy(random.standard_normal((count, len(seen), side, side)).astype(np.float32))
        for seen in (sampling.frames, sampling.events)
    )
    return _Windows(frame, event, torch.arange(count) % len(EMOTIONS))


def _near(one: Tensor, other: Tensor) -> bool:
    scale = max(1.0, float(torch.stack((one, other)).abs().max()))
    return bool((one - other).abs().max() <= _ROUNDING * scale)


PROPERTIES: Properties = {
    "says its name, sizes, sampling and recipes": _says_what_it_is,
    "samples windows that lie in the clip, by its law": _samples,
    "has the same weights for the same seed": _same_seed,
    "has its parts under their names": _parts,
    "answers with finite logits and its routing": _answers,
    "takes events of three channels": _channels,
    "takes pictures of another size, unless it says not": _sizes,
    "says the same of a window whatever the batch": _deterministic,
    "is the same model with the same tensors": _restored,
    "has a gradient for every parameter that is trained": _gradient,
    "learns its head from fixed features": _head_alone,
    "lowers its loss": _learns,
}
