import pytest
import torch
from safetensors.torch import save_file

from mcoe_model.errors import DataMissing, ModelInvalid
from mcoe_model.networks import read_state_dict

STATE = {"a": torch.arange(3.0), "b.c": torch.ones(2, 2)}


@pytest.mark.parametrize("content", [STATE, {"epoch": 100, "state_dict": STATE, "optimizer": {"lr": 1e-3}}])
def test_reads_a_state_dict_or_a_checkpoint_around_it(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    read = read_state_dict(tmp_path / "weights.pth")
    assert read.keys() == STATE.keys() and all(torch.equal(read[name], STATE[name]) for name in STATE)


def test_reads_safetensors(tmp_path):
    save_file(STATE, tmp_path / "weights.safetensors")
    assert torch.equal(read_state_dict(tmp_path / "weights.safetensors")["b.c"], STATE["b.c"])


@pytest.mark.parametrize("name", ["torn.pth", "torn.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 torn"])
def test_a_damaged_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelInvalid, match="torn") as error:
        read_state_dict(tmp_path / name)
    assert "\n" not in str(error.value) and "weights_only" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataMissing, match=r"nowhere\.pth"):
        read_state_dict(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}])
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ModelInvalid, match="no state dict"):
        read_state_dict(tmp_path / "other.pth")


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Runs:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"a": Runs()}, tmp_path / "bad.pth")
    with pytest.raises(ModelInvalid, match=r"bad\.pth"):
        read_state_dict(tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()
