"""Private mean: clipped updates, a fixed denominator and one Gaussian draw, for client-level differential privacy.

McMahan et al. 2018, "Learning Differentially Private Recurrent Language Models", algorithm 1 with flat clipping,
uniform weights and the fixed-denominator estimator (https://arxiv.org/abs/1710.06963). Differs: the cohort is not a
random sample that the guarantee could gain from, and batch-normalisation statistics are clipped and noised like all
else.

One client's whole update, shared tensors and experts together, moves the sum by at most ``clip``, since neither the
weights nor the denominator depend on anything a client says. That holds for one update per client in a round, each
with every expert: an expert that is absent would tell that nobody used it.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from mcoe_model.errors import SettingsError
from mcoe_model.streams import Key
from mcoe_model.update import TensorSpec, expert_of
from server.aggregation.block import Block
from server.aggregation.rule import Deltas, Float64s, Plan, Rule, RuleSettings, weighted_sum
from server.spool import SpooledUpdate

#: Bytes of the secret that noise keys are made from, and at least as many of a key.
SECRET_BYTES = 16


@dataclass(frozen=True)
class PrivateMeanSettings:
    """What bounds a client, and how much noise hides what is left of it.

    - ``clip``: a longer update (L2 norm over all its tensors) is shortened to this.
    - ``noise_multiplier``: standard deviation of the noise on the sum of updates, in clips. 1 is a good start.
    - ``denominator``: the sum is divided by this, the cohort size that is expected, whoever answers.
    """

    clip: float
    noise_multiplier: float
    denominator: int

    def __post_init__(self) -> None:
        found = []
        for name, value in (("clip", self.clip), ("noise multiplier", self.noise_multiplier)):
            if not 0 < value < float("inf"):
                found.append(f"{name} must be above 0 and finite, not {value}")
        if self.denominator < 1:
            found.append(f"denominator must be at least 1, not {self.denominator}")
        if found:
            raise SettingsError(found)

    @property
    def noise(self) -> float:
        """Standard deviation of the noise on every value of the delta."""
        return self.noise_multiplier * self.clip / self.denominator


def noise_key(secret: bytes, *what: Key) -> bytes:
    """The key of one round's noise: HMAC-SHA-256, under a server's secret, of what names the round.

    Whoever knows the secret can subtract the noise. It must therefore not be the experiment's seed, which every client
    is sent, but `SECRET_BYTES` random bytes that never leave the server's data folder. Raises SettingsError for less.
    """
    if len(secret) < SECRET_BYTES:
        raise SettingsError([f"the secret of the noise must have {SECRET_BYTES} random bytes, not {len(secret)}"])
    return hmac.digest(secret, "\x1f".join(f"{type(key).__name__}:{key}" for key in what).encode(), "sha256")


@dataclass(frozen=True)
class PrivateMean(Rule):
    """delta = (sum_k delta_k min(1, clip / |delta_k|) + N(0, (noise_multiplier clip)^2)) / denominator.

    One instance serves one round: ``noise_key`` is that round's, from `noise_key`. The noise is drawn from the key and
    from which updates are summed: the same round with the same updates has the same bits, and with others, after a
    client was forgotten or a backup restored, it draws anew, so that no two models differ by an update alone.

    The generator is Philox under a key of 128 bits. It gives no privacy whatever against who knows the key, and it is
    no cryptographic one; nor do its floating-point numbers resist attacks on their last digits (Mironov 2012).
    """

    name: ClassVar[str] = "private-mean"
    needs_every_expert: ClassVar[bool] = True

    private: PrivateMeanSettings
    noise_key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.noise_key) < SECRET_BYTES:
            raise SettingsError([f"the noise key must have {SECRET_BYTES} bytes, not {len(self.noise_key)}"])

    def plan(self, shared: Block, settings: RuleSettings, reference: SpooledUpdate | None) -> Plan:
        if settings.router == "damped":
            raise SettingsError([f"{self.name} cannot damp the router: the cohort's routing would weigh every client"])
        norms = _whole(shared).norms()
        clipped = np.divide(self.private.clip, norms, out=np.ones_like(norms), where=norms > self.private.clip)
        weights = (clipped / self.private.denominator).tolist()
        # Blocks and their chunks are asked for in a fixed order, which is the order of the columns of the one draw.
        normal = self._generator(shared, norms)
        return lambda block: self._combine(block, weights, normal)

    def _generator(self, shared: Block, norms: Float64s) -> np.random.Generator:
        """The round's generator. Norms count to nine digits: the last ones may differ between machines."""
        summed = [f"{sender.update_id} {norm:.8e}" for sender, norm in zip(shared.senders, norms, strict=True)]
        digest = hmac.digest(self.noise_key, "\n".join(summed).encode(), "sha256")
        return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "big")))

    def _combine(self, block: Block, weights: Sequence[float], normal: np.random.Generator) -> Deltas:
        for start, total in weighted_sum(block, weights):
            total += self.private.noise * normal.standard_normal(len(total))
            yield start, total


def _whole(shared: Block) -> Block:
    """All that is aggregated of the updates as one block: the shared tensors, then the experts'."""
    extents = shared.updates[0].extents
    experts = sorted(name for name in extents if expert_of(name) is not None)
    flat = tuple((name, TensorSpec(((extents[name][1] - extents[name][0]) // 4,), "float32")) for name in experts)
    return replace(shared, tensors=shared.tensors + flat)
