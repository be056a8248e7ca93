"""Folding keeps every output; a stream is recognised as its windows are one by one, and nothing is encoded twice."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from mcoe_model.edge import SPAN, StreamingRecogniser, fold
from mcoe_model.learning.samples import normalise
from mcoe_model.model_file import Normalisation
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import McoeConfig, MCOENet, build

NORMALISATION = Normalisation(0.3, 0.2, 0.5, 0.1)
FOUR = McoeConfig(
    "four", input_size=32, width=8, features=32, hidden=32, router_hidden=16, convolution_hidden=16, deep_hidden=48,
    deep_blocks=3,
)  # fmt: skip


def trained(model: MCOENet) -> MCOENet:
    """As after training: every bias and every statistic of batch normalisation away from where it began."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.running_mean, module.bias):
                    tensor.copy_(0.2 * torch.randn(tensor.shape, generator=generator))
                for tensor in (module.running_var, module.weight):
                    tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.copy_(0.1 * torch.randn(module.bias.shape, generator=generator))
    return model.eval()


def models() -> dict[str, MCOENet]:
    torch.manual_seed(0)
    return {
        "four backbones": trained(MCOENet(FOUR)),
        "mcoe-tiny": trained(build("mcoe-tiny", seed=1)),
        "mcoe-edge": trained(build("mcoe-edge", seed=1)),
        "mcoe-tiny-group": trained(build("mcoe-tiny-group", seed=1)),
    }


@pytest.fixture(params=["four backbones", "mcoe-tiny", "mcoe-edge", "mcoe-tiny-group"])
def model(request: pytest.FixtureRequest) -> MCOENet:
    return models()[request.param]


def test_folding_keeps_logits_and_routing(model: MCOENet) -> None:
    size = model.config.input_size
    frame, event = torch.randn(2, 6, 2, size, size, generator=torch.Generator().manual_seed(1))
    folded = fold(model)
    with torch.inference_mode():
        logits, routing = model.classify(model.features(frame, event))
        folded_logits, folded_routing = folded.classify(folded.features(frame, event))
    assert torch.equal(routing.chosen, folded_routing.chosen)
    for was, now in ((logits, folded_logits), (routing.gate, folded_routing.gate)):
        assert float((was - now).norm() / was.norm()) < 1e-5


def test_a_folded_model_is_smaller_and_cannot_be_trained_and_the_model_stays_as_it_was(model: MCOENet) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = fold(model)
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert sum(p.numel() for p in folded.parameters()) < sum(p.numel() for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_nothing_is_left_that_could_be_folded(model: MCOENet) -> None:
    kinds = {type(module).__name__ for module in fold(model).modules()}
    assert not kinds & {"BatchNorm2d", "LengthOneAttention", "DeepExpert", "DeepBlock"}


def pictures(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (2, count, size, size), np.uint8)


def test_a_stream_is_recognised_as_its_windows_are_one_by_one(model: MCOENet) -> None:
    frames, events = pictures(SPAN + 4, model.config.input_size)
    recogniser = StreamingRecogniser(model, NORMALISATION)
    found = []
    for number, pair in enumerate(zip(frames, events, strict=True)):
        recogniser.add(number, *pair)
        found.append(recogniser.recognise())
        if number % 2:
            recogniser.prepare()  # whenever there is time for it; it changes nothing
    assert found[:SPAN] == [None] * SPAN
    for number, recognition in enumerate(found[SPAN:], start=SPAN):
        assert recognition is not None and recognition.number == number
        window = list(range(number - SPAN, number + 1, 4))
        frame = normalise(frames[window], 0.3, 0.2)[None, None].expand(1, 3, -1, -1, -1)
        event = normalise(events[window], 0.5, 0.1)[None, None].expand(1, 3, -1, -1, -1)
        with torch.inference_mode():
            expected = model(frame, event).softmax(1)[0].numpy()
        np.testing.assert_allclose(recognition.probabilities, expected, rtol=1e-5, atol=0)
        assert recognition.emotion == EMOTIONS[int(expected.argmax())]
        assert recognition.confidence == pytest.approx(expected.max(), rel=1e-5)


def test_no_picture_is_encoded_twice_for_the_same_role(model: MCOENet) -> None:
    calls: Counter[tuple[str, str]] = Counter()
    encode = model.encode

    def counted(pictures: torch.Tensor, modality: str, role: str) -> torch.Tensor:
        calls[modality, role] += len(pictures)
        return encode(pictures, modality, role)

    model.encode = counted  # type: ignore[method-assign]
    count = SPAN + 5
    recogniser = StreamingRecogniser(model, NORMALISATION)
    for number, pair in enumerate(zip(*pictures(count, model.config.input_size), strict=True)):
        recogniser.add(number, *pair)
        recogniser.recognise()
        recogniser.prepare()
    assert calls[("frame", model.roles[0])] == calls[("event", model.roles[0])] == count
    if len(model.roles) > 1:
        assert calls[("frame", "last")] == calls[("event", "last")] == count - SPAN


def test_a_skipped_picture_costs_only_the_windows_that_need_it() -> None:
    model = models()["mcoe-tiny"]
    frames, events = pictures(3 * SPAN, 64)
    recogniser, found = StreamingRecogniser(model, NORMALISATION), {}
    for number in range(3 * SPAN):
        if number != SPAN + 2:
            recogniser.add(number, frames[number], events[number])
            found[number] = recogniser.recognise() is not None
    assert [number for number, there in found.items() if not there] == [*range(SPAN), 2 * SPAN + 2]


def test_encoding_beside_changes_no_bit() -> None:
    model = fold(models()["mcoe-tiny"])
    with ThreadPoolExecutor(1) as beside:
        alone, together = StreamingRecogniser(model, NORMALISATION), StreamingRecogniser(model, NORMALISATION, beside)
        for number, pair in enumerate(zip(*pictures(SPAN + 3, 64), strict=True)):
            alone.add(number, *pair)
            together.add(number, *pair)
            expected, found = alone.recognise(), together.recognise()
            assert (expected is None) is (found is None) is (number < SPAN)
            if expected is not None and found is not None:
                np.testing.assert_array_equal(found.probabilities, expected.probabilities)
