"""What models that fit one wearer are worth to the wearers: gains, harm and verdicts, from what was recognised.

A wearer's gain is a model's accuracy on the clips of that wearer's later sessions less the global model's. *After the
trial* a model that the wearable's own trial calls worse is not served: that wearer keeps the global one and has a gain
of 0. Where the trial gives no verdict, the model is served. Rates, gains and differences are in [0, 1].

Every seed has people of its own, so 95 % intervals are of resamples of seeds and, within each, of its wearers.
Letters: K seeds, S wearers of a seed, M models, n clips of later sessions, h held-out clips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.comparison import Comparison, compare
from mcoe_model.files import atomic_write
from mcoe_model.learning.metrics import Difference, holm, nested_difference
from mcoe_model.streams import stream
from simulations.goals import Verdict

REFERENCE, PRIORS = "global model", "class priors"
#: Models whose wearers are asked about beside those of the class priors; they and the priors are tried.
PERSONAL = ("mixture weights", "trained further", "personal router", "personal experts")
#: A wearer is harmed when the 95 % interval of the difference on their clips goes below this.
HARM = -0.03
#: How much more often than by chance wearers may be harmed.
MORE_HARM = 0.05
_SIGNS, _DRAWS = 1000, 10_000

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Wearer:
    """What the models did for one wearer.

    ``correct`` (M, n): how often each clip of the later sessions is recognised. ``labels`` (h,) and ``hits`` (M, h):
    the emotions of the held-out clips, and which of these are recognised in a trial.
    """

    name: str
    models: tuple[str, ...]
    correct: Floats
    labels: NDArray[np.int64]
    hits: NDArray[np.bool_]

    def write(self, path: Path) -> None:
        """Keep it as a file. Raises DiskFull."""
        with atomic_write(path) as file:
            np.savez(file, allow_pickle=False, **{name: np.asarray(value) for name, value in vars(self).items()})

    @staticmethod
    def read(path: Path) -> Wearer:
        """What `write` kept."""
        with np.load(path, allow_pickle=False) as kept:
            models = tuple(str(model) for model in kept["models"])
            return Wearer(str(kept["name"]), models, kept["correct"], kept["labels"], kept["hits"])

    def trial(self, model: str) -> Comparison:
        """What the wearable's trial finds of a model beside the global one."""
        newer, served = (self.hits[self.models.index(one)].tolist() for one in (model, REFERENCE))
        return compare(self.labels.tolist(), newer, served)

    def recognised(self, model: str, *, tried: bool) -> Floats:
        """(n,) how often each clip is recognised with a model, or with what is served once it was ``tried``."""
        served = REFERENCE if tried and self.trial(model).verdict == "worse" else model
        found: Floats = self.correct[self.models.index(served)]
        return found

    def gained(self, model: str, *, tried: bool) -> Floats:
        """(n,) the same less the global model's."""
        return self.recognised(model, tried=tried) - self.recognised(REFERENCE, tried=False)


Seeds = Sequence[Sequence[Wearer]]


def table(seeds: Seeds) -> list[dict[str, Any]]:
    """A row for every model as it is, then one after the trial for each that is tried.

    ``harm`` is how often wearers are harmed, ``harm_chance`` how often they would be if what is served changed nothing
    on average, ``more_harm`` the first less the second. ``worse``: wearers whose interval lies below 0. Differences to
    the class priors are of both as they are, or of both after the trial; their p is adjusted over all of these (Holm).
    """
    models = seeds[0][0].models
    tried = [model for model in models if model in (PRIORS, *PERSONAL)]
    rows = [_row(seeds, model, tried=False) for model in models] + [_row(seeds, model, tried=True) for model in tried]
    beside = [_beside(seeds, row) for row in rows]
    adjusted = iter(holm([one.p for one in beside if one]))
    return [row | _to_priors(one, next(adjusted) if one else None) for row, one in zip(rows, beside, strict=True)]


def verdicts(row: Mapping[str, Any]) -> dict[str, Verdict]:
    """Whether what a personal model is to reach is reached, as far as its row's intervals tell."""
    low, high = row["more_harm_low"], row["more_harm_high"]
    return {
        "median gain above 0": _verdict(row["median_low"] > 0, row["median_high"] <= 0),
        f"harm at most {100 * MORE_HARM:.0f} points above chance": _verdict(high <= MORE_HARM, low > MORE_HARM),
        "more than the class priors alone": _verdict(row["to_priors_low"] > 0, row["to_priors_high"] <= 0),
    }


def harm(difference: Floats, name: str) -> NDArray[np.float64]:
    """Of a wearer with these differences of clips (n,): harmed (0 or 1), by chance, below 0 (0 or 1), by chance: (4,).

    The interval is of the mean over clips, normal. By chance: the share of 1000 draws of a random sign for every clip.
    """
    signs = stream(0, "harm", name).choice([-1.0, 1.0], size=(_SIGNS + 1, len(difference)))
    signs[0] = 1.0
    drawn = signs * difference  # (1001, n)
    half = 1.96 * drawn.std(axis=1, ddof=1) / np.sqrt(len(difference))
    low, high = drawn.mean(axis=1) - half, drawn.mean(axis=1) + half
    below = [low < HARM, high < 0]
    return np.array([share for one in below for share in (one[0], one[1:].mean())], np.float64)


def between(values: Sequence[Floats], middle: Callable[..., Any]) -> tuple[float, float]:
    """The 95 % interval of a mean or median (`np.nanmean`, `np.nanmedian`) of values of people: K of (S,).

    Percentiles over resamples of seeds and, within every seed drawn, of as many of its people as it has.
    """
    sizes = np.array([len(one) for one in values])  # (K,)
    padded = np.full((len(values), sizes.max()), np.nan)  # (K, S)
    for row, one in zip(padded, values, strict=True):
        row[: len(one)] = one
    random = stream(0, "between")
    seeds = random.integers(len(values), size=(_DRAWS, len(values)))[:, :, None]  # (draws, K, 1)
    people = (random.random((_DRAWS, *padded.shape)) * sizes[seeds]).astype(np.int64)  # (draws, K, S)
    drawn = np.where(np.arange(padded.shape[1]) < sizes[seeds], padded[seeds, people], np.nan)
    low, high = np.percentile(middle(drawn.reshape(_DRAWS, -1), axis=1), [2.5, 97.5])
    return float(low), float(high)


def _row(seeds: Seeds, model: str, *, tried: bool) -> dict[str, Any]:
    wearers = [wearer for seed in seeds for wearer in seed]
    recognised = [wearer.recognised(model, tried=tried) for wearer in wearers]
    row = {
        "model": model,
        "tried": tried,
        "war": float(np.concatenate(recognised).mean()),
        "worst": float(min(one.mean() for one in recognised)),
    }
    gained = [[wearer.gained(model, tried=tried) for wearer in seed] for seed in seeds]
    return row | _gains(seeds, gained, model) | _harm(seeds, gained, model) | _trials(wearers, model, tried)


def _gains(seeds: Seeds, gained: Sequence[Sequence[Floats]], model: str) -> dict[str, float | None]:
    """The mean gain over clips and the median over wearers; None of the global model itself."""
    names = [f"{measure}{end}" for measure in ("gain", "median") for end in ("", "_low", "_high")]
    if model == REFERENCE:
        return dict.fromkeys(names)
    means = [np.array([one.mean() for one in seed]) for seed in gained]
    mean = _apart(seeds, gained)
    median = (float(np.median(np.concatenate(means))), *between(means, np.nanmedian))
    return dict(zip(names, (*mean[:3], *median), strict=True))


def _harm(seeds: Seeds, gained: Sequence[Sequence[Floats]], model: str) -> dict[str, float | None]:
    names = ("harm", "harm_chance", "worse", "worse_chance", "more_harm_low", "more_harm_high")
    if model == REFERENCE:
        return dict.fromkeys(names)
    found = [
        np.stack([harm(one, f"{number}/{wearer.name}") for wearer, one in zip(seed, own, strict=True)])  # (S, 4)
        for number, (seed, own) in enumerate(zip(seeds, gained, strict=True))
    ]
    low, high = between([one[:, 0] - one[:, 1] for one in found], np.nanmean)
    return dict(zip(names, (*np.concatenate(found).mean(axis=0).tolist(), low, high), strict=True))


def _trials(wearers: Sequence[Wearer], model: str, tried: bool) -> dict[str, int | None]:
    """How many wearers' trials called the model worse, and how many had too few clips for a verdict."""
    said = [wearer.trial(model).verdict for wearer in wearers] if tried else None
    return {
        "wearers": len(wearers),
        "turned_down": said.count("worse") if said else None,
        "no_verdict": said.count("none") if said else None,
    }


def _beside(seeds: Seeds, row: Mapping[str, Any]) -> Difference | None:
    """A personal model's difference to the class priors; None for what is none."""
    if row["model"] not in PERSONAL:
        return None
    model, tried = row["model"], row["tried"]
    return _apart(
        seeds,
        [[one.recognised(model, tried=tried) - one.recognised(PRIORS, tried=tried) for one in seed] for seed in seeds],
    )


def _apart(seeds: Seeds, differences: Sequence[Sequence[Floats]]) -> Difference:
    """The mean over clips of these differences of every wearer (n,)."""
    pairs = []
    for seed, own in zip(seeds, differences, strict=True):
        flat = np.concatenate(own)
        names = [wearer.name for wearer, one in zip(seed, own, strict=True) for _ in one]
        pairs.append((flat, np.zeros_like(flat), names))
    return nested_difference(pairs, seed=0)


def _to_priors(apart: Difference | None, holm_p: float | None) -> dict[str, float | None]:
    names = ("to_priors", "to_priors_low", "to_priors_high", "holm_p")
    return dict(zip(names, (*apart[:3], holm_p), strict=True)) if apart else dict.fromkeys(names)


def _verdict(met: bool, missed: bool) -> Verdict:
    return "met" if met else "not met" if missed else "not resolved"
