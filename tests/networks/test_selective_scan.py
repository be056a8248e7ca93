import sys
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mcoe_model.errors import MissingExtra, SettingsError
from mcoe_model.networks import selective_scan as module
from mcoe_model.networks.selective_scan import selective_scan


def inputs(length, *, batch=2, scans=2, channels=3, states=4, seed=0, dtype=torch.float64):
    """u, delta, A, B, C and skip of `selective_scan`, all leaves that want a gradient."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=random, dtype=dtype)

    u, delta = normal(scans, channels, batch, length), normal(scans, channels, batch, length).exp()
    A = -normal(scans, channels, states).exp()
    B, C = normal(scans, states, batch, length), normal(scans, states, batch, length)
    return [tensor.requires_grad_() for tensor in (u, delta, A, B, C, normal(scans, channels))]


@settings(max_examples=25)
@given(length=st.integers(1, 600), batch=st.integers(1, 3), scans=st.integers(1, 4), seed=st.integers(0, 99))
def test_chunked_equals_the_loop(length, batch, scans, seed):
    tensors = inputs(length, batch=batch, scans=scans, seed=seed)
    with torch.no_grad():
        y = selective_scan(*tensors)
        torch.testing.assert_close(y, selective_scan(*tensors, method="reference"), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 37, 64, 101, 500, 600])
def test_chunked_gradient_equals_the_loop(length):
    tensors = inputs(length)
    upstream = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    chunked, loop = (
        torch.autograd.grad(selective_scan(*tensors, method=method), tensors, upstream)
        for method in ("chunked", "reference")
    )
    for ours, expected in zip(chunked, loop, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("length", [1, 6, 10])
def test_chunked_gradient_equals_finite_differences(length):
    assert torch.autograd.gradcheck(selective_scan, inputs(length, batch=1, channels=2, states=2))


@pytest.mark.parametrize("rate", [1e-30, 1e4, 1e30])
def test_extreme_decays_stay_finite(rate):
    tensors = inputs(600, dtype=torch.float32)
    with torch.no_grad():
        tensors[2] *= rate
    y = selective_scan(*tensors)
    loop = selective_scan(*tensors, method="reference")
    torch.testing.assert_close(y, loop, rtol=1e-3, atol=1e-3)
    for gradient in torch.autograd.grad(y, tensors, torch.ones_like(y)):
        assert gradient.isfinite().all()


def test_the_future_does_not_reach_back():
    tensors = inputs(100)
    later = [tensor.detach().clone() for tensor in tensors]
    for tensor in (later[0], later[1], later[3], later[4]):
        tensor[..., 60:] += 1
    with torch.no_grad():
        before, after = selective_scan(*tensors), selective_scan(*later)
    torch.testing.assert_close(before[..., :60], after[..., :60])
    assert not torch.allclose(before[..., 60:], after[..., 60:])


def test_unknown_method_is_refused():
    with pytest.raises(SettingsError, match="no method 'fast'"):
        selective_scan(*inputs(4), method="fast")


def test_kernel_that_is_not_installed_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    with pytest.raises(MissingExtra, match="pip install mamba-ssm"):
        selective_scan(*inputs(4), method="mamba_ssm")


def test_kernel_on_the_cpu_is_an_error(monkeypatch):
    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.selective_scan_interface"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    with pytest.raises(SettingsError, match="not on cpu"):
        selective_scan(*inputs(4), method="mamba_ssm")


def test_kernel_gets_its_own_layout(monkeypatch):
    """The kernel's documented contract, as a loop: u (b, GD, L), A (GD, N), B and C (b, G, N, L)."""

    def kernel(u, delta, A, B, C):
        per_group = u.shape[1] // B.shape[1]
        h, steps = torch.zeros(*u.shape[:2], A.shape[1], dtype=u.dtype), []
        B, C = B.repeat_interleave(per_group, 1), C.repeat_interleave(per_group, 1)
        for t in range(u.shape[2]):
            h = (delta[..., t, None] * A).exp() * h + (delta * u)[..., t, None] * B[..., t]
            steps.append((h * C[..., t]).sum(-1))
        return torch.stack(steps, -1)

    monkeypatch.setattr(module, "_mamba_ssm_kernel", lambda device: kernel)
    tensors = inputs(9, batch=2, scans=3)
    torch.testing.assert_close(
        selective_scan(*tensors, method="mamba_ssm"), selective_scan(*tensors, method="reference")
    )
