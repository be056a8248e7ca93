import pytest
import torch
from goldens import published_state, small_published_model

from mcoe_model.errors import ModelInvalid, SettingsError
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import build, from_published

#: As an annotation file may list them, with SEE's spelling of one.
OTHER_ORDER = ("happiness", "sadness", "angry", "disgust", "surprise", "fear", "neutraL")


def another(seed):
    torch.manual_seed(seed)
    return small_published_model().eval()


def windows():
    random = torch.Generator().manual_seed(5)
    return tuple(torch.randn(3, 3, 4, 32, 32, generator=random) for _ in range(2))


def test_the_loaded_model_computes_the_same():
    source, target = another(1), another(2)
    assert not torch.allclose(source(*windows()), target(*windows()))
    from_published(published_state(source), target, label_order=EMOTIONS)
    torch.testing.assert_close(target(*windows()), source(*windows()))


def test_classes_follow_the_label_order():
    source, target = another(1), another(2)
    from_published(published_state(source), target, label_order=OTHER_ORDER)
    published = source(*windows())  # its column i is emotion OTHER_ORDER[i]
    ours = target(*windows())
    for column, label in enumerate(OTHER_ORDER):
        torch.testing.assert_close(ours[:, EMOTIONS.index(label.lower())], published[:, column])


def test_a_label_order_must_name_every_emotion_once():
    with pytest.raises(SettingsError, match="boredom"):
        from_published({}, another(1), label_order=(*EMOTIONS[:6], "boredom"))
    with pytest.raises(SettingsError, match="once"):
        from_published({}, another(1), label_order=(*EMOTIONS[:6], "angry"))


def test_all_faults_are_one_error_and_nothing_is_copied():
    source, target = another(1), another(2)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    state = published_state(source)
    del state["MCIB.proj_rgb.weight"]
    state["module.extra"] = torch.zeros(1)
    state["moe.experts.expert_1.fc.weight"] = torch.zeros(6, 16)
    state["moe.router.self_attn.in_proj_bias"] = torch.zeros(49)
    with pytest.raises(ModelInvalid) as error:
        from_published(state, target, label_order=EMOTIONS)
    for part in (
        "1 unknown (module.extra)",
        "1 missing (MCIB.proj_rgb.weight)",
        "2 of another shape (moe.experts.expert_1.fc.weight, moe.router.self_attn.in_proj_bias)",
    ):
        assert part in str(error.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())


def test_many_faults_are_counted():
    state = {name: values for name, values in published_state(another(1)).items() if not name.startswith("moe.")}
    with pytest.raises(ModelInvalid, match=r"92 missing \(moe\..* and 84 more\)"):
        from_published(state, another(2), label_order=EMOTIONS)


def test_batch_counters_may_be_absent():
    source, target = another(1), another(2)
    state = {name: v for name, v in published_state(source).items() if not name.endswith("num_batches_tracked")}
    from_published(state, target, label_order=EMOTIONS)
    loaded = dict(target.named_parameters())
    assert all(torch.equal(loaded[name], value) for name, value in source.named_parameters())


def test_other_presets_are_refused():
    with pytest.raises(ModelInvalid, match="use preset 'mcoe'"):
        from_published({}, build("mcoe-tiny"), label_order=EMOTIONS)
