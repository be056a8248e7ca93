import pytest
import torch

from mcoe_model.networks.lif import fire, integrate_and_fire


def test_a_membrane_leaks_fires_and_is_set_back():
    currents = torch.tensor([0.2, 0.2, 0.3, 0.0, 0.5, 0.31])[:, None]  # (T, 1)
    done = integrate_and_fire(currents)
    # 0.2; 0.04 + 0.2; 0.048 + 0.3 fires; then from 0; fires; from 0, fires
    torch.testing.assert_close(done.membranes[:, 0], torch.tensor([0.2, 0.24, 0.348, 0.0, 0.5, 0.31]))
    assert done.spikes[:, 0].tolist() == [0, 0, 1, 0, 1, 1]


def test_it_fires_above_the_threshold_and_not_at_it():
    threshold = torch.tensor(0.3)
    assert fire(torch.stack([threshold, torch.nextafter(threshold, torch.tensor(1.0))])).tolist() == [0, 1]


def test_the_gradient_is_a_rectangle_around_the_threshold():
    membranes = torch.tensor([-0.25, -0.15, 0.3, 0.75, 0.85], requires_grad=True)
    fire(membranes).backward(torch.full((5,), 3.0))
    assert membranes.grad.tolist() == [0, 3, 3, 3, 0]


def test_gradients_go_through_leak_and_reset():
    currents = torch.tensor([[0.6], [0.1]], requires_grad=True)  # (T, 1)
    integrate_and_fire(currents).membranes[1].sum().backward()
    # m1 = 0.2 m0 (1 - s0) + x1 with s0 = 1: through the leak 0, through the reset -0.2 m0.
    assert currents.grad[:, 0].tolist() == pytest.approx([-0.12, 1])
