"""Which clients a round asks: all of them, a number, or a share, drawn by (seed, round, attempt)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mcoe_model.errors import SettingsError, TooFewSubjects
from mcoe_model.streams import stream


def cohort_size(text: str, clients: int) -> int:
    """What ``all``, a whole number or a share between 0 and 1 means for this many clients.

    Raises SettingsError for anything else, TooFewSubjects when there are fewer clients than the number asked for.
    """
    if text == "all":
        return clients
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if text.strip().isdigit() and value >= 1:
        if value > clients:
            raise TooFewSubjects(f"the cohort asks for {int(value)} clients and there are {clients}; lower --cohort")
        return int(value)
    if 0 < value < 1:
        return max(1, round(value * clients))
    raise SettingsError([f"cohort must be 'all', a whole number or a share between 0 and 1, not {text!r}"])


def choose_cohort(
    clients: Sequence[str],
    size: int,
    *,
    seed: int,
    round_number: int,
    attempt: int,
    waited: Mapping[str, int] | None = None,
) -> tuple[str, ...]:
    """``size`` clients without repetition, in id order; the same for the same arguments, whatever their order.

    Another attempt at a round asks others, since those it asked first may be gone. ``waited`` makes the draw fairer to
    those who are seldom there: a client counts once, and once more for every round since it was last asked. Without
    it every client counts the same.
    """
    ordered = sorted(clients)
    shares = None
    if waited is not None:
        weights = np.array([1.0 + waited.get(client, 0) for client in ordered])
        shares = weights / weights.sum()
    chosen = stream(seed, round_number, "cohort", attempt).choice(len(ordered), size=size, replace=False, p=shares)
    return tuple(ordered[index] for index in sorted(chosen))
