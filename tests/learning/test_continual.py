"""Learning with a replay memory: earlier domains stay, the bits are the same, and odd sets of clips do no harm."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from mcoe_model.errors import DataInvalid, DataMissing, SettingsError
from mcoe_model.learning.checkpoint import Checkpoint
from mcoe_model.learning.continual import continual_method
from mcoe_model.learning.der import DarkExperience
from mcoe_model.learning.fine_tune import fine_tune, measure
from mcoe_model.learning.method import ContinualMethod
from mcoe_model.learning.plain_replay import PlainReplay
from mcoe_model.learning.replay import ReplayMemory
from mcoe_model.learning.replay_samples import ReplaySamples, exemplars_of
from mcoe_model.learning.samples import FeatureSamples
from mcoe_model.learning.settings import FineTuneSettings, ReplaySettings
from mcoe_model.learning.weights import tensors_of
from mcoe_model.networks import Routing, build
from mcoe_model.streams import stream

F = 128
SETTINGS = FineTuneSettings(epochs=1, batch_size=4, learning_rate=1e-3)
METHODS = (ReplaySettings("replay"), ReplaySettings("der++"))


def clips(domain, labels, *, looks_like=None, spread=0.3):
    """Features of five pictures a clip around the centre of its emotion, moved by what all clips of a domain share.

    ``looks_like``: the labels whose centres they take, where those are others.
    """
    features = []
    for number, look in enumerate(looks_like or labels):
        centre = stream("centre", look).normal(size=F) + stream("domain", domain).normal(size=F)
        noise = stream("clip", domain, number).normal(size=(2, 5, F)) * spread
        frames, events = (centre + noise).astype(np.float32)
        features.append({("frame", "any"): frames, ("event", "any"): events})
    names = tuple(f"{domain}-{number}" for number in range(len(labels)))
    return FeatureSamples(names, np.array(labels, np.int64), tuple(features))


def remember(model, samples, limit=2_000_000, lighting="normal"):
    learned = exemplars_of(model.eval(), samples, lightings=[lighting] * len(samples.names), day=20_000)
    return ReplayMemory("g1", limit).add(learned)


def train(samples, method, *, settings=SETTINGS, keys=(0, "test"), model=None, **more):
    model = model or build("mcoe-tiny", seed=3)
    used = fine_tune(model, samples, settings, train_mode="head", keys=keys, method=method, **more)
    return tensors_of(model), used


def equal(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def kept():
    return remember(build("mcoe-tiny", seed=3), clips("before", [0, 1, 2, 3, 4, 5, 6]))


def test_a_domain_that_was_learned_stays_where_it_is_replayed():
    """In the second domain every emotion looks as another one did in the first."""
    settings = FineTuneSettings(epochs=7, batch_size=12, learning_rate=2e-3)
    first = clips("A", [0, 1, 2, 3] * 3)
    second = clips("B", [0, 1, 2, 3] * 3, looks_like=[1, 2, 3, 0] * 3)
    learned = build("mcoe-tiny", seed=3)
    train(first, None, settings=settings, model=learned)
    kept = remember(learned, first)
    assert measure(learned, first).correct == 12

    def after(method):
        model = copy.deepcopy(learned)
        train(second, method, settings=settings, keys=(1, "B"), model=model)
        return measure(model, first).correct, measure(model, second).correct

    found = [after(None), *(after(continual_method(replay, kept)) for replay in METHODS)]
    assert found[0][0] <= 4 and found[0][1] == 12, found
    assert all(min(both) >= 10 for both in found[1:]), found


@pytest.mark.parametrize("replay", METHODS, ids=lambda replay: replay.method)
def test_the_same_memory_gives_the_same_bits_and_a_memory_makes_a_difference(replay, kept):
    new = clips("new", [0, 1, 2, 3, 4, 5])
    read = ReplayMemory.from_bytes(kept.to_bytes(), generation="g1")
    first, second = (train(new, continual_method(replay, m))[0] for m in (kept, read))
    assert equal(first, second)
    assert not equal(first, train(new, None)[0])


def test_nothing_to_replay_leaves_the_bits_of_training_as_they_are(kept):
    new = clips("new", [0, 1, 2, 3, 4, 5])
    plain = train(new, None)
    assert equal(plain[0], train(new, ContinualMethod())[0])
    assert continual_method(ReplaySettings("none"), kept) is None
    assert continual_method(ReplaySettings("der++"), ReplayMemory("g1")) is None
    empty = DarkExperience(ReplaySamples(ReplayMemory("g1")), 1, 1), PlainReplay(ReplaySamples(ReplayMemory("g1")))
    assert all(equal(plain[0], train(new, method)[0]) for method in empty)


def test_a_run_that_stops_and_goes_on_with_the_same_memory_gives_the_same_bits(kept, tmp_path):
    new, settings = clips("new", [0, 1, 2, 3, 4, 5]), replace(SETTINGS, epochs=3)
    method = continual_method(ReplaySettings("der++"), kept)
    whole, _ = train(new, method, settings=settings)

    class Stop(Exception):
        pass

    def stop(epoch):
        if epoch.number == 2:
            raise Stop

    path = tmp_path / "checkpoint"
    with pytest.raises(Stop):
        train(new, method, settings=settings, checkpoint=Checkpoint(path, interval=0), on_epoch=stop)
    assert path.exists()
    assert equal(whole, train(new, method, settings=settings, checkpoint=Checkpoint(path, interval=0))[0])


def test_an_expert_that_only_replay_chose_is_trained_and_named():
    class OneExpert(ContinualMethod):
        def __init__(self, expert):
            self.expert = expert

        def term(self, model, new, draws):
            term = sum(parameter.square().sum() for parameter in model.moe.experts[self.expert].parameters())
            return term, Routing(torch.full((1, 8), 1 / 8), torch.tensor([[self.expert, self.expert]]))

    one, start = clips("one", [2]), tensors_of(build("mcoe-tiny", seed=3))
    used = set(train(one, None)[1])
    other = min(set(range(8)) - used)
    trained, named = train(one, OneExpert(other))
    assert set(named) == used | {other}
    for expert in range(8):
        mine = [name for name in trained if name.startswith(f"moe.experts.{expert}.")]
        assert any(not np.array_equal(trained[name], start[name]) for name in mine) is (expert in named)


@pytest.mark.parametrize(("balance", "counts"), [(0.0, False), (0.5, True)])
def test_replayed_clips_count_in_the_balancing_term(balance, counts):
    gate = torch.full((3, 8), 1 / 8, requires_grad=True)

    class Routed(ContinualMethod):
        def term(self, model, new, draws):
            return torch.zeros(()), Routing(gate, torch.tensor([[5, 6]] * 3))

    train(clips("one", [2]), Routed(), settings=replace(SETTINGS, balance=balance))
    assert (gate.grad is not None and bool(gate.grad.any())) is counts


@pytest.mark.parametrize("replay", METHODS, ids=lambda replay: replay.method)
@pytest.mark.parametrize(
    ("labels", "entries"),
    [([2], 7), ([2], 1), ([3] * 9, 1), ([0, 1, 2, 3, 4], 7)],
    ids=["one clip", "one clip, one kept", "one class, fewer kept than a batch", "a last batch of one"],
)
def test_small_and_lopsided_sets_train_to_finite_weights(replay, labels, entries, kept):
    few = kept.without(kept.names[entries:])
    trained, used = train(clips("few", labels), continual_method(replay, few))
    assert used and all(np.isfinite(tensor).all() for tensor in trained.values())


@pytest.mark.parametrize("replay", METHODS, ids=lambda replay: replay.method)
def test_contradictory_labels_train_to_finite_weights(replay):
    one = clips("torn", [1])
    torn = FeatureSamples(("torn-0", "torn-1"), np.array([1, 5]), one.features * 2)
    kept = remember(build("mcoe-tiny", seed=3), replace(torn, names=("then-0", "then-1"), labels=np.array([5, 1])))
    trained, _ = train(torn, continual_method(replay, kept), settings=replace(SETTINGS, epochs=3))
    assert all(np.isfinite(tensor).all() for tensor in trained.values())


def test_no_clips_and_backbones_in_training_are_refused(kept):
    with pytest.raises(DataMissing):
        train(clips("none", []), None)
    with pytest.raises(SettingsError):
        method = continual_method(ReplaySettings(), kept)
        fine_tune(build("mcoe-tiny"), clips("new", [1]), SETTINGS, train_mode="full", keys=(0,), method=method)


def test_a_batch_is_drawn_without_repetition_and_never_larger_than_the_memory(kept):
    samples = ReplaySamples(kept)
    drawn = [samples.draw(3, stream("draw", number)) for number in range(200)]
    assert all(len(set(positions)) == 3 for positions in drawn)
    assert set(np.concatenate(drawn)) == set(range(7))
    assert sorted(samples.draw(50, stream("draw"))) == list(range(7))


def test_an_entry_holds_the_features_of_a_window_and_what_the_model_says_of_those():
    model, learned = build("mcoe-tiny", seed=3).eval(), clips("kept", [4, 1, 6])
    samples = ReplaySamples(remember(model, learned))
    ends = samples.ends([0, 2])
    assert all(end.shape == (2, F) and end.dtype == torch.float32 for end in ends)
    frames = learned.features[2]["frame", "any"].astype(np.float16).astype(np.float32)
    assert all(any(np.array_equal(end[1], picture) for picture in frames) for end in ends[:2])
    np.testing.assert_allclose(model.head(*ends).detach(), samples.logits([0, 2]), rtol=1e-4, atol=1e-5)
    assert samples.targets([0, 2]).tolist() == [4, 6]


def test_an_entry_is_the_same_whatever_else_is_kept():
    model, learned = build("mcoe-tiny", seed=3).eval(), clips("kept", [4, 1, 6])
    alone = FeatureSamples(learned.names[1:2], learned.labels[1:2], learned.features[1:2])
    together, single = remember(model, learned).exemplars[1], remember(model, alone).exemplars[0]
    np.testing.assert_array_equal(together.ends, single.ends)
    np.testing.assert_array_equal(together.logits, single.logits)


def test_features_beyond_half_precision_are_refused():
    with pytest.raises(DataInvalid):
        remember(build("mcoe-tiny", seed=3), clips("loud", [1], spread=1e6))
