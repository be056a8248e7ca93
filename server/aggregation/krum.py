"""Krum: the update that lies closest to its neighbours is the round's.

Blanchard et al. 2017, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", section 4
(https://papers.nips.cc/paper/6617). Differs: only what every client sent decides who is chosen, since experts that were
not used are absent from an update. The chosen clients then decide for the experts too, where their deltas are cut to
the median norm over all clients that sent the expert: who was honest on the shared tensors may yet send a huge expert.
An expert that fewer than 2f + 1 clients sent keeps its value, for f of them could set that median.
"""

from __future__ import annotations

import numpy as np

from server.aggregation.block import Block
from server.aggregation.rule import Deltas, Float64s, Plan, Rule, RuleSettings, weighted_sum
from server.spool import SpooledUpdate

#: A squared distance below this share of the squared norms is the rounding of the inner products: the rows are equal.
_ROUNDING = 1e-6


class Krum(Rule):
    """The one update with the smallest score, K >= 2f + 3."""

    name = "krum"

    def least(self, settings: RuleSettings) -> int:
        return 2 * settings.faulty + 3

    def plan(self, shared: Block, settings: RuleSettings, reference: SpooledUpdate | None) -> Plan:
        ranked = _ranked(_scores(shared.gram(), settings.faulty))
        chosen = {shared.senders[index].update_id for index in ranked[: self.count(len(ranked), settings)]}
        return lambda block: _mean_of(chosen, block, settings)

    def count(self, clients: int, settings: RuleSettings) -> int:
        """How many updates are chosen."""
        return 1


def _scores(gram: Float64s, faulty: int) -> Float64s:
    """Sum of the squared distances to the K - f - 2 closest other rows: (K, K) -> (K,)."""
    squares = np.diag(gram)
    both = squares[:, None] + squares[None, :]
    with np.errstate(invalid="ignore"):
        distances = both - 2 * gram
    distances[distances < _ROUNDING * both] = 0.0
    distances[~np.isfinite(both)] = np.inf  # rows whose squares no float32 holds are far from every other
    np.fill_diagonal(distances, np.inf)  # a row is not its own neighbour
    scores: Float64s = np.sort(distances, axis=1)[:, : len(gram) - faulty - 2].sum(axis=1)
    return scores


def _ranked(scores: Float64s) -> list[int]:
    """Rows by score, the best first, equal ones in update-id order.

    Scores are compared to six digits: beyond them rounding, which depends on the number of threads, would tell
    equal updates apart.
    """
    return sorted(range(len(scores)), key=lambda index: (float(f"{scores[index]:.5e}"), index))


def _mean_of(chosen: set[str], block: Block, settings: RuleSettings) -> Deltas | None:
    """The mean of the chosen senders' rows, bounded by norm for an expert."""
    counts = [sender.update_id in chosen for sender in block.senders]
    if not any(counts):
        return None
    weights = np.array(counts, np.float64) / sum(counts)
    if block.expert is not None:
        if len(block.senders) < 2 * settings.faulty + 1:
            return None
        norms = block.norms()
        bound = float(np.median(norms))
        weights *= np.divide(bound, norms, out=np.ones_like(norms), where=norms > bound)
    return weighted_sum(block, weights.tolist())
