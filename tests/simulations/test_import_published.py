"""The authors' checkpoints become model files: what they say is kept, and where they come from."""

import hashlib
from pathlib import Path

import pytest
import torch

from mcoe_model.errors import DataMissing, ModelInvalid, OutputExists, SettingsError
from mcoe_model.learning.weights import load_model
from mcoe_model.model_file import SEE_NORMALISATION
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import build
from simulations.import_published import main

LABELS = "happiness,sadness,angry,disgust,surprise,fear,neutral"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training checkpoint as the release writes one: SEEN's weights under `state_dict`."""
    model = build("seen", seed=5)
    state = {piece.theirs: model.state_dict()[piece.ours] for piece in model.published_pieces()}
    path = tmp_path_factory.mktemp("theirs") / "save_163.pth"
    torch.save({"epoch": 163, "arch": "seen", "state_dict": state}, path)
    torch.save(state | {"fc3.bias": state.pop("fc2.bias")}, path.with_name("other.pth"))
    return path


def test_a_checkpoint_becomes_a_model_of_the_same_answers(checkpoint: Path, tmp_path: Path) -> None:
    main([str(checkpoint), "--model", "seen", "--labels", LABELS, "--out", str(tmp_path / "seen.safetensors")])
    model, card = load_model(tmp_path / "seen.safetensors")
    theirs = build("seen", seed=5).eval()
    features = theirs.features(torch.randn(2, 2, 90, 90), torch.randn(2, 4, 90, 90))
    published, ours = theirs.classify(features)[0], model.classify(features)[0]
    for column, label in enumerate(LABELS.split(",")):
        torch.testing.assert_close(ours[:, EMOTIONS.index(label)], published[:, column])
    assert (card.generation.preset, card.generation.top_k) == ("seen", 0)
    main([str(checkpoint), "--model", "seen-e5-s2", "--labels", LABELS, "--out", str(tmp_path / "e5.safetensors")])
    assert load_model(tmp_path / "e5.safetensors")[0].config.steps == 5
    assert card.generation.normalisation == SEE_NORMALISATION
    assert card.trained_on == {
        "source": "save_163.pth",
        "source_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "label_order": LABELS.split(","),
    }


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"checkpoint": "other.pth"}, ModelInvalid, r"1 unknown \(fc3.bias\); 1 missing \(fc2.bias\)"),
        ({"--model": "mcoe-tiny"}, ModelInvalid, "use preset 'mcoe'"),
        ({"--model": "seven"}, SettingsError, "must be one of mcoe, "),
        ({"--labels": "happy"}, SettingsError, "label order"),
        ({"checkpoint": "nothing.pth"}, DataMissing, "no weights"),
        ({"--out": str(Path(__file__))}, OutputExists, "exists already"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    checkpoint: Path, tmp_path: Path, changes: dict[str, str], error: type[Exception], says: str
) -> None:
    asked = {"checkpoint": str(checkpoint), "--model": "seen", "--labels": LABELS, "--out": str(tmp_path / "out")}
    asked |= changes
    asked["checkpoint"] = str(checkpoint.parent / asked["checkpoint"])
    words = [asked.pop("checkpoint"), *(word for pair in asked.items() for word in pair)]
    with pytest.raises(error, match=says):
        main(words)
    assert not (tmp_path / "out").exists()


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"state_dict": {}, "evil": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ModelInvalid):
        main([str(tmp_path / "evil.pth"), "--model", "seen", "--labels", LABELS, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "ran").exists()
