"""What personal models are worth, from predictions made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simulations.personal_gains import PERSONAL, PRIORS, REFERENCE, Wearer, between, harm, table, verdicts

MODELS = (REFERENCE, PRIORS, PERSONAL[0])


def wearer(name: str, own: float, *, hits: int = 30, held_out: int = 30) -> Wearer:
    """A wearer whose global model recognises half of 40 clips and every held-out one; the personal model as is said."""
    correct = np.stack([np.full(40, 0.5), np.full(40, 0.5), np.full(40, own) + 0.001 * np.tile([1, -1], 20)])
    found = np.ones((3, held_out), bool)
    found[2, hits:] = False
    return Wearer(name, MODELS, correct, np.arange(held_out) % 7, found)


def row_of(seeds, tried):
    return next(row for row in table(seeds) if row["model"] == PERSONAL[0] and row["tried"] == tried)


def test_a_model_that_the_trial_calls_worse_is_not_served():
    worse, kept = wearer("a", 0.2, hits=20), wearer("b", 0.2, hits=29)
    assert worse.trial(PERSONAL[0]).verdict == "worse" and kept.trial(PERSONAL[0]).verdict == "passed"
    assert worse.gained(PERSONAL[0], tried=True).tolist() == [0.0] * 40
    assert worse.gained(PERSONAL[0], tried=False).mean() == pytest.approx(-0.3)
    assert kept.gained(PERSONAL[0], tried=True).mean() == pytest.approx(-0.3)


def test_too_few_held_out_clips_give_no_verdict_and_the_model_is_served():
    few = wearer("a", 0.2, hits=0, held_out=19)
    assert few.trial(PERSONAL[0]).verdict == "none"
    assert few.gained(PERSONAL[0], tried=True).mean() == pytest.approx(-0.3)
    row = row_of([[few, wearer("b", 0.2, hits=20)]], tried=True)
    assert (row["wearers"], row["turned_down"], row["no_verdict"]) == (2, 1, 1)


def test_the_median_is_over_wearers_and_the_mean_over_clips():
    gains = [0.0, 0.1, 0.1, 0.1, 0.4]
    seeds = [[wearer(str(place), 0.5 + gain) for place, gain in enumerate(gains)]] * 2
    row = row_of(seeds, tried=False)
    assert row["median"] == pytest.approx(0.1) and row["gain"] == pytest.approx(0.14)
    assert 0.0 <= row["median_low"] <= 0.1 <= row["median_high"] <= 0.4
    assert row["to_priors"] == pytest.approx(0.14) and 0 < row["holm_p"] <= 1


def test_the_trial_takes_harm_away_and_what_is_left_is_compared_with_chance():
    seeds = [[wearer("a", 0.2, hits=20), wearer("b", 0.7)], [wearer("c", 0.2, hits=20), wearer("d", 0.7)]]
    before, after = row_of(seeds, tried=False), row_of(seeds, tried=True)
    assert (before["harm"], before["worse"]) == (0.5, 0.5) and (after["harm"], after["worse"]) == (0.0, 0.0)
    assert after["harm_chance"] < before["harm_chance"]  # nothing is left to chance for who keeps the global model
    assert verdicts(after)["harm at most 5 points above chance"] == "met"


def test_every_seed_has_people_of_its_own():
    same_names = row_of([[wearer("a", 0.6), wearer("b", 0.6)], [wearer("a", 0.8), wearer("b", 0.8)]], tried=False)
    assert same_names["wearers"] == 4
    assert (same_names["median_low"], same_names["median_high"]) == (pytest.approx(0.1), pytest.approx(0.3))


def test_an_interval_resamples_seeds_and_the_people_of_each():
    assert between([np.full(3, 0.2), np.full(5, 0.2)], np.nanmedian) == (pytest.approx(0.2), pytest.approx(0.2))
    low, high = between([np.zeros(4), np.ones(2)], np.nanmean)
    assert (low, high) == (0.0, 1.0)  # either seed may be drawn alone
    alone = between([np.array([0.0, 1.0, 0.5])], np.nanmean)
    assert alone == (0.0, 1.0)


def test_harm_is_told_from_chance():
    assert harm(np.zeros(30), "a").tolist() == [0.0, 0.0, 0.0, 0.0]
    worse = harm(-0.2 + 0.001 * np.arange(30), "a")
    assert (worse[0], worse[2]) == (1.0, 1.0) and worse[3] < 0.05 < worse[1]
    noise = np.tile([1.0, -1.0], 14)
    assert harm(noise, "a")[0] == 1.0 and harm(noise, "a")[2] == 0.0  # too few clips count as harm, but not as worse


@pytest.mark.parametrize(
    ("low", "high", "gain", "harmed"),
    [
        (0.01, 0.04, "met", "met"),
        (-0.01, 0.06, "not resolved", "not resolved"),
        (-0.02, 0.0, "not met", "met"),
        (0.06, 0.09, "met", "not met"),
    ],
)
def test_verdicts_go_by_intervals(low, high, gain, harmed):
    ends = {f"{name}_{end}": value for name in ("median", "more_harm", "to_priors")
            for end, value in (("low", low), ("high", high))}
    assert list(verdicts(ends).values()) == [gain, harmed, gain]


def test_a_wearer_is_kept_as_a_file(tmp_path: Path):
    one = wearer("subject-1", 0.6, hits=10)
    one.write(tmp_path / "wearers" / "subject-1.npz")
    again = Wearer.read(tmp_path / "wearers" / "subject-1.npz")
    assert (again.name, again.models) == (one.name, one.models)
    assert all(np.array_equal(getattr(again, part), getattr(one, part)) for part in ("correct", "labels", "hits"))
