"""The command that scores published prediction files, run as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mcoe_model.names import EMOTIONS
from simulations.score_predictions import app

ROOT = Path(__file__).parents[2]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """SEEN's 20 published files for E4_S3, rebuilt from their predicted labels."""
    with np.load(ROOT / "tests" / "golden" / "seen_e4_s3.npz", allow_pickle=False) as golden:
        names, predicted = golden["names"].tolist(), golden["predicted"]
    folder = tmp_path / "E4_S3"
    folder.mkdir()
    for number, labels in enumerate(predicted, start=1):
        results = {name: [{"label": EMOTIONS[label], "score": 0.9}] for name, label in zip(names, labels, strict=True)}
        (folder / f"test_epoch_163_{number}.json").write_text(json.dumps({"results": results}))
    return folder


def score(folder: Path, *options: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(folder), *options])
    return result.exit_code, result.stdout, result.stderr


def test_reproduces_the_published_table(published: Path) -> None:
    code, output, _ = score(published, "--json")
    summary = json.loads(output)
    assert code == 0 and (summary["files"], summary["sequences"], summary["subjects"]) == (20, 767, 89)

    def row(values: dict[str, float]) -> tuple[float, float]:
        return round(values["mean"], 2), round(values["sd"], 1)

    measures = {name: row(summary[name]) for name in ("war", "uar", "f1p", "macro_f1")}
    assert measures == {"war": (83.64, 1.0), "uar": (84.11, 0.9), "f1p": (83.80, 1.0), "macro_f1": (83.91, 1.0)}
    assert {name: row(values) for name, values in summary["per_lighting"].items()} == {
        "normal": (83.27, 1.4), "overexposed": (85.62, 1.5), "low-light": (80.79, 2.0), "hdr": (84.83, 2.0),
    }  # fmt: skip
    assert {name: row(values) for name, values in summary["per_emotion"].items()} == {
        "happiness": (85.00, 2.1), "sadness": (89.90, 1.6), "angry": (92.23, 1.5), "disgust": (76.69, 1.8),
        "surprise": (72.08, 3.1), "fear": (87.65, 2.2), "neutral": (85.22, 2.2),
    }  # fmt: skip
    assert [values["subjects"] for values in summary["per_lighting"].values()] == [36, 22, 19, 12]


def test_the_table_for_people(published: Path) -> None:
    code, output, _ = score(published)
    assert code == 0
    assert "20 passes" in " ".join(output.split()) and "83.64" in output and "low-light (19 subjects)" in output


def test_a_single_pass_has_no_deviation(published: Path) -> None:
    for file in sorted(published.iterdir())[1:]:
        file.unlink()
    assert json.loads(score(published, "--json")[1])["war"]["sd"] is None
    assert score(published)[0] == 0


def test_the_best_score_counts_wherever_it_stands(tmp_path: Path) -> None:
    entries = [{"label": "fear", "score": 0.2}, {"label": "angry", "score": 0.7}, {"label": "neutraL", "score": 0.1}]
    (tmp_path / "a.json").write_text(json.dumps({"results": {"1_001_man_24_Master_HDR_angry_45_take000": entries}}))
    summary = json.loads(score(tmp_path, "--json")[1])
    assert summary["war"]["mean"] == 100 and summary["uar"]["mean"] == pytest.approx(100 / 7)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "a.json is no prediction file: JSONDecodeError"),
        ("[]", "a.json is no prediction file: TypeError"),
        ("{}", "a.json is no prediction file: KeyError: 'results'"),
        ('{"results": {}}', "a.json predicts nothing"),
        ('{"results": {"1_001_man_24_Master_HDR_angry_45_take000": []}}', "a.json is no prediction file"),
        ('{"results": {"1_001_man_24_Master_HDR_angry_45_take000": [{"label": "joy", "score": 1}]}}', "'joy'"),
        ('{"results": {"1_001_man_24_Master_HDR_angry_45_take000": [{"label": "fear", "score": NaN}]}}', "finite"),
        ('{"results": {"1_001": [{"label": "fear", "score": 1}]}}', "sequence name 1_001 not understood: 2 fields"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "a.json").write_text(content)
    code, output, error = score(tmp_path, "--json")
    assert code == 11 and output == "" and words in error and error.count("\n") == 1 and error.startswith("error: ")


def test_passes_over_other_sequences_are_refused(published: Path) -> None:
    file = published / "test_epoch_163_7.json"
    content = json.loads(file.read_text())
    content["results"].popitem()
    file.write_text(json.dumps(content))
    code, _, error = score(published)
    assert code == 11 and "test_epoch_163_7.json and test_epoch_163_1.json differ in 1 sequences" in error


def test_absent_files_are_named(tmp_path: Path) -> None:
    assert score(tmp_path / "nowhere")[0] == 10
    code, _, error = score(tmp_path)
    assert code == 10 and "holds no *.json" in error


def test_runs_as_a_script_and_has_help() -> None:
    script = [sys.executable, "simulations/score_predictions.py"]
    shown = subprocess.run([*script, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--json" in shown.stdout and "Examples" in shown.stdout
    assert subprocess.run(script, cwd=ROOT, capture_output=True).returncode == 2
