"""What is left of earlier domains: the measures of a stream, from its matrix of accuracies.

"Forgetting" differs between libraries (Avalanche: first less last; Mammoth: best less last), so the formulas are here.
Letters: T stages; domain j is what stage j learns; R[i, j] the accuracy on domain j after stage i, a share in [0, 1].
Row 0 is the base model, before the first stage; so R is (T + 1, T), and in the formulas below domains count from 1.

    ACC                    = mean over j        of R[T, j]
    BWT                    = mean over j < T    of R[T, j] - R[j, j]
    FWT                    = mean over j > 1    of R[j-1, j] - R[0, j]
    forgetting             = mean over j < T    of max over j <= i < T of R[i, j]  -  R[T, j]
    forgetting from base   = the same with the maximum over 0 <= i < T

ACC, BWT and FWT: Lopez-Paz & Ranzato 2017, "Gradient Episodic Memory", https://arxiv.org/abs/1706.08840, section 2,
with the base in place of a random model in FWT. Forgetting: Chaudhry et al. 2018, "Riemannian Walk",
https://arxiv.org/abs/1801.10112, section 3.1, which begins the maximum at the first stage whatever j is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: A stream on which naive fine-tuning forgets less than this says nothing about methods against forgetting.
INFORMATIVE_FORGETTING = 0.10


@dataclass(frozen=True)
class StreamScores:
    """The measures of one stream, as shares."""

    acc: float
    bwt: float
    fwt: float
    forgetting: float
    forgetting_from_base: float


def stream_scores(accuracy: NDArray[np.float64]) -> StreamScores:
    """The measures of ``accuracy`` (T + 1, T). Raises ValueError for another shape, or for fewer than two stages."""
    stages = accuracy.shape[-1]
    if accuracy.shape != (stages + 1, stages) or stages < 2:
        raise ValueError(f"accuracies of shape {accuracy.shape} are not (T + 1, T) of at least two stages")
    last, domains = accuracy[-1], np.arange(stages)
    learned = accuracy[domains + 1, domains]  # (T,) R[j, j]
    before = accuracy[domains, domains]  # (T,) R[j-1, j]
    return StreamScores(
        acc=float(last.mean()),
        bwt=float((last - learned)[:-1].mean()),
        fwt=float((before - accuracy[0])[1:].mean()),
        forgetting=forgetting_after(accuracy)[-1],
        forgetting_from_base=float((accuracy[:-1, :-1].max(axis=0) - last[:-1]).mean()),
    )


def forgetting_after(accuracy: NDArray[np.float64]) -> tuple[float, ...]:
    """Forgetting as if the stream had ended after stage 2, 3, ... T: T - 1 values, the last one the stream's own."""
    return tuple(
        float(np.mean([accuracy[j + 1 : stage, j].max() - accuracy[stage, j] for j in range(stage - 1)]))
        for stage in range(2, len(accuracy))
    )


def removed(naive: float, method: float) -> float | None:
    """The share of naive fine-tuning's forgetting that a method takes away: 1 - method / naive.

    None where naive fine-tuning forgets too little for the stream to count.
    """
    return 1 - method / naive if naive >= INFORMATIVE_FORGETTING else None


def worst_tenth(values: NDArray[np.float64]) -> float:
    """The mean of the worst ceil(0.1 n) of n values (devices)."""
    return float(np.sort(values)[: -(-len(values) // 10)].mean())
