"""Measures against the published predictions and against numbers worked out by hand."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcoe_model.data.see import parse_name
from mcoe_model.learning.metrics import (
    holm,
    mcnemar,
    nested_difference,
    nested_gain_interval,
    paired_difference,
    paired_share_interval,
    recovered_gain,
    recovered_gain_interval,
    score,
)
from mcoe_model.names import EMOTIONS

C = len(EMOTIONS)


def one_hot(predicted: list[int]) -> np.ndarray:
    return np.eye(C)[predicted]


@pytest.fixture(scope="module")
def published() -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """True classes (767,), predictions of 20 passes (20, 767), subjects and lightings of SEEN's E4_S3."""
    with np.load(Path(__file__).parents[1] / "golden" / "seen_e4_s3.npz", allow_pickle=False) as golden:
        names = [parse_name(str(name)) for name in golden["names"]]
        predicted = golden["predicted"]
    true = np.array([EMOTIONS.index(name.emotion) for name in names])
    return true, predicted, [name.subject for name in names], [name.lighting for name in names]


def test_the_expectation_over_passes_is_the_published_mean(
    published: tuple[np.ndarray, np.ndarray, list[str], list[str]],
) -> None:
    true, predicted, subjects, lightings = published
    expected = np.eye(C)[predicted].mean(0)  # (767, C): 20 passes as a distribution
    scores = score(true, expected, subjects, lightings)
    assert 100 * scores.war == pytest.approx(83.64, abs=0.005)
    assert 100 * scores.uar == pytest.approx(84.11, abs=0.005)
    assert 100 * scores.f1p == pytest.approx(83.80, abs=0.005)
    assert {name: round(100 * recall, 2) for name, recall in scores.per_emotion.items()} == {
        "angry": 92.23, "disgust": 76.69, "fear": 87.65, "happiness": 85.00, "neutral": 85.22, "sadness": 89.90,
        "surprise": 72.08,
    }  # fmt: skip
    assert {name: round(100 * lighting.war, 2) for name, lighting in scores.per_lighting.items()} == {
        "normal": 83.27, "overexposed": 85.62, "low-light": 80.79, "hdr": 84.83,
    }  # fmt: skip
    assert sum(lighting.subjects for lighting in scores.per_lighting.values()) == 89
    assert np.sum(scores.confusion) == pytest.approx(767) and scores.n == 767 and scores.classes == 7


def test_macro_f1_of_one_pass_is_the_textbook_one(
    published: tuple[np.ndarray, np.ndarray, list[str], list[str]],
) -> None:
    true, predicted, subjects, lightings = published
    f1 = []
    for emotion in range(C):
        hit = np.sum((true == emotion) & (predicted[0] == emotion))
        precision, recall = hit / np.sum(predicted[0] == emotion), hit / np.sum(true == emotion)
        f1.append(2 * precision * recall / (precision + recall))
    scores = score(true, one_hot(predicted[0]), subjects, lightings)
    assert scores.macro_f1 == pytest.approx(np.mean(f1))


def test_by_hand() -> None:
    true = np.array([0, 0, 0, 2])
    expected = np.zeros((4, C))
    expected[0, 0] = 1.0
    expected[1, [0, 2]] = 0.5
    expected[2, 5] = 1.0
    expected[3, [0, 2]] = 0.25, 0.75
    softmax = one_hot([0, 2, 0, 2])
    scores = score(true, expected, ["a", "a", "b", "b"], ["normal", "normal", "hdr", "hdr"], mean_softmax=softmax)
    assert scores.war == pytest.approx(2.25 / 4)
    assert scores.per_emotion == pytest.approx({"angry": 0.5, "fear": 0.75})
    assert scores.uar == pytest.approx(0.625) and scores.classes == 2
    assert scores.f1p == pytest.approx(0.33 * 0.625 + 0.67 * 0.5625)
    # angry: TP 1.5, FN 1.5, FP 0.25; fear: TP 0.75, FN 0.25, FP 0.5
    assert scores.macro_f1 == pytest.approx((3 / 4.75 + 1.5 / 2.25) / 2)
    assert scores.per_lighting["normal"] == (0.75, 1, 2) and scores.per_lighting["hdr"] == (0.375, 1, 2)
    assert list(scores.per_lighting) == ["normal", "hdr"]
    assert scores.clip_war == 0.75 and scores.worst_tenth is None
    assert scores.confusion[0] == (1.5, 0, 0.5, 0, 0, 1, 0)


def test_absent_classes_count_nothing_only_as_published() -> None:
    true, clips = np.array([0, 1]), (["a", "a"], ["normal", "normal"])
    assert score(true, one_hot([0, 1]), *clips).uar == 1
    as_published = score(true, one_hot([0, 1]), *clips, published=True)
    assert as_published.uar == as_published.macro_f1 == pytest.approx(2 / 7) and as_published.classes == 7
    assert as_published.war == 1


def test_worst_tenth_takes_the_worst_of_those_with_five_clips() -> None:
    subjects, correct = [], []
    for who in range(11):  # 11 subjects with 5 clips: ceil(1.1) = 2 of them
        subjects += [f"{who:03d}"] * 5
        correct += [who / 10] * 5
    subjects += ["few"] * 4
    correct += [0.0] * 4
    expected = np.zeros((len(correct), C))
    expected[:, 0], expected[:, 1] = correct, 1 - np.array(correct)
    scores = score(np.zeros(len(correct), dtype=np.int64), expected, subjects, ["normal"] * len(correct))
    assert scores.worst_tenth == pytest.approx((0.0 + 0.1) / 2)


def test_worst_tenth_of_seventy_is_seven() -> None:
    """0.1 * 70 is above 7 in floating point."""
    subjects = [f"{who:03d}" for who in range(70) for _ in range(5)]
    predicted = [1 if int(who) < 7 else 0 for who in subjects]
    scores = score(np.zeros(350, dtype=np.int64), one_hot(predicted), subjects, ["normal"] * 350)
    assert scores.worst_tenth == 0


def test_to_json_is_plain() -> None:
    scores = score(np.array([0, 1]), one_hot([0, 0]), ["a", "b"], ["normal", "hdr"])
    plain = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    assert plain == scores.to_json()
    assert plain["per_lighting"]["hdr"] == {"war": 0.0, "subjects": 1, "clips": 1} and plain["clip_war"] is None


@pytest.mark.parametrize("fault", ["empty", "subjects", "classes", "sum"])
def test_arrays_that_do_not_fit_are_refused(fault: str) -> None:
    true, expected, subjects = np.array([0, 1]), one_hot([0, 1]), ["a", "b"]
    if fault == "empty":
        true, expected, subjects = true[:0], expected[:0], []
    elif fault == "subjects":
        subjects = ["a"]
    elif fault == "classes":
        expected = expected[:, :6]
    else:
        expected = expected / 2
    with pytest.raises(ValueError, match=r"sum to one|true classes"):
        score(true, expected, subjects, ["normal"] * len(true))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.sampled_from("abc")), min_size=1, max_size=60))
def test_measures_stay_in_range_and_ignore_the_order(clips: list[tuple[int, int, str]]) -> None:
    def of(clips: list[tuple[int, int, str]]) -> dict[str, object]:
        true, predicted, subjects = zip(*clips, strict=True)
        return score(np.array(true), one_hot(list(predicted)), subjects, ["hdr"] * len(true)).to_json()

    measured = of(clips)
    for measure in ("war", "uar", "f1p", "macro_f1"):
        assert 0 <= measured[measure] <= 1
    assert measured["confusion"] == of(clips[::-1])["confusion"]


def test_recovered_gain() -> None:
    assert recovered_gain(0.4, 0.55, 0.6) == pytest.approx(0.75)
    assert recovered_gain(0.4, 0.3, 0.6) == pytest.approx(-0.5)
    assert recovered_gain(0.4, 0.5, 0.4) is None and recovered_gain(0.4, 0.5, 0.3) is None


def people(
    generator: np.random.Generator, subjects: int, shift: float, seeds: int, between_seeds: float = 0.02
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Two arms whose difference varies by subject (sd 0.05) and by seed around ``shift``."""
    who = np.repeat(np.arange(subjects), generator.integers(4, 20, subjects))
    gain = shift + 0.05 * generator.normal(size=subjects)[who] + between_seeds * generator.normal(size=(seeds, 1))
    reference = generator.random((seeds, len(who)))
    return reference + gain, reference, [f"{one:03d}" for one in who]


def test_the_estimate_is_the_difference_of_the_wars() -> None:
    arm, reference, subjects = people(np.random.default_rng(1), 30, 0.03, 4)
    found = paired_difference(arm, reference, subjects, seed=0)
    assert found.estimate == pytest.approx(arm.mean() - reference.mean())
    assert found.low < found.estimate < found.high and (found.subjects, found.seeds) == (30, 4)
    assert found == paired_difference(arm, reference, subjects, seed=0)
    swapped = paired_difference(reference, arm, subjects, seed=0)
    assert (swapped.estimate, swapped.p) == pytest.approx((-found.estimate, found.p))


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    covered = 0
    for repetition in range(200):
        found = paired_difference(*people(generator, 40, 0.0, 10), seed=repetition, draws=500)
        covered += found.low <= 0.0 <= found.high
    assert 0.90 <= covered / 200 <= 1.0


def test_p_is_uniform_without_a_difference_and_small_with_one() -> None:
    generator = np.random.default_rng(6)
    without = [paired_difference(*people(generator, 12, 0.0, 1, 0.0), seed=0, draws=1).p for _ in range(200)]
    assert 0.4 < np.mean(without) < 0.6 and np.mean(np.array(without) < 0.05) < 0.1
    assert paired_difference(*people(generator, 40, 0.1, 1), seed=0).p == pytest.approx(1 / 10_001)


def test_p_counts_every_sign_flip() -> None:
    gain = np.array([0.3, 0.1, -0.05, 0.2])
    flips = [abs(np.dot(signs, gain)) for signs in itertools.product((-1, 1), repeat=4)]
    expected = np.mean(np.array(flips) >= abs(gain.sum()) - 1e-12)
    found = paired_difference(gain[None], np.zeros((1, 4)), list("abcd"), seed=0)
    assert found.p == pytest.approx(expected) == 0.25


def test_the_same_arm_twice_is_no_difference() -> None:
    arm, _, subjects = people(np.random.default_rng(1), 20, 0.0, 2)
    found = paired_difference(arm, arm, subjects, seed=0)
    assert (found.estimate, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_the_same_gain_on_every_clip_is_certain() -> None:
    """Whoever is drawn, and however many clips they bring: WAR differs by just that."""
    _, reference, subjects = people(np.random.default_rng(1), 20, 0.0, 2)
    found = paired_difference(reference + 0.1, reference, subjects, seed=0)
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))


def test_clips_of_one_subject_stay_together() -> None:
    """A hundred equal clips of a subject tell no more than one."""
    gain = np.random.default_rng(2).normal(0.02, 0.1, 25)
    one, zero = gain[None], np.zeros((1, 25))
    names = [f"{who:03d}" for who in range(25)]
    single = paired_difference(one, zero, names, seed=0)
    many = paired_difference(one.repeat(100, 1), zero.repeat(100, 1), list(np.repeat(names, 100)), seed=0)
    assert many == pytest.approx(single)


def test_a_clip_that_counts_twice_is_as_two_of_a_subject() -> None:
    arm, reference, subjects = people(np.random.default_rng(4), 12, 0.03, 3)
    times = np.random.default_rng(4).integers(1, 4, len(subjects))
    found = paired_difference(arm, reference, subjects, weights=times / times.sum(), seed=0)
    repeated = (arm.repeat(times, 1), reference.repeat(times, 1), list(np.repeat(subjects, times)))
    assert found == pytest.approx(paired_difference(*repeated, seed=0))
    assert found.estimate == pytest.approx(((arm - reference) * times).sum() / (3 * times.sum()))
    with pytest.raises(ValueError, match="weights"):
        paired_difference(arm, reference, subjects, weights=times[1:] / 2, seed=0)


def test_the_share_of_a_whole_has_the_interval_of_subjects_and_seeds() -> None:
    """It holds the estimate, widens with either's spread, and is none where the whole may be nothing."""
    generator = np.random.default_rng(9)
    subjects = [f"{who:03d}" for who in range(30)]

    def width(between_people: float, between_seeds: float) -> float:
        whole = 0.5 + 0.02 * generator.normal(size=(6, 30))
        share = 0.6 + between_people * generator.normal(size=30) + between_seeds * generator.normal(size=(6, 1))
        part = whole * share
        found = paired_share_interval(part, whole, subjects, seed=0)
        assert found is not None and found == paired_share_interval(part, whole, subjects, seed=0)
        assert found[0] < part.sum() / whole.sum() < found[1]
        return found[1] - found[0]

    assert width(0.2, 0.0) > 3 * width(0.01, 0.01) and width(0.0, 0.2) > 3 * width(0.01, 0.01)
    exact = paired_share_interval(np.full((2, 3), 0.2), np.full((2, 3), 0.8), list("abc"), seed=0)
    assert exact == pytest.approx((0.25, 0.25))
    weighted = paired_share_interval(
        np.array([[0.1, 0.4]]), np.array([[0.4, 0.4]]), list("aa"), weights=np.array([3.0, 1.0]), seed=0
    )
    assert weighted == pytest.approx((0.7 / 1.6, 0.7 / 1.6))
    may_be_nothing = np.array([[1.0, -0.9, 0.1, -0.1]])
    assert paired_share_interval(may_be_nothing, may_be_nothing, list("abcd"), seed=0) is None
    with pytest.raises(ValueError, match="part"):
        paired_share_interval(np.zeros((2, 3)), np.zeros((3, 2)), list("abc"), seed=0)


def test_the_interval_of_a_share_covers_the_truth_about_as_often_as_it_says() -> None:
    generator, covered = np.random.default_rng(10), 0
    subjects = [f"{who:03d}" for who in range(40)]
    for repetition in range(200):
        whole = 0.5 + 0.1 * generator.normal(size=40) + 0.05 * generator.normal(size=(10, 1))
        part = 0.35 + 0.1 * generator.normal(size=40) + 0.05 * generator.normal(size=(10, 1))
        found = paired_share_interval(part, whole, subjects, seed=repetition, draws=500)
        covered += found is not None and found[0] <= 0.7 <= found[1]
    assert 0.88 <= covered / 200 <= 1.0


def nested(
    generator: np.random.Generator, seeds: int, between_seeds: float
) -> list[tuple[np.ndarray, np.ndarray, list[str]]]:
    """Seeds with twelve people of their own each, whose gain varies by seed, by subject (sd 0.05), around 0."""
    found = [people(generator, 12, between_seeds * generator.normal(), 1, 0.0) for _ in range(seeds)]
    return [(arm[0], reference[0], subjects) for arm, reference, subjects in found]


def test_other_people_under_every_seed() -> None:
    pairs = nested(np.random.default_rng(3), 4, 0.02)
    found = nested_difference(pairs, seed=0)
    gain = np.concatenate([arm - reference for arm, reference, _ in pairs])
    assert found.estimate == pytest.approx(gain.mean()) and (found.subjects, found.seeds) == (48, 4)
    assert found.low < found.estimate < found.high
    assert found == nested_difference(pairs, seed=0)
    same = nested_difference([(arm, arm, subjects) for arm, _, subjects in pairs], seed=0)
    assert (same.estimate, same.low, same.high, same.p) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="subjects"):
        nested_difference([(gain, gain, ["a"])], seed=0)


def test_the_nested_interval_knows_that_seeds_differ() -> None:
    """Where most of the spread is between seeds, an interval over people alone would be too narrow."""
    generator, covered = np.random.default_rng(8), 0
    for repetition in range(100):
        found = nested_difference(nested(generator, 10, 0.1), seed=repetition, draws=500)
        covered += found.low <= 0.0 <= found.high
    assert covered >= 80


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((3,), (3,)), ((1, 4), (1, 4)), ((0, 3), (0, 3))])
def test_arms_that_do_not_pair_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="3 subjects"):
        paired_difference(np.zeros(shapes[0]), np.zeros(shapes[1]), list("abc"), seed=0)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.9, 0.8]) == (1.0, 1.0) and holm([]) == ()
    assert not any(math.isnan(p) for p in holm([0.0, 1.0]))


def test_the_interval_of_the_recovered_gain_holds_its_estimate_and_narrows_with_subjects() -> None:
    generator = np.random.default_rng(0)

    def interval(count: int) -> tuple[float, float]:
        base = np.full(count * 10, 0.3)
        possible = np.repeat(generator.normal(0.3, 0.05, count), 10)
        subjects = [str(index // 10) for index in range(count * 10)]
        arm = base + possible * np.repeat(generator.normal(0.8, 0.1, count), 10)
        found = recovered_gain_interval(base, arm, base + possible, subjects, seed=1)
        assert found is not None
        assert found[0] < recovered_gain(base.mean(), arm.mean(), (base + possible).mean()) < found[1]
        return found

    few, many = interval(8), interval(80)
    assert many[1] - many[0] < few[1] - few[0]


def test_the_recovered_gain_has_no_interval_when_there_may_be_nothing_to_recover() -> None:
    base, upper = np.full(20, 0.3), np.array([0.1, 0.6] * 10)
    subjects = [str(index) for index in range(20)]
    assert recovered_gain_interval(base, upper, upper[::-1] * 0 + 0.3, subjects, seed=1) is None


def test_the_recovered_gain_of_other_people_under_every_seed() -> None:
    """Its interval holds the estimate, knows that seeds differ, and is none where there may be nothing to recover."""
    generator = np.random.default_rng(1)
    subjects = [str(index // 10) for index in range(80)]

    def interval(between_seeds: float) -> tuple[float, float]:
        runs = []
        for _ in range(10):
            base, possible = np.full(80, 0.3), np.repeat(generator.normal(0.3, 0.03, 8), 10)
            share = np.repeat(generator.normal(0.8 + between_seeds * generator.normal(), 0.1, 8), 10)
            runs.append((base, base + possible * share, base + possible, subjects))
        found = nested_gain_interval(runs, seed=1)
        together = [np.concatenate([run[place] for run in runs]).mean() for place in range(3)]
        assert found is not None and found == nested_gain_interval(runs, seed=1)
        assert found[0] < recovered_gain(*together) < found[1]
        return found

    same, apart = interval(0.0), interval(0.3)
    assert apart[1] - apart[0] > 2 * (same[1] - same[0])
    base, upper = np.full(80, 0.3), np.repeat([0.0, 0.61] * 4, 10)
    assert nested_gain_interval([(base, base, upper, subjects)] * 3, seed=1) is None


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (0, 5, 2 / 32), (0, 6, 2 / 64), (1, 8, 20 / 512), (10, 2, 158 / 4096), (4, 5, 1.0),
     (3, 5, 186 / 256)],
)  # fmt: skip
def test_mcnemar_is_the_binomial_tail_worked_out_by_hand(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == mcnemar(only_second, only_first) == pytest.approx(p, rel=1e-12)
