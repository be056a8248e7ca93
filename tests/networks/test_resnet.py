import logging

import numpy as np
import pytest
import torch
from goldens import FOLDER
from safetensors.torch import save_file

from mcoe_model.errors import ModelInvalid
from mcoe_model.networks.resnet import ResNet, load_imagenet


def imagenet(seed=0):
    """A state dict as torchvision's files hold it: contiguous, without batch counters."""
    torch.manual_seed(seed)
    state = ResNet(1000).state_dict()
    return {name: tensor.contiguous() for name, tensor in state.items() if not name.endswith("tracked")}


@pytest.fixture(scope="module", params=["resnet18.safetensors", "resnet18.pth"])
def weights_file(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / request.param
    save_file(imagenet(), path) if path.suffix == ".safetensors" else torch.save(imagenet(), path)
    return path


def test_names_and_shapes_are_torchvisions():
    with np.load(FOLDER / "mcoe_whole_rule.npz", allow_pickle=False) as file:
        lines = [str(line).split("\t") for line in file["names"]]
    published = [(name[len("res00.resnet.") :], shape) for _, name, shape in lines if name.startswith("res00.resnet.")]
    ours = [(name, str(tuple(parameter.shape))) for name, parameter in ResNet(1000).named_parameters()]
    assert ours == published


@pytest.mark.parametrize(("side", "width"), [(64, 16), (90, 8), (33, 8)])
def test_any_size_and_width(side, width):
    features = ResNet(12, width=width, blocks=(1, 1, 1, 1))(torch.randn(2, 3, side, side))
    assert features.shape == (2, 12)


def test_imagenet_weights_fill_every_backbone(weights_file):
    backbones = [ResNet(1000), ResNet(1000)]
    assert load_imagenet(backbones, weights_file) == ()
    for backbone in backbones:
        state = backbone.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in imagenet().items())


def test_another_classifier_is_kept_and_said_once(weights_file, caplog):
    backbones = [ResNet(256), ResNet(256)]
    before = [backbone.fc.weight.clone() for backbone in backbones]
    with caplog.at_level(logging.WARNING):
        assert load_imagenet(backbones, weights_file) == ("fc.bias", "fc.weight")
        assert load_imagenet(backbones, weights_file, quiet=True) == ("fc.bias", "fc.weight")
    assert len(caplog.records) == 1 and "fc.bias, fc.weight" in caplog.text
    for backbone, kept in zip(backbones, before, strict=True):
        assert torch.equal(backbone.fc.weight, kept)
        assert torch.equal(backbone.layer4[1].conv2.weight, imagenet()["layer4.1.conv2.weight"])


def test_what_does_not_fit_is_refused_and_listed(tmp_path):
    state = imagenet()
    del state["layer1.0.bn1.bias"]
    state["head"] = torch.zeros(1)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ModelInvalid, match=r"2 tensors .*\(head, layer1\.0\.bn1\.bias\)"):
        load_imagenet([ResNet(1000)], tmp_path / "other.safetensors")
    with pytest.raises(ModelInvalid, match="tensors are missing, unknown or of another shape"):
        load_imagenet([ResNet(1000, width=16)], tmp_path / "other.safetensors")
