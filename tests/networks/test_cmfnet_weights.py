import numpy as np
import pytest
import torch

from mcoe_model.errors import DataMissing, ModelInvalid, SettingsError
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import from_published
from mcoe_model.networks.cmfnet import CMFNet, CmfnetConfig
from mcoe_model.networks.cmfnet_weights import from_keras, read_keras_weights

CLASSES = ("negative", "positive", "surprise")


def another(seed):
    torch.manual_seed(seed)
    model = CMFNet(
        CmfnetConfig("small", input_size=18, channels=3, classes=CLASSES, filters=3, squeezed=2, dense=(5, 6), units=8)
    )
    for parameter in model.parameters():  # biases too
        torch.nn.init.normal_(parameter)
    return model.eval()


def keras_weights(model):
    """The model's weights as Keras would list them, written from the layers' definitions there."""

    def kernel(layer):
        if layer.weight.ndim == 5:
            return layer.weight.permute(2, 3, 4, 1, 0)
        return layer.weight.T

    def layer(layer):
        return [kernel(layer), layer.bias]

    def gates(values):
        reset, update, candidate = values.chunk(3)
        return torch.cat([update, reset, candidate])

    convolutions, gru = model.backbones, model.gru
    listed = [*layer(convolutions.wide), *layer(convolutions.narrow), *layer(convolutions.joint)]
    for part in (convolutions.attention.mean, convolutions.attention.largest):
        listed += layer(part.down) + layer(part.up)
    listed += layer(convolutions.attention.places)
    by_place = model.dense_1.weight.reshape(5, 3, 2, 2).permute(2, 3, 1, 0)  # h, w, f, outputs
    listed += [by_place.reshape(12, 5), model.dense_1.bias, *layer(model.dense_2)]
    listed += [gates(gru.weight_ih_l0).T, gates(gru.weight_hh_l0).T]
    listed += [torch.stack([gates(gru.bias_ih_l0), gates(gru.bias_hh_l0)])]
    for head in model.heads:
        listed += layer(head.query) + layer(head.key) + layer(head.value) + layer(head.out)
    listed += layer(model.dense_3) + layer(model.dense_4) + layer(model.classifier)
    return [values.detach().clone() for values in listed]


def clips():
    return torch.randn(3, 3, 10, 18, 18, generator=torch.Generator().manual_seed(5))


def test_the_loaded_model_computes_the_same():
    source, target = another(1), another(2)
    assert not torch.allclose(source(clips()), target(clips()))
    from_keras(keras_weights(source), target, label_order=CLASSES)
    assert torch.equal(target(clips()), source(clips()))


def test_classes_follow_the_label_order():
    source, target = another(1), another(2)
    other = ("surprise", "negative", "positive")
    from_keras(keras_weights(source), target, label_order=other)
    published, ours = source(clips()), target(clips())
    for column, label in enumerate(other):
        torch.testing.assert_close(ours[:, CLASSES.index(label)], published[:, column])


def test_a_label_order_must_name_every_class_once():
    with pytest.raises(SettingsError, match="negative, positive, joy does not name each of negative, positive"):
        from_keras([], another(1), label_order=("negative", "positive", "joy"))


def test_all_faults_are_one_error_and_nothing_is_copied():
    source, target = another(1), another(2)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    weights = keras_weights(source)
    with pytest.raises(ModelInvalid, match="1 arrays in place of 45"):
        from_keras(weights[:1], target, label_order=CLASSES)
    weights[6], weights[16] = torch.zeros(2), torch.zeros(13, 5)
    with pytest.raises(ModelInvalid, match=r"2 of another shape \(array 6, \(2,\), for .*down.*array 16, \(13, 5\)"):
        from_keras(weights, target, label_order=CLASSES)
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())


def test_a_file_of_numpy_holds_the_weights(tmp_path):
    source, target = another(1), another(2)
    path = tmp_path / "cmfnet.npz"
    np.savez(path, *(values.numpy() for values in keras_weights(source)))
    from_keras(read_keras_weights(path), target, label_order=CLASSES)
    assert torch.equal(target(clips()), source(clips()))


def test_a_bad_file_is_one_line(tmp_path):
    with pytest.raises(DataMissing, match=r"write them with numpy.savez\('none.npz', \*model.get_weights\(\)\)"):
        read_keras_weights(tmp_path / "none.npz")
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 torn")
    np.savez(tmp_path / "named.npz", kernel=np.zeros(2))
    np.savez(tmp_path / "objects.npz", np.array([{}], dtype=object))
    for name in ("torn", "named", "objects"):
        with pytest.raises(ModelInvalid, match="does not hold arr_0, arr_1") as error:
            read_keras_weights(tmp_path / f"{name}.npz")
        assert "\n" not in str(error.value)


def test_a_state_dict_of_torch_is_not_what_was_published():
    with pytest.raises(ModelInvalid, match=r"Keras; its weights are loaded by cmfnet_weights.from_keras"):
        from_published({}, another(1), label_order=EMOTIONS)
