"""The methods against forgetting: their formulas, what they keep, and that it stays within its limit."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from mcoe_model.errors import SettingsError
from mcoe_model.learning.agem import AveragedGradients
from mcoe_model.learning.continual import continual_method
from mcoe_model.learning.der import DarkExperience
from mcoe_model.learning.ewc import DECAY, Consolidation, fisher_information
from mcoe_model.learning.fine_tune import fine_tune
from mcoe_model.learning.lwf import Distilled
from mcoe_model.learning.method import Batch
from mcoe_model.learning.methods import MethodSettings, retention
from mcoe_model.learning.plain_replay import PlainReplay
from mcoe_model.learning.refed import Importance
from mcoe_model.learning.replay import ENTRY_BYTES, ReplayMemory
from mcoe_model.learning.replay_samples import ReplaySamples, exemplars_of
from mcoe_model.learning.samples import FeatureSamples
from mcoe_model.learning.settings import FineTuneSettings, ReplaySettings
from mcoe_model.learning.weights import tensors_of
from mcoe_model.networks import build
from mcoe_model.streams import stream
from mcoe_model.update import is_head

F = 128
ENTRY = 4 * F * 2 + 7 * 4 + ENTRY_BYTES
SETTINGS = FineTuneSettings(epochs=1, batch_size=4, learning_rate=1e-3)
KEEPING = ("experience-replay", "latent-replay", "der++", "a-gem", "ewc", "lwf")


def clips(domain, labels):
    features = []
    for number, label in enumerate(labels):
        centre = stream("centre", label).normal(size=F) + stream("domain", domain).normal(size=F)
        frames, events = (centre + stream("clip", domain, number).normal(size=(2, 5, F))).astype(np.float32)
        features.append({("frame", "any"): frames, ("event", "any"): events})
    names = tuple(f"{domain}-{number}" for number in range(len(labels)))
    return FeatureSamples(names, np.array(labels, np.int64), tuple(features))


def model(seed=3):
    return build("mcoe-tiny", seed=seed).eval()


def head(network):
    return [(name, p) for name, p in network.named_parameters() if is_head(name)]


def batch(network, samples):
    windows = np.array([[0, 1, 2, 3]] * len(samples.names))
    features = samples.head_inputs(network, list(range(len(samples.names))), windows, None)
    return Batch(features, network.classify(features)[0], torch.from_numpy(samples.labels))


def remembered(network, samples):
    learned = exemplars_of(network, samples, lightings=["normal"] * len(samples.names), day=0)
    return ReplaySamples(ReplayMemory("g", 10**6, learned))


def gradient(network):
    return torch.cat([p.grad.flatten() for _, p in head(network) if p.grad is not None]).double()


def test_a_gem_takes_out_of_a_gradient_what_would_harm_remembered_clips():
    network = model()
    samples = remembered(network, clips("then", [0, 1, 2]))
    harm = -cross_entropy(network.classify(samples.ends([0, 1, 2]))[0], samples.targets([0, 1, 2]))
    (harm + 0.1 * sum(p.square().sum() for _, p in head(network))).backward()
    before = gradient(network)
    parameters = [p for _, p in head(network) if p.grad is not None]
    loss = cross_entropy(network.classify(samples.ends([0, 1, 2]))[0], samples.targets([0, 1, 2]))
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    reference = torch.cat(
        [(torch.zeros_like(p) if r is None else r).flatten() for p, r in zip(parameters, found, strict=True)]
    ).double()
    assert before @ reference < 0
    routing = AveragedGradients(samples).correct(network, 3, stream("draws"))
    expected = before - (before @ reference) / (reference @ reference) * reference
    torch.testing.assert_close(gradient(network), expected, rtol=1e-3, atol=1e-6)
    assert abs(gradient(network) @ reference) < 1e-3 * reference.norm() * before.norm()
    assert routing.chosen.shape[0] == 3


def test_a_gem_leaves_a_gradient_alone_that_does_no_harm():
    network = model()
    samples = remembered(network, clips("then", [0, 1, 2]))
    cross_entropy(network.classify(samples.ends([0, 1, 2]))[0], samples.targets([0, 1, 2])).backward()
    before = gradient(network)
    assert AveragedGradients(samples).correct(network, 3, stream("draws")) is None
    assert torch.equal(gradient(network), before)


def earlier(count):
    """Clips that came into a memory under another model, and again under the present one, which changes nothing."""
    learned = clips("then", [0, 1, 2, 3, 4, 5][:count])
    memory = ReplayMemory("g", 10**6)
    for network in (model(seed=4), model()):
        memory = memory.add(exemplars_of(network, learned, lightings=["normal"] * count, day=0))
    return ReplaySamples(memory)


def drawn(draws, size, count):
    """``size`` of ``count`` positions, all of them where there are no more, as a memory draws them."""
    return [int(position) for position in draws.choice(count, min(size, count), replace=False)]


@pytest.mark.parametrize(("entries", "new"), [(6, 4), (2, 4), (6, 1)])
def test_der_draws_twice_and_adds_the_distance_to_what_was_said_at_first_and_the_cross_entropy(entries, new):
    network, samples = model(), earlier(entries)
    draws = stream("draws", entries)
    first, second = drawn(draws, new, entries), drawn(draws, new, entries)
    assert first != second or entries < new
    now = network.classify(samples.ends(range(entries)))[0].detach().double().numpy()  # (entries, c)
    at_insertion = model(seed=4).classify(samples.ends(range(entries)))[0].detach().double().numpy()
    assert np.abs(now - at_insertion).max() > 0.05
    distance = np.mean([(now[p, c] - at_insertion[p, c]) ** 2 for p in first for c in range(7)])
    unlikely = np.mean([np.log(np.exp(now[p]).sum()) - now[p, samples.labels[p]] for p in second])
    batch_of_new = batch(network, clips("new", [0] * new))
    term, routing = DarkExperience(samples, 0.3, 2.0).term(network, batch_of_new, stream("draws", entries))
    assert term.item() == pytest.approx(0.3 * distance + 2.0 * unlikely, rel=1e-4)
    assert len(routing.chosen) == len(first) + len(second)


@pytest.mark.parametrize(("entries", "new"), [(6, 4), (2, 4), (1, 4), (3, 3)])
def test_in_replay_a_remembered_clip_weighs_as_much_as_a_new_one(entries, new):
    network, samples = model(), earlier(entries)
    positions = drawn(stream("draws", entries), new, entries)
    now = network.classify(samples.ends(range(entries)))[0].detach().double().numpy()  # (entries, c)
    unlikely = [np.log(np.exp(now[p]).sum()) - now[p, samples.labels[p]] for p in positions]
    batch_of_new = batch(network, clips("new", [0] * new))
    term, routing = PlainReplay(samples).term(network, batch_of_new, stream("draws", entries))
    assert term.item() == pytest.approx(sum(unlikely) / new, rel=1e-4)
    assert len(routing.chosen) == len(positions)


def test_the_fisher_information_is_the_expected_squared_gradient_over_all_emotions():
    network, one = model(), clips("one", [4])
    name = "moe.router.down.weight"
    parameter = dict(network.named_parameters())[name]
    still = tuple({key: values[:1].repeat(5, 0) for key, values in clip.items()} for clip in one.features)
    same = FeatureSamples(one.names, one.labels, still)  # every window of it looks the same
    found = fisher_information(network, same)[name]
    features = batch(network, same).features
    log_p = network.classify(features)[0][0].log_softmax(0)
    expected = torch.zeros_like(parameter)
    for emotion in range(7):
        (slope,) = torch.autograd.grad(log_p[emotion], [parameter], retain_graph=True)
        expected += log_p[emotion].exp().detach() * slope**2
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)
    assert found.max() > 0


def test_ewc_holds_what_mattered_and_forgets_old_information_slowly():
    network, first, second = model(), clips("A", [0, 1]), clips("B", [2, 3])
    start = Consolidation.begin(network, strength=10)
    assert start.method(network) is None
    once = start.after(network, first, ["normal"] * 2)
    assert once.method(network).term(network, batch(network, second), stream("d"))[0].item() == 0
    moved = copy.deepcopy(network)
    with torch.no_grad():
        for _, parameter in head(moved):
            parameter.add_(0.01)
    expected = 10 / 2 * sum(float(f.sum()) for f in once.information.values()) * 0.01**2
    assert once.term(moved, batch(moved, second), stream("d"))[0].item() == pytest.approx(expected, rel=1e-3)
    twice = once.after(network, second, ["normal"] * 2)
    new = fisher_information(network, second)
    for name, information in twice.information.items():
        torch.testing.assert_close(information, DECAY * once.information[name] + new[name])


def test_lwf_wants_new_clips_spoken_of_as_before():
    network, new = model(), clips("new", [0, 1, 2])
    term = Distilled(copy.deepcopy(network), 1.0).method(network)
    assert term.term(network, batch(network, new), stream("d"))[0].item() == pytest.approx(0, abs=1e-6)
    told, said = batch(network, new).logits.detach(), batch(model(seed=4), new)
    p, q = (told / 2).softmax(1), (said.logits.detach() / 2).softmax(1)
    expected = 4 * float((p * (p / q).log()).sum(1).mean())
    assert term.term(model(seed=4), said, stream("d"))[0].item() == pytest.approx(expected, rel=1e-4)


def test_importance_adds_up_squared_gradients_of_a_model_tied_to_the_global_one():
    network, learned = model(), clips("then", [0, 1, 2])
    exemplars = exemplars_of(network, learned, lightings=["normal"] * 3, day=0)
    samples = ReplaySamples(ReplayMemory("g", 10**6, exemplars))
    v = copy.deepcopy(network)
    expected = np.zeros(3)
    for step in (1, 2):
        parameters = [p for _, p in head(v)]
        slopes = []
        for position in range(3):
            loss = cross_entropy(v.classify(samples.ends([position]))[0], samples.targets([position]))
            slopes.append(torch.autograd.grad(loss, parameters, allow_unused=True))
            expected[position] += sum(float(g.square().sum()) for g in slopes[-1] if g is not None) / step
        with torch.no_grad():
            for place, (parameter, (_, world)) in enumerate(zip(parameters, head(network), strict=True)):
                mean = sum(s[place] for s in slopes if s[place] is not None) / 3
                parameter -= 0.5 * (mean + 0.5 * (parameter - world))
    found = Importance(network, mix=0.5, steps=2, rate=0.5).of(exemplars)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    kept = Importance(network, mix=0.5, steps=2, rate=0.5).keep(ReplayMemory("g", 2 * ENTRY), exemplars)
    most = sorted(range(3), key=lambda position: -expected[position])[:2]
    assert set(kept.names) == {learned.names[position] for position in most}


def test_in_a_round_importance_is_measured_beside_the_model_that_it_began_from():
    base, world, learned = model(), model(seed=4), clips("then", [0, 1, 2, 3, 4, 5])
    exemplars = exemplars_of(base, learned, lightings=["normal"] * 6, day=0)
    settings = MethodSettings("latent-replay", eviction="re-fed")
    kept = retention(settings, base, 3 * ENTRY, in_rounds=True).begins_from(world)
    most = [set(np.argsort(-Importance(one).of(exemplars))[:3]) for one in (world, base)]
    assert most[0] != most[1]
    names = kept.after(base, learned, ["normal"] * 6).memory.names
    assert set(names) == {learned.names[position] for position in most[0]}


def test_alone_the_model_that_importance_is_measured_beside_counts_and_in_rounds_it_does_not():
    network, learned = model(), clips("then", [0, 1, 2, 3, 4, 5])
    head_size = sum(p.nbytes for _, p in head(network))
    for name, entry in (("latent-replay", ENTRY), ("experience-replay", 4 * 64**2 + ENTRY_BYTES)):
        settings = MethodSettings(name, eviction="re-fed")
        kept = retention(settings, network, head_size + 3 * entry)
        assert kept.size_bytes == head_size
        after = kept.after(network, learned, ["normal"] * 6)
        assert len(after.memory.exemplars) == 3 and after.size_bytes == head_size + 3 * entry
        with pytest.raises(SettingsError, match=f"takes {head_size} bytes and .*more than the limit of 200000"):
            retention(settings, network, 200_000)
        rounds = retention(settings, network, 3 * entry, in_rounds=True)
        assert rounds.size_bytes == 0
        assert rounds.begins_from(model(seed=4)).after(network, learned, ["normal"] * 6).size_bytes == 3 * entry
        # Who has learned alone has that head no longer once rounds begin.
        assert after.begins_from(network).size_bytes == 3 * entry
        plain = retention(MethodSettings(name), network, head_size + 3 * entry)
        assert plain.size_bytes == 0 and plain.after(network, learned, ["normal"] * 6).size_bytes == 6 * entry


@pytest.mark.parametrize("eviction", ["reservoir", "re-fed"])
@pytest.mark.parametrize("name", KEEPING)
def test_what_is_kept_stays_within_its_limit_and_trains(name, eviction):
    network = model()
    limit = {"ewc": 900_000, "lwf": 450_000, "experience-replay": 50_000}.get(name, 3 * ENTRY + 5)
    beside = 0
    if eviction == "re-fed" and name not in ("ewc", "lwf"):
        beside = sum(p.nbytes for _, p in head(network))
        limit += beside
    kept = retention(MethodSettings(name, eviction=eviction), copy.deepcopy(network), limit)
    for number in range(3):
        samples = clips(f"lesson {number}", [number, number + 1])
        keys = (0, "lesson", number)
        fine_tune(network, samples, SETTINGS, train_mode="head", keys=keys, method=kept.method(network))
        kept = kept.after(network, samples, ["normal", "hdr"])
        assert 0 < kept.size_bytes <= limit
    assert all(np.isfinite(tensor).all() for tensor in tensors_of(network).values())
    if name in ("latent-replay", "der++", "a-gem"):
        assert kept.size_bytes == beside + 3 * ENTRY
    if name == "experience-replay":
        assert kept.size_bytes == beside + 3 * (4 * 64**2 + ENTRY_BYTES)


def test_twenty_kilobytes_hold_fifteen_clips():
    network = model()
    kept = retention(MethodSettings("der++"), network, 20_000)
    kept = kept.after(network, clips("many", [0, 1, 2, 3, 4, 5] * 4), ["normal"] * 24)
    assert len(kept.memory.exemplars) == 15 and kept.size_bytes == 15 * ENTRY <= 20_000


@pytest.mark.parametrize(("name", "limit"), [("ewc", 200_000), ("lwf", 200_000), ("der++", 1000), ("a-gem", 0)])
def test_a_limit_that_is_too_small_is_said(name, limit):
    with pytest.raises(SettingsError, match="more than the limit"):
        retention(MethodSettings(name), model(), limit)


def test_latent_replay_is_what_a_wearable_calls_replay():
    network, learned, new = model(), clips("then", [0, 1, 2]), clips("new", [3, 4])
    kept = retention(MethodSettings("latent-replay"), network, 10**6).after(network, learned, ["normal"] * 3)
    memory = ReplayMemory("g", 10**6).add(exemplars_of(network, learned, lightings=["normal"] * 3, day=0))
    results = []
    for method in (kept.method(network), continual_method(ReplaySettings("replay"), memory)):
        trained = copy.deepcopy(network)
        fine_tune(trained, new, SETTINGS, train_mode="head", keys=(0,), method=method)
        results.append(tensors_of(trained))
    assert all(np.array_equal(results[0][name], results[1][name]) for name in results[0])


def test_methods_are_read_from_text_and_wrong_ones_named():
    assert MethodSettings.parse("der++:0.5").weight("alpha") == 0.5
    assert MethodSettings.parse("der++:0.5").weight("beta") == 1
    assert MethodSettings.parse("der++:1:0.5", "re-fed").label == "der++:1:0.5+re-fed"
    assert MethodSettings.parse("ewc", "re-fed").label == "ewc"
    for text in ("dark", "ewc:1:2", "ewc:much", "ewc:-1", "naive:1", "lwf:nan"):
        with pytest.raises(SettingsError):
            MethodSettings.parse(text)
