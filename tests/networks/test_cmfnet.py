"""CMFNet against the original's arrays.

The golden file holds the convolutions whole, a few columns of the largest layers, the small attention heads and the
last layers: every layer is given what the original gave it, and its outputs that the file has weights for are compared.
"""

import math

import pytest
import torch
from goldens import arrays, assert_close
from torch.nn.functional import leaky_relu

from mcoe_model.errors import SettingsError
from mcoe_model.networks import build
from mcoe_model.networks.cmfnet import SLOPE, CMFNet, CmfnetConfig, PooledHead
from mcoe_model.networks.cmfnet_weights import from_keras

CLASSES = ("negative", "positive", "surprise")
DENSE = torch.arange(0, 128, 16)  # the columns of the first dense layer that are in the file
UNITS = torch.arange(3, 512, 32)  # and the units of the GRU
CORNER = 47  # side of the parts of the input that are in the file [pixels]


@pytest.fixture(scope="module")
def golden():
    return {name: values.float() for name, values in arrays("cmfnet").items()}


@pytest.fixture(scope="module")
def model(golden):
    model = CMFNet(CmfnetConfig("published", channels=3, classes=CLASSES)).eval()
    weights = [golden.get(f"p/{number:02d}", torch.zeros(0)) for number in range(93)]
    for number, (rows, columns) in {16: (7200, 128), 17: (1, 128)}.items():
        weights[number] = scattered(weights[number].reshape(rows, -1), DENSE, columns)
    gates = torch.cat([UNITS, UNITS + 512, UNITS + 1024])
    for number in (20, 21, 22):
        weights[number] = scattered(weights[number], gates, 1536)
    for head, width in enumerate((256, 128, 64, 32)):
        for layer, rows in enumerate((512, 512, 512, width)):
            weights[23 + 8 * head + 2 * layer] = torch.zeros(rows, width)
            weights[24 + 8 * head + 2 * layer] = torch.zeros(width)
    weights[17] = weights[17][0]
    from_keras(weights, model, label_order=CLASSES)
    return model


def scattered(values, columns, count):
    """The columns that are in the file at their places among all, zero elsewhere."""
    whole = torch.zeros(len(values), count)
    whole[:, columns] = values
    return whole


def test_has_the_published_number_of_parameters(model):
    assert sum(parameter.numel() for parameter in model.parameters()) == 2_836_759


def test_convolutions_equal_the_original_at_both_ends(model, golden):
    """The first and the last corner of every picture: beyond lie padding and its unequal sides."""
    expected = golden["mid/stage1"].permute(0, 4, 1, 2, 3)  # (1, 32, 2, 15, 15)
    with torch.inference_mode():
        first, last = (
            model.backbones.stage(golden[f"in/{end}_corner"].permute(3, 0, 1, 2)[None]) for end in ("first", "last")
        )
    assert first.shape == (1, 32, 2, 6, 6)
    # Where a corner was cut out, its own padding takes the picture's place.
    assert_close(first[..., :5, :5], expected[..., :5, :5])
    assert_close(last[..., 1:, 1:], expected[..., -5:, -5:])


def test_channel_attention_equals_the_original(model, golden):
    with torch.inference_mode():
        out = model.backbones.attention(golden["mid/stage1"].permute(0, 4, 1, 2, 3))
    assert_close(out, golden["mid/cbam"].permute(0, 4, 1, 2, 3))


def test_every_layer_of_the_head_equals_the_original(model, golden):
    compared = []

    def forced(module, name, actual, whole, expected):
        """Compare what the file has weights for, and go on with what the original computed."""

        def hook(module, given, out):
            assert_close(actual(out), expected, note=name)
            compared.append(name)
            return whole

        return module.register_forward_hook(hook)

    def before_leaky(values):
        return torch.where(values < 0, values / SLOPE, values)

    first = golden["mid/fc1"][:1]  # (1, 2, 128): the file has the convolutions' output of the first clip alone
    recurrent = golden["mid/gru"][:1]  # (1, 2, 512)
    attended = golden["mid/msmh"][:1]  # (1, 1, 510)
    widths = model.config.widths
    shown = first[..., DENSE]
    handles = [
        forced(model.dense_1, "fc1", lambda out: leaky_relu(out, SLOPE)[..., DENSE], before_leaky(first), shown),
        forced(model.gru, "gru", lambda out: out[0][:, 0, UNITS], (recurrent, None), recurrent[:, 0, UNITS]),
    ]
    for head, part in zip(model.heads[4:], attended.split(widths, dim=2)[4:], strict=True):
        handles.append(forced(head, f"head {head.out.out_features}", lambda out: out, part, part))
    for head, part in zip(model.heads[:4], attended.split(widths, dim=2)[:4], strict=True):
        handles.append(head.register_forward_hook(lambda module, given, out, part=part: part))
    with torch.inference_mode():
        trace = model.trace(golden["mid/cbam"].permute(0, 4, 1, 2, 3))
    for handle in handles:
        handle.remove()
    assert compared == ["fc1", "gru", "head 16", "head 8", "head 4", "head 2"]
    assert_close(trace.dense[1], golden["mid/fc2"][:1])
    assert_close(trace.last[0], golden["mid/fc3"][:1, 0])
    assert_close(trace.last[1], golden["mid/fc4"][:1, 0])
    assert_close(trace.logits.softmax(1), golden["mid/out"][:1, 0])


def test_the_second_step_of_the_gru_equals_the_original(model, golden):
    """Only a unit whose recurrent weights are in the file, given the whole state before, can be compared."""
    with torch.inference_mode():
        out, _ = model.gru(golden["mid/fc2"][:, 1:], golden["mid/gru"][None, :, 0].contiguous())
    assert_close(out[:, 0, UNITS], golden["mid/gru"][:, 1, UNITS])


def test_a_head_pools_its_queries_as_the_original(golden):
    """23 steps make three groups of queries, padded by 3 before and 4 after."""
    head = PooledHead(24, 16)
    with torch.no_grad():
        for layer, number in ((head.query, 38), (head.key, 39), (head.value, 40), (head.out, 41)):
            layer.weight.copy_(golden[f"single_head/p/dense_{number}/kernel:0"].T)
            layer.bias.copy_(golden[f"single_head/p/dense_{number}/bias:0"])
        assert_close(head(golden["single_head/in"]), golden["single_head/out"])


def test_weights_are_drawn_as_keras_draws_them():
    torch.manual_seed(3)
    model = CMFNet(CmfnetConfig("drawn", input_size=36, units=32))
    assert model.dense_1.weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.01)
    assert model.classifier.weight.abs().max().item() <= (6 / (64 + 7)) ** 0.5
    assert all(not parameter.any() for name, parameter in model.named_parameters() if "bias" in name)
    state = model.gru.weight_hh_l0
    torch.testing.assert_close(state.T @ state, torch.eye(32), rtol=0, atol=1e-5)


def test_sizes_are_checked_together():
    with pytest.raises(SettingsError) as error:
        CmfnetConfig("odd", frames=91, units=48, classes=("one",), dropout=1.0)
    assert len(error.value.faults) == 4 and all("preset 'odd'" in fault for fault in error.value.faults)


def small(**sizes):
    """A model of both modalities that is quickly made."""
    torch.manual_seed(2)
    smallest = {"input_size": 18, "filters": 3, "dense": (5, 6), "units": 8}
    return CMFNet(CmfnetConfig("small", **(smallest | sizes))).eval()


def test_the_loss_equals_the_original(golden):
    model = small(classes=CLASSES, class_weights=(0.3, 0.35, 0.35))
    logits, labels = golden["mid/out"][:, 0].log(), golden["loss/labels"].argmax(1)
    assert_close(model.loss(logits, labels, torch.zeros(7)) - model.penalty(), golden["loss/mean"])


def test_the_penalty_is_of_four_layers_that_the_original_regularises():
    model = small()
    attention = model.backbones.attention
    kernels = [attention.mean.down.weight, attention.largest.down.weight, model.dense_1.weight, model.dense_2.weight]
    assert model.penalty().item() == pytest.approx(0.01 * sum((kernel**2).sum().item() for kernel in kernels))


def test_rare_classes_weigh_as_much_as_frequent_ones():
    """Of 8 clips 6 are of one class and 2 of another; the other five classes were never seen."""
    model, logits = small(), torch.zeros(8, 7)
    learned = torch.tensor([6, 0, 0, 2, 0, 0, 0])
    frequent, rare = (model.loss(logits[:1], torch.tensor([label]), learned) - model.penalty() for label in (0, 3))
    assert (rare / frequent).item() == pytest.approx(3)
    labels = torch.tensor([0] * 6 + [3] * 2)
    assert (model.loss(logits, labels, learned) - model.penalty()).item() == pytest.approx(math.log(7), abs=1e-5)


def test_both_modalities_are_channels_of_one_clip():
    model = small()
    frame, event = torch.randn(2, 3, 10, 18, 18, generator=torch.Generator().manual_seed(1)).unbind()
    features = model.features(frame, event)
    logits, routing = model.classify(features)
    assert logits.shape == (3, 7) and routing.gate.shape == routing.chosen.shape == (3, 0)
    assert torch.equal(logits, model(torch.stack([frame, event], dim=1)))
    assert not torch.allclose(logits, model.classify(model.features(event, frame))[0])


def test_its_head_follows_the_size_of_the_pictures():
    model = build("cmfnet", seed=0, size=45)
    assert model.config.features == 32 * 5 * 5 and build("cmfnet", seed=0).config.features == 7200
    assert model(torch.zeros(1, 2, 10, 45, 45)).shape == (1, 7)
