import torch
from goldens import arrays, assert_close, assert_gradients, load, small_published_model

from mcoe_model.networks.hce_moe import HCEMoE

SIZES = {"router_hidden": 512, "convolution_hidden": 512, "deep_hidden": 128}


def test_equals_the_original():
    golden = arrays("hce_moe_dim32")
    model = small_published_model(hidden=32, **SIZES).eval()
    load(model, golden, prefix="moe.")
    x = golden["in/x"].requires_grad_()

    assert_close(model.moe.router(x), golden["mid/router_logits"])
    out, routing = model.moe(x)
    assert_close(routing.gate, golden["mid/router_softmax"])
    assert torch.equal(routing.chosen.int(), golden["mid/topk_indices"])
    assert_close(routing.gate.gather(1, routing.chosen), golden["mid/topk_weights"])
    dense = model.moe.all_experts(x)
    for expert in range(8):
        assert_close(dense[:, expert], golden[f"mid/expert_{expert}_dense_out"], note=f"expert {expert}")
    assert_close(out, golden["out"])

    (out * golden["gradout"]).sum().backward()
    assert_close(x.grad, golden["grad/in_x"])
    assert_gradients(model, golden, prefix="moe.")


def tiny_moe(**changes):
    torch.manual_seed(0)
    sizes = {"classes": 7, "experts": 8, "top_k": 2, "router_hidden": 16, "convolution_hidden": 16, "deep_hidden": 16}
    return HCEMoE(12, deep_blocks=2, dropout=0.5, **(sizes | changes))


def test_weights_are_renormalised_over_the_chosen():
    moe = tiny_moe().eval()
    x = torch.randn(9, 12)
    out, routing = moe(x)
    dense = moe.all_experts(x)
    for sample in range(9):
        best = routing.gate[sample].argsort(descending=True)[:2]
        assert routing.chosen[sample].tolist() == best.tolist()
        share = routing.gate[sample, best] / (routing.gate[sample, best].sum() + 1e-8)
        torch.testing.assert_close(out[sample], (share[:, None] * dense[sample, best]).sum(0))


def test_an_expert_that_nobody_chose_gets_zero_gradient_and_changes_nothing():
    moe = tiny_moe().eval()
    x = torch.randn(1, 12)
    out, routing = moe(x)
    out.sum().backward()
    idle = next(e for e in range(8) if e not in routing.chosen)
    busy = int(routing.chosen[0, 0])
    assert all((p.grad == 0).all() for p in moe.experts[idle].parameters())
    assert any((p.grad != 0).any() for p in moe.experts[busy].parameters())
    with torch.no_grad():
        for parameter in moe.experts[idle].parameters():
            parameter.add_(1)
    assert torch.equal(moe(x)[0], out)


def test_samples_do_not_see_each_other():
    moe = tiny_moe().eval()
    x = torch.randn(6, 12)
    together = moe(x)[0]
    alone = torch.cat([moe(sample)[0] for sample in x.split(1)])
    torch.testing.assert_close(together, alone)


def test_kinds_follow_the_index():
    kinds = [type(expert).__name__[:4] for expert in tiny_moe(experts=7).experts]
    assert kinds == ["Conv", "Atte", "Deep", "Conv", "Atte", "Deep", "Conv"]
