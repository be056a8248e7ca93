"""How far routing separates groups: by hand, and by chance where nothing is there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from mcoe_model.data.reader import ClipRecord
from simulations import load_separation
from simulations.load_separation import (
    Floats,
    Separation,
    Shown,
    explained,
    permute_units,
    permute_within,
    pool,
    separate,
)

GROUPS = np.array([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("vectors", "share"),
    [
        ([[1, 0], [1, 0], [0, 1], [0, 1]], 1.0),  # nothing within the groups
        ([[1, 0], [0, 1], [1, 0], [0, 1]], 0.0),  # the groups' means are the same
        ([[4, 0], [2, 0], [2, 0], [0, 0]], 0.5),  # means 3 and 1 around 2: 4 of 8
        ([[1, 4], [1, 2], [1, 2], [1, 0]], 0.5),  # the same over the other expert
        ([[1, 1]] * 4, 0.0),  # nothing to explain
    ],
)
def test_the_share_of_variance_between_groups(vectors: list[list[float]], share: float) -> None:
    assert explained(np.array(vectors, np.float64), GROUPS) == pytest.approx(share)


def test_groups_of_unlike_sizes_count_by_their_clips() -> None:
    vectors = np.array([[0.0], [0.0], [0.0], [4.0]])  # mean 1; between: 3 x 1 + 9, all that there is
    assert explained(vectors, np.array([5, 5, 5, 2])) == pytest.approx(1)
    assert explained(vectors, np.array([5, 5, 2, 2])) == pytest.approx((2 * 1 + 2 * 1) / 12)


def test_labels_are_exchanged_within_what_they_are_nested_in_and_with_whole_units() -> None:
    random = np.random.default_rng(0)
    emotion, subject = random.integers(0, 7, 60), random.integers(0, 5, 60)
    seen = [permute_within(emotion, subject, random) for _ in range(20)]
    for permuted in seen:
        for one in range(5):
            assert sorted(permuted[subject == one]) == sorted(emotion[subject == one])
    assert len({permuted.tobytes() for permuted in seen}) == 20
    lighting = np.array([3, 1, 1, 0, 2])[subject]
    for _ in range(20):
        permuted = permute_units(lighting, subject, random)
        assert sorted(permuted[np.unique(subject, return_index=True)[1]]) == [0, 1, 1, 2, 3]
        assert all(len(set(permuted[subject == one])) == 1 for one in range(5))


def people(lights: Sequence[int], each: int = 10) -> Shown:
    """People in these lights, each of whom shows two emotions, ``each`` times one."""
    subject = np.repeat(np.arange(len(lights)), 2 * each)
    return Shown(np.array(lights)[subject], np.arange(len(subject)) % 2, subject)


def drawn(shown: Shown, **by: float) -> Floats:
    """Noise over three experts, on which a label of each named kind weighs by so much."""
    random = np.random.default_rng(3)
    vectors = random.normal(size=(len(shown.subject), 3))
    for kind, weight in by.items():
        labels = getattr(shown, kind)
        vectors += weight * random.normal(size=(labels.max() + 1, 3))[labels]
    return vectors


def test_clips_show_what_their_records_say() -> None:
    told = [("b", "hdr", "fear"), ("a", "normal", "angry"), ("b", "low-light", "fear")]
    shown = Shown.of([ClipRecord("clip", who, "", light, emotion, "training", 20) for who, light, emotion in told])
    assert [of.tolist() for of in (shown.lighting, shown.emotion, shown.subject)] == [[3, 0, 2], [2, 0, 2], [1, 0, 1]]


@pytest.mark.parametrize("kind", ["lighting", "emotion", "subject"])
def test_what_routing_follows_is_found_and_nothing_else(kind: str) -> None:
    shown = people([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    found = separate(drawn(shown, **{kind: 3.0}), shown, seed=0)
    assert found[kind].p < 0.02 and found[kind].share > 0.5
    assert all(one.p > 0.05 for name, one in found.items() if name != kind)


def test_people_who_are_unlike_do_not_pass_for_lightings_they_are_nested_in() -> None:
    """Exchanged among clips, any lighting of few people would seem to separate them."""
    shown = people([0, 0, 1, 1, 2, 2])
    vectors = drawn(shown, subject=3.0)
    found = separate(vectors, shown, seed=0)
    assert found["subject"].p < 0.01 < 0.05 < found["lighting"].p
    random = np.random.default_rng(2)
    everywhere = np.zeros_like(shown.subject)
    free = [explained(vectors, permute_within(shown.lighting, everywhere, random)) for _ in range(99)]
    assert max(free) < found["lighting"].share


def test_where_people_are_in_every_light_it_is_exchanged_among_their_clips() -> None:
    alone = people([0, 1, 2, 3])
    shown = Shown(np.arange(len(alone.subject)) // 2 % 2, alone.emotion, alone.subject)
    assert separate(drawn(shown, lighting=3.0, subject=3.0), shown, seed=0)["lighting"].p < 0.01


def test_p_counts_the_labels_themselves_and_seeds_are_pooled_draw_by_draw() -> None:
    one, other = Separation(0.5, np.array([0.1, 0.5, 0.7, 0.2])), Separation(0.3, np.array([0.3, 0.1, 0.1, 0.2]))
    assert one.p == 3 / 5
    both = pool([one, other])
    assert both.share == 0.4 and both.p == 2 / 5
    np.testing.assert_allclose(both.chance, [0.2, 0.3, 0.4, 0.2])


def test_the_same_seed_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_separation, "DRAWS", 9)
    shown = people([0, 1, 2])
    found = [separate(drawn(shown), shown, seed=seed)["emotion"].chance for seed in (0, 0, 1)]
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])
