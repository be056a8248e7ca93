"""The published network at its real size, with 155 million weights that follow from a rule."""

import numpy as np
import pytest
import torch
from goldens import FOLDER, arrays, assert_close

from mcoe_model.names import EMOTIONS
from mcoe_model.networks import build, from_published
from mcoe_model.networks.mcoe_pieces import pieces


def parameter(number, name, shape):
    """Weights of every published parameter: normal numbers of a stream of its own, scaled by what it is."""
    z = np.random.RandomState(1000 + number).standard_normal(int(np.prod(shape)))
    if "A_log" in name or "A_b_log" in name:
        z = np.tile(np.log(np.arange(1, 17)), shape[0]) + 0.05 * z
    elif ".D_" in name or (name.endswith("weight") and any(kind in name for kind in ("bn", "norm", "downsample.1"))):
        z = 1 + 0.1 * z
    elif "dt_proj" in name and name.endswith("bias"):
        z = -4 + 0.5 * z
    elif name.endswith("res_coef"):
        z[:] = 0.3
    elif len(shape) > 1:
        z *= np.sqrt((2 if "resnet" in name else 1) / np.prod(shape[1:]))
    else:
        z *= 0.05
    if name.endswith("resnet.fc.weight"):
        z *= 0.005
    if name == "moe.router.mlp.2.weight":
        z *= 4
    return torch.from_numpy(z.astype(np.float32)).reshape(shape)


def buffers(model):
    """Running statistics of every backbone, numbered in the published order."""
    names = [piece.theirs for piece in pieces(model) if "running" in piece.theirs]
    shapes = {piece.theirs: model.state_dict()[piece.ours].shape for piece in pieces(model) if piece.theirs in names}
    for number, name in enumerate(names):
        z = np.random.RandomState(5000 + number).standard_normal(shapes[name])
        yield name, torch.from_numpy(0.05 * z if name.endswith("mean") else np.exp(0.2 * z)).float()


@pytest.fixture(scope="module")
def golden():
    return arrays("mcoe_whole_rule")


@pytest.fixture(scope="module")
def model(golden):
    model = build("mcoe").eval()
    state = dict(buffers(model))
    sums, absolute_sums = [], []
    with np.load(FOLDER / "mcoe_whole_rule.npz", allow_pickle=False) as file:
        lines = [str(line).split("\t") for line in file["names"]]
    for number, name, shape in lines:
        sizes = tuple(int(size) for size in shape.strip("()").split(",") if size.strip())
        state[name] = parameter(int(number), name, sizes)
        sums.append(state[name].double().sum())
        absolute_sums.append(state[name].double().abs().sum())
    # The rule is the same one: a sum that is nearly zero is compared with the size of what was summed.
    sums, absolute_sums = torch.stack(sums).float(), torch.stack(absolute_sums).float()
    assert ((sums - golden["checksum/param_sum"]).abs() <= 1e-5 * absolute_sums.clamp(min=1)).all()
    assert_close(absolute_sums / golden["checksum/param_abs_sum"], torch.ones(len(sums)))
    assert sum(values.numel() for values in state.values()) == 154_855_467 + 38_400
    from_published(state, model, label_order=EMOTIONS)
    return model


def inputs():
    scale = (0.5 + 0.3 * np.arange(6)).reshape(6, 1, 1, 1, 1)
    frame = scale * np.random.RandomState(71).standard_normal((6, 3, 4, 100, 100))
    event = scale[::-1] * np.random.RandomState(72).standard_normal((6, 3, 4, 100, 100))
    return torch.from_numpy(frame).float(), torch.from_numpy(event).float()


def test_equals_the_original(model, golden):
    frame, event = inputs()
    seen = {}
    hooks = [
        module.register_forward_hook(lambda module, given, out, name=name: seen.update({name: (given, out)}))
        for name, module in model.named_modules()
        if name in ("mamba", "fusion", "moe", "moe.router") or (name.count(".") == 1 and "backbones." in name)
    ]
    with torch.inference_mode():
        logits = model(frame, event)
        x = seen["moe"][0][0]
        dense = model.moe.all_experts(x)
    for hook in hooks:
        hook.remove()

    for picture in ("frame_first", "frame_last", "event_first", "event_last"):
        assert_close(seen[f"backbones.{picture}"][1], golden[f"mid/feat_{picture}"], note=picture)
    assert_close(seen["mamba"][1][0], golden["mid/mamba_rgb"], note="mamba frame")
    assert_close(seen["mamba"][1][1], golden["mid/mamba_event"], note="mamba event")
    assert_close(seen["fusion"][1], golden["mid/mcib"], note="fusion")
    assert_close(x, golden["mid/fusion_proj"], note="projection")
    assert_close(seen["moe.router"][1], golden["mid/router_logits"], note="router")
    routing = seen["moe"][1][1]
    assert torch.equal(routing.chosen.int(), golden["mid/topk_indices"])
    assert_close(routing.gate.gather(1, routing.chosen), golden["mid/topk_weights"], note="weights")
    for expert in range(8):
        assert_close(dense[:, expert], golden[f"mid/expert_{expert}_dense_out"], note=f"expert {expert}")
    torch.testing.assert_close(logits, golden["out/logits"], rtol=0, atol=1e-4)
