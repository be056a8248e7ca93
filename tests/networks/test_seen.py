"""SEEN against arrays of its authors' implementation, and against a step-by-step form of the same network."""

import numpy as np
import pytest
import torch
from goldens import FOLDER, assert_close
from torch.nn.functional import conv2d, cross_entropy

from mcoe_model.errors import ModelInvalid, SettingsError
from mcoe_model.learning.weights import backbone_sha256, can_build, can_recognise, load_model, tensors_of
from mcoe_model.model_file import SEE_NORMALISATION, Generation, ModelCard, write_model
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import PRESETS, build, from_published
from mcoe_model.networks.lif import DECAY, fire, integrate_and_fire
from mcoe_model.networks.presets import SEEN_PRESETS
from mcoe_model.networks.seen import Seen, SeenConfig

OTHER_ORDER = ("happiness", "sadness", "angry", "disgust", "surprise", "fear", "neutraL")


@pytest.fixture(scope="module")
def golden():
    with np.load(FOLDER / "seen.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.fixture(scope="module")
def published(golden):
    """The published network with the golden weights; of the two largest layers the first rows only, the rest zero."""
    model = build("seen", seed=0).eval()
    given = {name.split("/")[1]: values for name, values in golden.items() if name.startswith(("p16/", "b/"))}
    state = {name: values.float() for name, values in given.items() if not name.endswith("tracked")}
    for name, rows in (("conv3_f2.weight", 512), ("fc1.weight", 256)):
        state[name] = torch.cat([state[name], torch.zeros(rows - len(state[name]), *state[name].shape[1:])])
    from_published(state, model, label_order=EMOTIONS)
    return model


def small(**sizes):
    torch.manual_seed(3)
    return Seen(SeenConfig("small", **({"input_size": 20} | sizes)))


def windows(model, batch=3, seed=0):
    random = torch.Generator().manual_seed(seed)
    side, steps = model.config.input_size, model.config.steps
    return (torch.randn(batch, count, side, side, generator=random) for count in (2, steps))


def bits(packed, like):
    return torch.from_numpy(np.unpackbits(packed.numpy(), axis=-1, count=like.shape[-1]))


def test_every_spike_of_the_convolutions_is_the_releases(published, golden):
    frame, event = golden["in16/frame"].float(), golden["in16/event"].float()  # (1, 3, 2, 90, 90) twice
    with torch.inference_mode():
        trace = published.trace(frame, event)
    assert_close(trace.scales, golden["mid/scale_weights"][:1])
    spatial = bits(golden["mid/h3_spike"], trace.spatial)
    rows = 16 * 36  # of the last convolution's neurons, those whose weights are here
    assert torch.equal(trace.spatial[:, :rows], spatial[:1, :rows].float()) and 0 < spatial[0, :rows].sum() < rows
    for step in range(2):
        for layer, name in enumerate(("c1", "c2")):
            spikes = trace.temporal[layer].spikes[step, 0].flatten(1)  # (C, HW)
            assert torch.equal(spikes, bits(golden[f"mid/step{step}/{name}_spike"], spikes).float()), (step, name)
            assert_close(trace.temporal[layer].membranes[step, 0, 0], golden[f"mid/step{step}/{name}_mem_ch0"])
        third = trace.temporal[2].spikes[step].flatten(1)  # (1, N)
        expected = bits(golden[f"mid/step{step}/c3_spike"], third)[:1, :rows].float()
        assert torch.equal(third[:, :rows], expected) and 0 < expected.sum() < rows


def test_the_heads_spikes_membranes_logits_and_gradients_are_the_releases(published, golden):
    published.zero_grad()
    like = torch.empty(18432)
    spatial = bits(golden["mid/h3_spike"], like).float()  # (B, N)
    temporal = torch.stack([bits(golden[f"mid/step{t}/c3_spike"], like).float() for t in range(4)])  # (T, B, N)
    hidden = integrate_and_fire(published.hidden(spatial + temporal))
    expected = torch.stack([golden[f"mid/step{t}/h1_mem"] for t in range(4)])  # (T, B, 256)
    spikes = torch.stack([golden[f"mid/step{t}/h1_spike"] for t in range(4)]).float()
    assert_close(hidden.membranes[..., :4], expected[..., :4])
    assert torch.equal(hidden.spikes[..., :4], spikes[..., :4])
    # The other rows of the hidden layer are not here: put their membranes in their place, with their gradients.
    currents = expected - torch.cat([torch.zeros_like(expected[:1]), DECAY * expected[:-1] * (1 - spikes[:-1])])
    currents[..., :4] = 0
    hidden = integrate_and_fire(
        torch.cat([published.hidden(spatial + temporal)[..., :4], currents[..., 4:]], dim=-1)
    )
    last = integrate_and_fire(published.classifier(hidden.spikes))
    assert_close(last.membranes, torch.stack([golden[f"mid/step{t}/h2_mem"] for t in range(4)]))
    assert torch.equal(last.spikes, torch.stack([golden[f"mid/step{t}/h2_spike"] for t in range(4)]).float())
    logits = last.membranes.mean(0)
    assert_close(logits, golden["out/logits"])
    (logits * golden["gradout"]).sum().backward()
    assert_close(published.classifier.weight.grad, golden["grad/fc2.weight"])
    assert_close(published.classifier.bias.grad, golden["grad/fc2.bias"])
    assert_close(published.hidden.bias.grad[:4], golden["grad/fc1.bias"][:4])
    assert_close(published.hidden.weight.grad[:4, ::64], golden["grad/fc1.weight_rows0_4"])
    assert_close(published.hidden.weight.grad[:4].sum(1), golden["grad/fc1.weight_rows0_4_sum"])


def step_by_step(model, frame, event):
    """Logits as the release computes them: all layers of a step, then the next step."""
    convolutions = model.backbones
    x = convolutions.ends(torch.cat([frame[:, :1]] * 3 + [frame[:, 1:]] * 3, dim=1))
    maps = [scale(x) for scale in convolutions.scales]
    scores = [
        weight.excite(torch.relu(weight.norm(weight.squeeze(torch.nn.functional.adaptive_avg_pool2d(scaled, 1)))))
        for weight, scaled in zip(convolutions.weights, maps, strict=True)
    ]
    weights = torch.softmax(torch.stack(scores), dim=0)  # (3, B, 1, 1, 1)
    mixed = convolutions.mix(torch.cat([weight * scaled for weight, scaled in zip(weights, maps, strict=True)], dim=1))
    spatial = fire(convolutions.third(convolutions.second(mixed)).flatten(1))

    def copied(convolution, x):
        return conv2d(x, convolution.weight.detach(), stride=convolution.stride, padding=convolution.padding)

    membranes, spikes = [0.0] * 5, [torch.zeros(())] * 5
    total = 0.0

    def neurons(layer, current):
        membranes[layer] = membranes[layer] * DECAY * (1 - spikes[layer]) + current
        spikes[layer] = fire(membranes[layer])
        return spikes[layer]

    for step in range(event.shape[1]):
        picture = event[:, step : step + 1].repeat(1, 3, 1, 1)
        scaled = [w.detach() * copied(scale, picture) for w, scale in zip(weights, convolutions.scales, strict=True)]
        first = neurons(0, copied(convolutions.mix, torch.cat(scaled, dim=1)))
        second = neurons(1, copied(convolutions.second, first))
        third = neurons(2, copied(convolutions.third, second)).flatten(1)
        neurons(4, model.classifier(neurons(3, model.hidden(third.detach() + spatial))))
        total = total + membranes[4]
    return total / event.shape[1]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("steps", [1, 4, 13])
def test_layer_by_layer_is_step_by_step_with_all_gradients(steps, training):
    model = small(steps=steps).train(training)
    with torch.no_grad():  # untrained weights leave most neurons silent
        for convolution in (model.backbones.second, model.backbones.third):
            convolution.weight.mul_(3)
    frame, event = windows(model)
    weights = torch.randn(3, 7, generator=torch.Generator().manual_seed(1))
    logits, routing = model.classify(model.features(frame, event))
    (logits * weights).sum().backward()
    ours = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    frame, event = windows(model)
    expected = step_by_step(model, frame, event)
    (expected * weights).sum().backward()
    assert_close(logits, expected.detach())
    for name, parameter in model.named_parameters():
        # The weight of a bias before normalisation over the batch is nothing but rounding.
        if not (training and name.endswith("squeeze.bias")):
            assert_close(ours[name], parameter.grad, 1e-4, name)
            assert parameter.grad.abs().max() > 0, name
    assert routing.gate.shape == routing.chosen.shape == (3, 0)


def test_coloured_windows_and_grey_ones_are_the_same():
    model = small().eval()
    frame, event = windows(model)
    coloured = [pictures[:, None].expand(-1, 3, -1, -1, -1) for pictures in (frame, event)]
    torch.testing.assert_close(model(*coloured), model.classify(model.features(frame, event))[0])


def test_a_window_does_not_depend_on_its_batch():
    model = small().eval()
    frame, event = windows(model)
    together = model.classify(model.features(frame, event))[0]
    alone = [model.classify(model.features(frame[i : i + 1], event[i : i + 1]))[0] for i in range(3)]
    torch.testing.assert_close(torch.cat(alone), together)


def test_a_single_window_can_be_trained_on():
    model = small().train()
    frame, event = windows(model, batch=1)
    cross_entropy(model.classify(model.features(frame, event))[0], torch.tensor([2])).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_it_has_the_published_parameters_and_settings():
    assert sum(parameter.numel() for parameter in build("seen", seed=0).parameters()) == 6_078_655
    assert {(config.steps, config.skip) for config in SEEN_PRESETS.values()} == {
        (4, 3), (4, 1), (4, 0), (7, 1), (7, 0), (13, 0),
    }  # fmt: skip
    for name, config in SEEN_PRESETS.items():
        assert PRESETS[name] is config and config.preset == name
        window = config.sampling.law(40).windows[0]
        assert len(window) == config.steps and set(np.diff(window)) == {config.skip + 1}


@pytest.mark.parametrize(
    ("name", "steps", "skip"), [("seen-e5-s2", 5, 2), ("seen-e1-s0", 1, 0), ("seen-e64-s32", 64, 32)]
)
def test_any_number_of_steps_and_skips_has_a_name_that_a_model_file_keeps(name, steps, skip, tmp_path):
    model = build(name, seed=0, size=20)
    assert (model.config.preset, model.config.steps, model.config.skip) == (name, steps, skip)
    tensors = tensors_of(model)
    generation = Generation(name, backbone_sha256(tensors), 20, SEE_NORMALISATION, top_k=0)
    write_model(tmp_path / "model.safetensors", tensors, ModelCard(generation, "test"))
    again, card = load_model(tmp_path / "model.safetensors")
    assert again.config == model.config and card.generation.preset == name and can_build(card.generation)
    assert not can_recognise(card.generation)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("ending", ["e4-s3", "e0-s1", "e65-s0", "e4-s33", "e04-s3", "e4-s03", "e4", "e4-s-1", "e4-s1 "])
def test_a_setting_that_is_none_is_refused_with_the_form_of_one(ending):
    with pytest.raises(SettingsError, match=r"seen-eN-sM \(N event pictures, 1 to 64, and M left out .*, 0 to 32\)"):
        build(f"seen-{ending}")


def test_it_can_be_made_for_pictures_of_another_size():
    model = build("seen", seed=0, size=32).eval()
    assert (model.config.input_size, model.hidden.in_features) == (32, 512 * 2 * 2)
    frame, event = windows(model)
    assert model.classify(model.features(frame, event))[0].shape == (3, 7)


def test_wrong_sizes_are_reported_together():
    with pytest.raises(SettingsError) as error:
        SeenConfig("bad", steps=0, skip=-1, input_size=0)
    assert len(error.value.faults) == 3


def theirs(model):
    return {piece.theirs: model.state_dict()[piece.ours].clone() for piece in model.published_pieces()}


def test_the_authors_weights_load_by_name_with_their_label_order():
    source, target = small().eval(), small().eval()
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.normal_()
    from_published(theirs(source), target, label_order=OTHER_ORDER)
    frame, event = windows(source)
    frame, event = frame[:, None].expand(-1, 3, -1, -1, -1), event[:, None].expand(-1, 3, -1, -1, -1)
    published, ours = source(frame, event), target(frame, event)
    for column, label in enumerate(OTHER_ORDER):
        torch.testing.assert_close(ours[:, EMOTIONS.index(label.lower())], published[:, column])


def test_names_that_are_unknown_or_missing_are_one_error():
    state = theirs(small())
    del state["conv2_f2.bias"]
    state["conv9.weight"] = torch.zeros(1)
    with pytest.raises(ModelInvalid, match=r"of small: 1 unknown \(conv9\.weight\); 1 missing \(conv2_f2\.bias\)"):
        from_published(state, small(), label_order=EMOTIONS)
