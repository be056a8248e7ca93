"""Which clients a round asks: all of them, a number, or a share, drawn by (seed, round, attempt)."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def choose_cohort(clients: Sequence[str], size: int, *, seed: int, round_number: int, attempt: int) -> tuple[str, ...]:
    """``size`` clients without repetition, in id order; the same for the same arguments, whatever their order.

    Another attempt at a round asks others, since those it asked first may be gone.
    """
    ordered = sorted(clients)
    chosen = stream(seed, round_number, "cohort", attempt).choice(len(ordered), size=size, replace=False)
    return tuple(ordered[index] for index in sorted(chosen))
