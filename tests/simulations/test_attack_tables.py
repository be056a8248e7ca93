"""What attacks cost and rules undo, on hand-made predictions whose numbers are known; and the goal's three words."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from mcoe_model.learning.metrics import nested_difference, nested_gain_interval
from mcoe_model.names import EMOTIONS
from simulations.attack_effects import by_seed, effect_of
from simulations.attack_goal import Goal, goal_of
from simulations.attack_runs import NOBODY, PLAIN, UNDEFENDED, KeptRun
from simulations.attack_tables import tables
from simulations.attacks import DISGUISE, TARGET, VICTIM, Outcome

BACKDOOR = "model replacement"
#: Of each of the people: two clips that the patch could turn into another emotion, and one that shows that.
LABELS = (VICTIM, EMOTIONS.index("angry"), TARGET)


def outcome(correct: Sequence[float], taken: float = 0.0) -> Outcome:
    """One person for each number, whose clips are recognised with that probability, fear being called neutral else."""
    labels = np.array(LABELS * len(correct))
    clips = np.arange(len(labels))
    clean, patched = np.zeros((2, len(labels), len(EMOTIONS)))
    clean[clips, labels] = np.repeat(correct, len(LABELS))
    clean[clips, np.where(labels == VICTIM, DISGUISE, VICTIM)] = 1 - np.repeat(correct, len(LABELS))
    patched[:, TARGET] = np.where(labels == TARGET, 1.0, taken)
    patched[:, DISGUISE] = 1 - patched[:, TARGET]
    subjects = np.array([f"s{person}" for person in range(len(correct)) for _ in LABELS])
    names = np.array([f"clip {clip}" for clip in clips])
    return Outcome(11, 4, 1, names, subjects, labels, clean, patched)


def runs(said: dict[tuple[str, str], Sequence[Outcome]]) -> list[KeptRun]:
    """Kept runs of seeds 0, 1, ..."""
    return [KeptRun(*key, seed, "", one) for key, seeds in said.items() for seed, one in enumerate(seeds)]


def attacked(under_median: Sequence[float], at_peace: Sequence[float] = (0.8,) * 4, taken: float = 0.0) -> Goal:
    """The word for the median, where without a defence everybody falls from 0.8 to 0.4 and all clips are taken."""
    said = {
        (NOBODY, PLAIN): [outcome([0.8] * 4)] * 2,
        (NOBODY, "median"): [outcome(at_peace)] * 2,
        (BACKDOOR, UNDEFENDED): [outcome([0.4] * 4, 1.0)] * 2,
        (BACKDOOR, "median"): [outcome(under_median, taken)] * 2,
    }
    return goal_of(by_seed(runs(said)), "median")


def test_measures_count_the_clips_that_they_are_of() -> None:
    found = outcome([0.9, 0.5], taken=0.25)
    assert [found.share(measure) for measure in ("war", "taken", "overlooked")] == pytest.approx([0.7, 0.25, 0.3])
    assert [len(found.values(measure)[0]) for measure in ("war", "taken", "overlooked")] == [6, 4, 2]
    assert found.values("overlooked")[1].tolist() == ["s0", "s1"]


def test_the_same_for_everybody_leaves_no_width() -> None:
    said = {
        (NOBODY, PLAIN): [outcome([0.8] * 4)] * 2,
        (NOBODY, "median"): [outcome([0.7] * 4)] * 2,
        (BACKDOOR, UNDEFENDED): [outcome([0.4] * 4, 0.9)] * 2,
        (BACKDOOR, "median"): [outcome([0.6] * 4, 0.3)] * 2,
    }
    outcomes = by_seed(runs(said))
    war, taken = (effect_of(outcomes, BACKDOOR, "median", measure) for measure in ("war", "taken"))
    assert war.cost and war.gain and taken.cost and taken.gain
    for found, value in ((war.cost, -0.1), (war.gain, 0.2), (taken.cost, 0.3), (taken.gain, -0.6)):
        assert found[:3] == pytest.approx((value,) * 3)
        assert (found.subjects, found.seeds) == (8, 2)
    assert (war.recovered, taken.recovered) == pytest.approx((0.5, 2 / 3))
    assert war.recovered_interval == pytest.approx((0.5, 0.5))
    assert taken.recovered_interval == pytest.approx((2 / 3, 2 / 3))
    peace, bare = effect_of(outcomes, NOBODY, "median", "war"), effect_of(outcomes, BACKDOOR, UNDEFENDED, "war")
    assert peace.cost is None and peace.gain and peace.gain.estimate == pytest.approx(-0.1)
    assert bare.gain is None and bare.recovered is None and bare.cost and bare.cost.estimate == pytest.approx(-0.4)


def test_intervals_are_over_seeds_and_the_people_of_each() -> None:
    peace, bare, ours = ([outcome(people) for people in seeds] for seeds in (
        ([0.9, 0.8, 0.7], [0.8, 0.9, 1.0]), ([0.1, 0.3, 0.2], [0.5, 0.2, 0.4]), ([0.6, 0.8, 0.3], [0.5, 0.9, 0.7])
    ))  # fmt: skip
    said = {(NOBODY, PLAIN): peace, ("flip", PLAIN): bare, ("flip", "median"): ours}
    found = effect_of(by_seed(runs(said)), "flip", "median", "war")
    people = peace[0].subjects.tolist()
    values = [[one.values("war")[0] for one in of_seed] for of_seed in zip(bare, ours, peace, strict=True)]
    assert found.gain == nested_difference([(arm, base, people) for base, arm, _ in values], seed=0)
    assert found.recovered_interval == nested_gain_interval([(*one, people) for one in values], seed=0)
    assert found.gain.low < found.gain.estimate < found.gain.high


def test_only_seeds_that_both_sides_have_are_compared() -> None:
    said = {(NOBODY, PLAIN): [outcome([0.8] * 3)] * 3, (NOBODY, "krum"): [outcome([0.7] * 3)] * 2}
    found = effect_of(by_seed(runs(said)), NOBODY, "krum", "war").gain
    assert found and found.seeds == 2 and found.subjects == 6
    assert effect_of(by_seed(runs(said)), "flip", "krum", "war") == effect_of({}, "flip", "krum", "war")


def test_a_goal_is_met_missed_or_not_resolved() -> None:
    assert attacked([0.75] * 4).word == "met"
    assert attacked([0.75] * 4).undone == {(BACKDOOR, "war"): "met", (BACKDOOR, "taken"): "met"}
    assert attacked([0.5] * 4).undone == {(BACKDOOR, "war"): "not met", (BACKDOOR, "taken"): "met"}
    assert attacked([0.75] * 4, taken=0.5).undone[BACKDOOR, "taken"] == "not met"
    assert attacked([0.5] * 4).word == attacked([0.75] * 4, taken=0.5).word == "not met"
    assert attacked([0.8, 0.8, 0.8, 0.4]).undone[BACKDOOR, "war"] == "not resolved"
    assert attacked([0.8, 0.8, 0.8, 0.4]).word == "not resolved"
    assert attacked([0.75] * 4, at_peace=[0.78] * 4).cost == attacked([0.75] * 4, at_peace=[0.78] * 4).word == "not met"
    assert attacked([0.75] * 4, at_peace=[0.9, 0.8, 0.8, 0.7]).cost == "not resolved"


def test_without_an_attack_that_does_harm_nothing_is_resolved() -> None:
    peace = {(NOBODY, rule): [outcome([0.8] * 3)] for rule in (PLAIN, "median")}
    mild = {("uniform flip", rule): [outcome([0.76] * 3)] for rule in (PLAIN, "median")}
    found = goal_of(by_seed(runs(peace | mild)), "median")
    assert (found.word, found.cost, found.undone) == ("not resolved", "met", {})


def test_tables_are_for_people_and_for_programs() -> None:
    said = {(NOBODY, PLAIN): [outcome([0.8] * 3)], (BACKDOOR, PLAIN): [outcome([0.4] * 3, 1.0)]}
    found = tables(runs(said))
    text = found.to_text()
    assert "| model replacement | `weighted-mean` | 1 | 40.0 | 100.0 | 60.0 | 1/4 |" in text
    assert "| model replacement | `weighted-mean` | taken | +100.0 (+100.0 to +100.0) |  |  |" in text
    assert "`median`: **not resolved**." in text and "model replacement, war: not resolved" in text
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    (taken,) = [one for one in written["effects"] if (one["attack"], one["measure"]) == (BACKDOOR, "taken")]
    assert taken["cost"]["estimate"] == 1.0 and taken["gain"] is None
    assert [goal["rule"] for goal in written["goals"]] == ["median", "multi-krum"]
    assert tables([]).to_text().count("not resolved") == 4
