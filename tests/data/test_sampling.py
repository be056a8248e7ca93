"""The window law is the published procedure, counted out."""

from collections import Counter

import numpy as np
import pytest

from mcoe_model.data.sampling import EvenlySpaced, draw_window, window_law
from mcoe_model.data.see import parse_name


def published_law(length: int, samples: int, stride: int) -> dict[tuple[int, ...], float]:
    """Every draw of the published procedure in turn, written as its loader does it: with lists."""
    law: Counter[tuple[int, ...]] = Counter()
    offsets = [offset for offset in ([0, 1, 2, 3, 4] if stride > 1 else [0]) if offset < length]
    for offset in offsets:
        kept = list(range(length))[offset::stride]
        last = max(0, len(kept) - samples - 1)
        for begin in range(last + 1):
            window = kept[begin : begin + samples]
            for index in window:  # grows while it is read: the source's loop padding
                if len(window) >= samples:
                    break
                window.append(index)
            law[tuple(window)] += 1 / len(offsets) / (last + 1)
    return dict(law)


@pytest.mark.parametrize(("samples", "stride"), [(4, 4), (4, 1), (4, 2), (7, 2), (1, 4), (13, 1)])
def test_equals_every_draw_enumerated(samples: int, stride: int) -> None:
    for length in range(1, 141):
        law = window_law(length, samples=samples, stride=stride)
        expected = published_law(length, samples, stride)
        assert [tuple(window) for window in law.windows.tolist()] == sorted(expected)
        np.testing.assert_allclose(law.probability, [expected[window] for window in sorted(expected)], rtol=1e-12)
        assert law.probability.sum() == pytest.approx(1, abs=1e-14)
        assert law.windows.min() >= 0 and law.windows.max() < length


@pytest.mark.parametrize(("length", "samples", "stride"), [(45, 4, 4), (18, 4, 4), (9, 4, 4), (3, 4, 4), (24, 4, 2)])
def test_draws_follow_the_law(length: int, samples: int, stride: int) -> None:
    draws = 20_000
    generator = np.random.default_rng(7)
    law = window_law(length, samples=samples, stride=stride)
    drawn = Counter(
        tuple(draw_window(length, generator, samples=samples, stride=stride).tolist()) for _ in range(draws)
    )
    expected = draws * law.probability
    observed = np.array([drawn.pop(tuple(window), 0) for window in law.windows.tolist()])
    assert not drawn, "drew a window the law does not know"
    chi_square = ((observed - expected) ** 2 / expected).sum()
    freedom = len(expected) - 1
    # four standard deviations of a chi-square variable: a wrong law gives hundreds
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5 + 4


def test_the_last_window_is_never_drawn_from_a_long_sequence() -> None:
    firsts = window_law(52).windows[:, 0]
    assert 52 - 13 not in firsts  # the published begin stops one short
    assert sorted(set(firsts.tolist())) == list(range(36))


def test_strides_above_one_have_five_offsets_even_stride_two() -> None:
    assert set(window_law(8, stride=2).windows[:, 0].tolist()) == {0, 1, 2, 3, 4}
    assert set(window_law(4, stride=1).windows[:, 0].tolist()) == {0}


def test_short_sequences_repeat_from_their_start() -> None:
    assert window_law(2).windows.tolist() == [[0, 0, 0, 0], [1, 1, 1, 1]]
    assert window_law(9).windows.tolist() == [
        [0, 4, 8, 0], [1, 5, 1, 5], [2, 6, 2, 6], [3, 7, 3, 7], [4, 8, 4, 8],
    ]  # fmt: skip
    assert window_law(9).probability.tolist() == [0.2] * 5


def test_the_published_test_split_is_affordable_exactly(published_names: list[str]) -> None:
    lengths = [parse_name(name).length for name in published_names]
    assert len(lengths) == 767 and min(lengths) == 18
    assert sum(length - 12 for length in lengths) == 31_062  # every pair (first, first + 12) that exists
    laws = [window_law(length) for length in lengths]
    assert all((law.windows[:, 3] - law.windows[:, 0] == 12).all() for law in laws)
    assert sum(len(law.windows) for law in laws) == 28_001  # those that can be drawn


def test_the_law_cannot_be_changed_by_its_reader() -> None:
    with pytest.raises(ValueError, match="read-only"):
        window_law(45).probability[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        window_law(45).windows[0] = 1


@pytest.mark.parametrize("wrong", [{"length": 0}, {"length": 9, "samples": 0}, {"length": 9, "stride": 0}])
def test_numbers_below_one_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        window_law(**wrong)
    with pytest.raises(ValueError, match="at least 1"):
        draw_window(generator=np.random.default_rng(0), **wrong)


def test_evenly_spaced_pictures_are_the_whole_clip() -> None:
    spaced = EvenlySpaced(10)
    assert spaced.law(18).windows.tolist() == [[0, 2, 4, 6, 8, 9, 11, 13, 15, 17]]
    assert spaced.law(18).probability.tolist() == [1.0]
    for length in range(1, 140):
        drawn = spaced.draw(length, np.random.default_rng(0))
        assert drawn.tolist() == spaced.law(length).windows[0].tolist() and drawn[-1] == length - 1
        assert set(np.diff(drawn)) <= {(length - 1) // 9, (length - 1) // 9 + 1}
    assert spaced.law(3).windows.tolist() == [[0, 0, 0, 1, 1, 1, 1, 2, 2, 2]]
    with pytest.raises(ValueError, match="at least 1"):
        spaced.law(0)
