import pytest
import torch
from goldens import arrays, assert_close, assert_gradients, load, small_published_model

from mcoe_model.networks.mco_mamba import MCOMamba

MODALITIES = ("rgb", "event")


@pytest.mark.parametrize(
    ("name", "method"),
    [("mco_mamba_L37", "chunked"), ("mco_mamba_L500", "chunked"), ("mco_mamba_L500_init", "chunked"),
     ("mco_mamba_L37", "reference")],
)  # fmt: skip
def test_equals_the_original(name, method):
    golden = arrays(name)
    model = small_published_model()
    load(model, golden, prefix="MCO.")
    inputs = [golden[f"in/{modality}"].requires_grad_() for modality in MODALITIES]

    trace = model.mamba.trace(*inputs, method=method)
    for r, direction in enumerate(("fwd", "bwd")):
        own, joint = trace.parameters[r, :, 1:], trace.joint[r]
        for m, modality in enumerate(MODALITIES):
            mids = {
                "xz": trace.xz[r, m].movedim(1, 0),
                "u": trace.u[r, m].movedim(1, 0),
                "delta": trace.delta[r, m].movedim(1, 0),
                "y": trace.y[r, m].movedim(1, 0),
                "xdbl": trace.parameters[r, m].movedim(0, 2),
                "B": (own[m] + joint)[:16].movedim(0, 2),
                "C": (own[m] + joint)[16:].movedim(0, 2),
            }
            for mid, values in mids.items():
                assert_close(values, golden[f"mid/{direction}/{mid}_{modality}"], note=f"{direction} {mid} {modality}")
        assert_close(joint[:16].movedim(0, 2), golden[f"mid/{direction}/B_joint"], note="B joint")
        assert_close(joint[16:].movedim(0, 2), golden[f"mid/{direction}/C_joint"], note="C joint")

    outputs = model.mamba(*inputs, method=method)
    torch.autograd.backward(outputs, [golden[f"gradout/{modality}"] for modality in MODALITIES])
    for modality, output, tokens in zip(MODALITIES, outputs, inputs, strict=True):
        assert_close(output, golden[f"out/{modality}"], note=f"out {modality}")
        assert_close(tokens.grad, golden[f"grad/in_{modality}"], note=f"gradient of {modality}")
    assert_gradients(model, golden, prefix="MCO.")


def test_starts_as_published():
    torch.manual_seed(0)
    block = MCOMamba()
    step = torch.nn.functional.softplus(block.dt_bias)
    assert step.min() >= 1e-3 * 0.999 and step.max() <= 1e-1 * 1.001
    assert torch.equal(block.dt_bias[0], block.dt_bias[1])
    assert torch.equal(block.A_log[1, 0, 3].exp().round(), torch.arange(1.0, 17))
    assert block.A_log.data_ptr() != block.A_log[1].data_ptr()
    assert torch.equal(block.skip, torch.ones(2, 2, 8))
    for weight, fan_in in ((block.in_proj, 4), (block.x_proj, 8), (block.joint, 66), (block.out_proj, 8)):
        assert 0.8 * fan_in**-0.5 < weight.abs().max() <= fan_in**-0.5


def test_modalities_see_each_other_only_through_the_joint_terms():
    torch.manual_seed(0)
    block = MCOMamba()
    frame, event = torch.randn(1, 20, 4), torch.randn(1, 20, 4)
    before, _ = block(frame, event)
    with_other_events, _ = block(frame, event + 1)
    assert not torch.allclose(before, with_other_events)
    with torch.no_grad():
        block.joint.zero_()
    assert torch.equal(block(frame, event)[0], block(frame, event + 1)[0])
