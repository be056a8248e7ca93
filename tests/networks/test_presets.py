import dataclasses

import pytest
import torch

from mcoe_model.errors import SettingsError
from mcoe_model.learning.settings import rate_factor
from mcoe_model.networks import PRESETS, McoeConfig, MCOENet, Routing, build


def count(model, prefix=""):
    return sum(parameter.numel() for name, parameter in model.named_parameters() if name.startswith(prefix))


def windows(model, batch=2, seed=0):
    random = torch.Generator().manual_seed(seed)
    side = model.config.input_size
    return tuple(torch.randn(batch, 3, 4, side, side, generator=random) for _ in range(2))


@pytest.fixture(scope="module")
def tiny():
    return build("mcoe-tiny", seed=1).eval()


def test_mcoe_has_the_published_parameters():
    with torch.device("meta"):
        model = MCOENet(PRESETS["mcoe"])
    assert count(model) == 154_855_467
    assert count(model, "backbones.") == 46_758_048
    assert count(model, "moe.experts.2.") == count(model, "moe.experts.5.") == 41_975_816
    assert count(model, "mamba.") == 6_514 - 16 - 16 - 16 - 64 - 178  # two norms, a bias, a projection, a gate: dead
    assert count(model, "projection.") == 2_049_024
    assert (model.config.tokens, model.feature_size, model.roles) == (500, 1000, ("first", "last"))
    assert set(model.backbones) == {"frame_first", "frame_last", "event_first", "event_last"}


def test_edge_fits_a_wearable():
    model = build("mcoe-edge")
    assert 24e6 < count(model) < 26e6
    assert count(model) - count(model, "backbones.") < 3e6
    assert (model.config.tokens, model.feature_size, model.roles) == (128, 256, ("any",))
    assert set(model.backbones) == {"frame", "event"}


def test_tiny_is_tiny(tiny):
    assert count(tiny) < 1e6
    assert (tiny.config.tokens, tiny.feature_size, tiny.config.input_size) == (64, 128, 64)


def test_with_group_normalisation_features_of_a_picture_are_its_own_even_in_training():
    model = build("mcoe-tiny-group", seed=1)
    assert not any("running" in name for name in model.state_dict())
    assert count(model) == count(build("mcoe-tiny", seed=1))
    pictures = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([model.encode(pictures[i : i + 1], "event", "any") for i in range(4)])
    torch.testing.assert_close(model.encode(pictures, "event", "any"), alone)
    assert not torch.allclose(build("mcoe-tiny", seed=1).encode(pictures, "event", "any")[:1],
                              build("mcoe-tiny", seed=1).encode(pictures[:2], "event", "any")[:1])


def test_group_normalisation_needs_whole_groups():
    with pytest.raises(SettingsError, match="multiple of 8"):
        McoeConfig("odd", width=12, norm="group")


#: As the released code of each trains: epochs, batch, optimiser, learning rate, weight decay, what the rate is
#: multiplied by and after how many epochs.
PUBLISHED = {
    "mcoe": (100, 64, "adamw", 3e-4, 1e-3, 0.94, 1),
    "seen": (180, 32, "sgd", 0.015, 1e-3, 0.94, 1),
    "cmfnet": (200, 8, "adamw", 1e-3, 0.0, 0.9, 40),  # AdamW without weight decay is Adam
}


@pytest.mark.parametrize("name", PRESETS)
def test_each_is_trained_as_published_where_that_is_asked_for(name):
    recipe = PRESETS[name].published_recipe
    training, (factor, every) = recipe.training, recipe.decay
    found = (training.epochs, training.batch_size, recipe.optimiser, training.learning_rate, training.weight_decay)
    assert (*found, factor, every) == PUBLISHED[name.partition("-")[0]]
    rates = [rate_factor(training.schedule, share=0.5, step=step, decay=recipe.decay) for step in range(2 * every + 1)]
    assert rates[every - 1 : every + 1] == [1.0, factor] and rates[-1] == pytest.approx(factor**2)
    assert (training.balance, training.augment) == (0.0, False), "cross-entropy alone, of the pictures as they are"
    if name.startswith(("mcoe", "seen")):
        assert training.batch_norm == "running"


def test_equal_seeds_give_equal_bits_whatever_was_drawn_before():
    first = build("mcoe-tiny", seed=7).state_dict()
    state = torch.random.get_rng_state()
    second = build("mcoe-tiny", seed=7).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    other = build("mcoe-tiny", seed=8).state_dict()
    assert not torch.equal(first["projection.weight"], other["projection.weight"])


def test_unknown_preset_is_refused():
    with pytest.raises(SettingsError, match="no preset 'mcoe-huge'"):
        build("mcoe-huge")


def test_all_wrong_sizes_are_reported_together():
    with pytest.raises(SettingsError) as error:
        McoeConfig("bad", features=5, channels=4, top_k=9, deep_dropout=1.0, hidden=0)
    assert len(error.value.faults) == 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRESETS["mcoe"].hidden = 5


def test_only_the_first_and_the_last_frame_count(tiny):
    frame, event = windows(tiny)
    before = tiny(frame, event)
    frame[:, :, 1:3], event[:, :, 1:3] = 0, 0
    assert torch.equal(tiny(frame, event), before)
    frame[:, :, 3] = 0
    assert not torch.allclose(tiny(frame, event), before)


@pytest.mark.parametrize("backbones", ["two", "four"])
def test_head_on_features_equals_the_whole(backbones):
    torch.manual_seed(0)
    config = dataclasses.replace(PRESETS["mcoe-tiny"], backbones=backbones, dead=backbones == "four")
    model = MCOENet(config).eval()
    frame, event = windows(model)
    first, last = model.roles[0], model.roles[-1]
    features = [
        model.encode(pictures[:, :, t], modality, role)
        for modality, pictures in (("frame", frame), ("event", event))
        for t, role in ((0, first), (-1, last))
    ]
    logits, routing = model.head(*features, routing=True)
    torch.testing.assert_close(logits, model(frame, event))
    assert torch.equal(model.head(*features), logits)
    assert isinstance(routing, Routing) and routing.chosen.shape == (2, 2)
    torch.testing.assert_close(routing.gate.sum(1), torch.ones(2))


def test_a_role_that_does_not_exist_is_refused(tiny):
    with pytest.raises(ValueError, match="no backbone for 'frame', 'first'"):
        tiny.encode(torch.zeros(1, 3, 64, 64), "frame", "first")


def test_a_window_does_not_depend_on_its_batch(tiny):
    frame, event = windows(tiny, batch=5)
    with torch.inference_mode():
        together = tiny(frame, event)
        alone = torch.cat([tiny(frame[i : i + 1], event[i : i + 1]) for i in range(5)])
        reversed_ = tiny(frame.flip(0), event.flip(0)).flip(0)
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together, reversed_)


def test_everything_but_the_dead_gets_a_finite_gradient():
    torch.manual_seed(0)
    config = dataclasses.replace(PRESETS["mcoe-tiny"], backbones="four", dead=True, top_k=8)
    model = MCOENet(config)
    model(*windows(model, batch=4)).square().sum().backward()
    for name, parameter in model.named_parameters():
        if name.startswith("dead."):
            assert parameter.grad is None and not parameter.requires_grad
        else:
            assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name


def test_tiny_learns_a_handful_of_windows():
    model = build("mcoe-tiny", seed=3)
    frame, event = windows(model, batch=7)
    emotions = torch.arange(7)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    torch.manual_seed(0)
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(model(frame, event), emotions)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.5
