"""A model file: the same model is the same bytes, and a damaged one is refused by name."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from mcoe_model.errors import DataMissing, ModelInvalid
from mcoe_model.learning.weights import can_build
from mcoe_model.model_file import (
    Generation,
    ModelCard,
    Normalisation,
    Tensors,
    file_sha256,
    model_bytes,
    read_card,
    read_model,
    tensors_sha256,
    write_model,
)
from mcoe_model.names import EMOTIONS

GENERATION = Generation("mcoe-tiny", "a" * 64, 64, Normalisation(0.2, 0.1, 0.5, 0.25))
CARD = ModelCard(GENERATION, "test", trained_on={"clips": 3, "subjects": ["ж"]}, metrics={"war": 0.5, "uar": None})
TENSORS: Tensors = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "scalar": np.array(2.5, np.float32),
    "counter": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float32),
    "half": np.array([1.5], np.float16),
}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "models" / "model.safetensors"
    sha256 = write_model(path, TENSORS, CARD)
    tensors, card = read_model(path)
    assert (card, read_card(path)) == (CARD, CARD)
    assert tensors_sha256(tensors) == tensors_sha256(TENSORS)
    assert {name: value.shape for name, value in tensors.items()} == {n: v.shape for n, v in TENSORS.items()}
    assert sha256 == file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_model_is_the_same_bytes_in_any_order_layout_and_process() -> None:
    expected = model_bytes(TENSORS, CARD)
    turned = {name: np.asfortranarray(value) if value.ndim > 1 else value for name, value in reversed(TENSORS.items())}
    assert model_bytes(turned, CARD) == expected
    code = (
        "import hashlib, json, sys; import numpy as np; from mcoe_model.model_file import *;"
        "card = ModelCard.from_json(sys.argv[1]);"
        "print(hashlib.sha256(model_bytes({'b': np.ones(2, 'f4'), 'a': np.ones(3, 'f4')}, card)).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code, CARD.to_json()], capture_output=True, text=True, env={"PYTHONHASHSEED": seed}
        ).stdout.strip()
        for seed in ("1", "2")
    }
    here = model_bytes({"a": np.ones(3, np.float32), "b": np.ones(2, np.float32)}, CARD)
    assert found == {hashlib.sha256(here).hexdigest()}


def test_the_card_and_every_value_are_part_of_the_bytes() -> None:
    other = {**TENSORS, "counter": np.array(8, np.int64)}
    cards = (CARD, replace(CARD, origin="else"), CARD.child_of("b" * 64, "test", {}))
    assert len({model_bytes(tensors, card) for tensors in (TENSORS, other) for card in cards}) == 6


def test_the_child_of_a_card_has_no_metrics_of_its_own() -> None:
    child = CARD.child_of("b" * 64, "federated round", {"round": 3})
    assert child == ModelCard(GENERATION, "federated round", "b" * 64, {"round": 3}, {})


@pytest.mark.parametrize(
    "change",
    [
        {"preset": "mcoe"},
        {"backbone_sha256": "b" * 64},
        {"input_size": 65},
        {"normalisation": Normalisation(0.2, 0.1, 0.5, 0.26)},
        {"labels": EMOTIONS[::-1]},
        {"preprocessing_version": 2},
        {"protocol_version": 2},
    ],
)
def test_every_field_makes_another_generation(change: dict[str, object]) -> None:
    assert replace(GENERATION, **change).id != GENERATION.id  # type: ignore[arg-type]
    assert len(GENERATION.id) == 16


def test_a_generation_keeps_its_id_over_a_file(tmp_path: Path) -> None:
    write_model(tmp_path / "m", TENSORS, CARD)
    assert read_card(tmp_path / "m").generation.id == GENERATION.id


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(DataMissing, match=str(path)):
            read_model(path)


def test_a_file_without_a_card(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(save(TENSORS))
    with pytest.raises(ModelInvalid, match="no model card"):
        read_model(path)


@pytest.mark.parametrize(
    "card",
    [
        *("", "5", "[]", "null", "{}", "[" * 100_000),
        *('{"generation": 3}', '{"generation": {}}', '{"generation": {"normalisation": 1}}'),
        json.dumps({**json.loads(CARD.to_json()), "unknown": 1}),
    ],
)
def test_a_card_that_cannot_be_read(card: str, tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(save(TENSORS, metadata={"card": card}))
    with pytest.raises(ModelInvalid, match="model card of"):
        read_model(path)


def test_a_dtype_that_numpy_does_not_have(tmp_path: Path) -> None:
    header = json.dumps(
        {"__metadata__": {"card": CARD.to_json()}, "w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    ).encode()
    path = tmp_path / "m"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(ModelInvalid, match="damaged"):
        read_model(path)


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_file_is_refused_or_read_never_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(model_bytes(TENSORS, CARD))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "m"
    path.write_bytes(content)
    try:
        read_model(path)
    except ModelInvalid as fault:
        assert str(path) in str(fault)


def test_a_truncated_file_is_never_read(tmp_path: Path) -> None:
    content = model_bytes(TENSORS, CARD)
    path = tmp_path / "m"
    for length in {0, 1, 7, 8, 100, len(content) - 1}:
        path.write_bytes(content[:length])
        with pytest.raises(ModelInvalid):
            read_model(path)


def test_no_code_in_a_file_is_run(tmp_path: Path) -> None:
    """A pickle is not a model."""
    path = tmp_path / "m"
    path.write_bytes(f"cos\nsystem\n(S'touch {tmp_path / 'pwned'}'\ntR.".encode() * 5)
    with pytest.raises(ModelInvalid):
        read_model(path)
    assert os.listdir(tmp_path) == ["m"]


def test_the_hash_of_tensors_sees_names_dtypes_shapes_and_values_only() -> None:
    usual = {"a": np.arange(6, dtype=np.float32), "b": np.zeros(1, np.float32)}
    expected = tensors_sha256(usual)
    assert tensors_sha256(dict(reversed(usual.items()))) == expected
    assert tensors_sha256({**usual, "a": np.arange(12, dtype=np.float32)[::2] / 2}) == expected
    others = [
        {**usual, "a": np.arange(6, dtype=np.float64)},
        {**usual, "a": usual["a"].reshape(2, 3)},
        {**usual, "a": usual["a"] + 1},
        {"a": usual["a"], "c": usual["b"]},
        {"a": usual["a"]},
    ]
    assert len({expected, *(tensors_sha256(other) for other in others)}) == 6


def test_a_representation_of_events_is_told_where_it_is_not_sees() -> None:
    usual = Generation("mcoe-tiny", "a" * 64, 64, Normalisation(0.1, 0.2, 0.3, 0.4))
    before = {key: value for key, value in asdict(usual).items() if key != "representation"}
    text = json.dumps(before, sort_keys=True)
    assert usual.id == hashlib.sha256(text.encode()).hexdigest()[:16], "as earlier programs name it"
    assert "representation" not in ModelCard(usual, "made").to_json()
    other = replace(usual, representation="voxel-grid")
    assert other.id != usual.id
    assert ModelCard.from_json(ModelCard(other, "made").to_json()).generation == other
    assert can_build(usual) and not can_build(other), "a wearable makes SEE's pictures only"
