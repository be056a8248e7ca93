"""Weighted mean: every client counts by its number of clips, at most ``max_examples``.

McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", algorithm 1
(https://arxiv.org/abs/1602.05629). Differs: the weight is capped, and an expert's tensors are averaged over the
clients that sent them, since an unused expert is absent from an update.
"""

from __future__ import annotations

from collections.abc import Sequence

from server.aggregation.rule import Contribution, Float32s, Float64s, RuleSettings, weighted_sum


class WeightedMean:
    """delta = sum_k a_k delta_k with a_k = min(n_k, max_examples) / sum."""

    def shared(self, rows: Float32s, senders: Sequence[Contribution], settings: RuleSettings) -> Float64s:
        counted = [min(sender.examples, settings.max_examples) for sender in senders]
        total = sum(counted)
        return weighted_sum(rows, [count / total for count in counted])

    def expert(
        self, expert: int, rows: Float32s, senders: Sequence[Contribution], settings: RuleSettings
    ) -> Float64s:
        return self.shared(rows, senders, settings)
