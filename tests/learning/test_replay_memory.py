"""The replay memory: bounded, level, fair, the same bits, and rid at once of what the wearer takes back."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcoe_model.errors import DataInvalid, SettingsError
from mcoe_model.learning.replay import ENTRY_BYTES, STRATUM_LIGHTINGS, Exemplar, ReplayMemory
from mcoe_model.learning.settings import ReplaySettings
from mcoe_model.names import EMOTIONS
from mcoe_model.streams import stream
from mcoe_model.tensors import pack, unpack

WIDTH = 8
ENTRY = 4 * WIDTH * 2 + len(EMOTIONS) * 4 + ENTRY_BYTES


def exemplar(name, emotion=0, lighting="normal", day=20_000, width=WIDTH):
    g = stream("exemplar", name)
    ends, logits = g.normal(size=(4, width)).astype(np.float16), g.normal(size=len(EMOTIONS)).astype(np.float32)
    return Exemplar(name, emotion, lighting, day, ends, logits)


def memory(entries=10, exemplars=()):
    return ReplayMemory("g1", entries * ENTRY).add(exemplars)


def strata(kept):
    return Counter(entry.stratum for entry in kept.exemplars)


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
clips = st.builds(exemplar, names, st.integers(0, 6), st.sampled_from(STRATUM_LIGHTINGS), st.integers(0, 400))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9 * ENTRY), st.lists(st.lists(clips, max_size=12), max_size=4), st.sets(names, max_size=3))
def test_the_limit_holds_whatever_comes_and_the_same_clips_give_the_same_bytes(limit, batches, gone):
    def fill():
        kept = ReplayMemory("g1", limit)
        for batch in batches:
            kept = kept.add(batch).without(gone)
            assert kept.size_bytes <= limit
            assert len(set(kept.names)) == len(kept.names) and not gone & set(kept.names)
        return kept

    first = fill()
    content = first.to_bytes()
    assert content == fill().to_bytes()
    read = ReplayMemory.from_bytes(content, generation="g1", limit_bytes=limit)
    assert read.to_bytes() == content and read.size_bytes == first.size_bytes


def test_what_it_counts_is_at_least_what_it_takes_on_the_disk():
    full = memory(200, [exemplar(f"{'x' * 190}{number:04}", number % 7) for number in range(300)])
    assert len(full.exemplars) == 200
    assert len(full.to_bytes()) <= full.size_bytes + 1024, "the file's own header is not counted"


def test_a_full_memory_stays_level_over_strata():
    many = [exemplar(f"happy-{number}", 3) for number in range(50)]
    few = [exemplar(f"sad-{number}", 5, "hdr") for number in range(3)]
    others = [exemplar(f"dark-{number}", 3, "low-light") for number in range(50)]
    kept = memory(11, [*many, *few, *others])
    assert strata(kept) == {(3, "normal"): 4, (3, "low-light"): 4, (5, "hdr"): 3}


def test_a_newcomer_to_equally_large_strata_takes_the_place_of_its_own():
    level = memory(6, [exemplar(f"{emotion}-{take}", emotion) for emotion in range(3) for take in range(2)])
    for emotion in range(3):
        assert set(strata(level.add([exemplar(f"new-{emotion}", emotion)])).values()) == {2}


def test_every_clip_of_a_stratum_has_the_same_chance_whenever_it_came():
    """Also while the stratum shrinks, which it does here as the others come."""
    times, clips_each = 400, 12
    kept = np.zeros(clips_each)
    for trial in range(times):
        own = [exemplar(f"{trial}-{number}", 0, width=1) for number in range(clips_each)]
        others = [exemplar(f"{trial}-other-{emotion}", emotion, width=1) for emotion in range(1, 5)]
        found = ReplayMemory("g1", 7 * own[0].size_bytes).add([*own[:8], *others, *own[8:]])
        assert strata(found)[0, "normal"] == 3
        kept += [entry.name in found.names for entry in own]
    share = 3 / clips_each
    assert np.abs(kept / times - share).max() < 4 * np.sqrt(share * (1 - share) / times)


def test_a_clip_that_comes_again_stays_as_it_came_but_not_with_another_label():
    first, again = exemplar("clip"), replace(exemplar("clip", day=20_009), logits=np.ones(7, np.float32))
    assert memory(exemplars=[first, again]).exemplars == (first,)
    relabelled = replace(again, emotion=4)
    assert memory(exemplars=[first]).add([relabelled]).exemplars == (relabelled,)
    assert strata(memory(exemplars=[first, relabelled])) == {(4, "normal"): 1}


def test_deleted_clips_and_old_ones_go_at_once_and_make_room():
    full = memory(3, [exemplar(name, day=day) for name, day in (("old", 100), ("kept", 200), ("deleted", 250))])
    assert full.without({"deleted", "never seen"}).names == ("kept", "old")
    assert full.expire(today=280, days=100).names == ("deleted", "kept")
    assert full.expire(today=280, days=80).names == ("deleted", "kept"), "the last day counts"
    assert full.expire(today=281, days=80).names == ("deleted",)
    assert set(full.without(full.names).add([exemplar("new")]).names) == {"new"}


def test_a_memory_with_a_smaller_limit_keeps_what_fits():
    content = memory(10, [exemplar(str(number), number % 2) for number in range(10)]).to_bytes()
    small = ReplayMemory.from_bytes(content, generation="g1", limit_bytes=4 * ENTRY)
    assert strata(small) == {(0, "normal"): 2, (1, "normal"): 2}
    assert ReplayMemory.from_bytes(content, generation="g1", limit_bytes=ENTRY - 1).exemplars == ()


def test_another_generation_is_refused_unless_any_will_do():
    content = memory(exemplars=[exemplar("a"), exemplar("b")]).to_bytes()
    with pytest.raises(DataInvalid, match="generation g1"):
        ReplayMemory.from_bytes(content, generation="g2")
    rest = ReplayMemory.from_bytes(content, generation=None).without(["a"])
    assert (rest.generation, rest.names) == ("g1", ("b",))


def changed(tensor, value):
    content = unpack(memory(exemplars=[exemplar("a"), exemplar("b")]).to_bytes())
    content[tensor] = value(content[tensor].copy())
    return pack(content)


def nan(array):
    array.reshape(-1)[3] = np.nan
    return array


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no such thing",
        memory(exemplars=[exemplar("a")]).to_bytes()[:-1],
        pack({}),
        changed("ends", nan),
        changed("logits", nan),
        changed("ends", lambda a: a[:, :3]),
        changed("ends", lambda a: a.astype(np.float32)),
        changed("ends", lambda a: a[:1]),
        changed("logits", lambda a: a[:, :6]),
        changed("emotion", lambda a: a + np.uint8(7)),
        changed("emotion", lambda a: a.astype(np.float32)),
        changed("lighting", lambda a: a + np.uint8(5)),
        changed("day", lambda a: a - np.int32(30_000)),
        changed("about", lambda a: a[:-1]),
        changed("about", lambda _: np.frombuffer(b"[]", np.uint8)),
        changed("about", lambda _: np.frombuffer(b'{"generation": "g1", "names": ["a", "a"]}', np.uint8)),
        changed("about", lambda _: np.frombuffer(b'{"generation": "g1", "names": [1, 2]}', np.uint8)),
        changed("about", lambda _: np.frombuffer(b'{"generation": 1, "names": ["a", "b"]}', np.uint8)),
    ],
)
def test_damaged_bytes_are_refused_in_one_line(content):
    with pytest.raises(DataInvalid) as caught:
        ReplayMemory.from_bytes(content, generation="g1")
    assert "\n" not in str(caught.value)


def test_features_of_another_size_do_not_come_in():
    with pytest.raises(DataInvalid):
        memory(exemplars=[exemplar("a"), exemplar("b", width=WIDTH + 1)])


def test_settings_out_of_bounds_are_listed_together():
    with pytest.raises(SettingsError) as caught:
        ReplaySettings("ewc", alpha=-1, beta=float("nan"), bytes=0, days=0)
    assert len(caught.value.faults) == 5
