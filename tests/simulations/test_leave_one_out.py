"""The command for micro-expressions on a small drawn folder, run as a user runs it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from mcoe_model.learning.checkpoint import Checkpoint
from mcoe_model.streams import stream
from simulations.console import Display
from simulations.leave_one_out import MicroSettings, begin_or_resume, train_fold
from simulations.micro_expressions import app

SIZE, EPOCHS, SUBJECTS = 24, 3, 3
SAVE = Checkpoint.save
SHOWN = ("disgust", "happiness", "surprise")


@pytest.fixture(autouse=True)
def one_thread():
    """As in a worker: with more threads sums have another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three subjects of two databases, each with a clip of every class: a bar that appears at a place of its own."""
    root = tmp_path_factory.mktemp("micro")
    lines = ["database,subject,clip,emotion"]
    for subject in range(SUBJECTS):
        for place, emotion in enumerate(SHOWN):
            clip = f"clips/{subject}-{emotion}"
            (root / clip).mkdir(parents=True)
            for number in range(12):
                pixels = stream(subject, emotion, number).integers(0, 60, (SIZE, SIZE, 3), np.uint8)
                pixels[8 * place : 8 * place + 8] += np.uint8(15 * number)
                Image.fromarray(pixels).save(root / clip / f"{number:03}.png")
            lines.append(f"{'smic' if subject % 2 else 'samm'},s{subject},{clip},{emotion}")
    lines.append("smic,s1,clips/absent,happiness")
    (root / "labels.csv").write_text("\n".join(lines))
    return root


def micro(*options: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [*options, "--epochs", str(EPOCHS), "--size", str(SIZE), "--workers", "1"])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def run(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("runs") / "run"
    code, output, error = micro("--data", str(drawn), "--out", str(folder), "--json")
    assert code == 0, error
    return folder, json.loads(output)


def test_every_subject_is_left_out_once_and_the_counts_are_pooled(run) -> None:
    folder, summary = run
    folds = [json.loads((folder / "folds" / f"{number:03}.json").read_text()) for number in range(SUBJECTS)]
    assert [fold["subject"] for fold in folds] == ["samm/s0", "samm/s2", "smic/s1"]
    assert sorted(clip for fold in folds for clip in fold["clips"]) == sorted(
        f"clips/{subject}-{emotion}" for subject in range(SUBJECTS) for emotion in SHOWN
    )
    assert all(np.shape(fold["predicted"]) == (EPOCHS, 3) for fold in folds)
    counts = np.zeros((3, 3), int)
    for fold in folds:
        for true, said in enumerate(fold["predicted"][-1]):
            counts[true, said] += 1
    assert summary["confusion"] == counts.tolist()
    assert summary["uar"] == pytest.approx(np.mean(np.diagonal(counts) / SUBJECTS))
    assert summary["uf1"] == pytest.approx(np.mean(2 * np.diagonal(counts) / (SUBJECTS + counts.sum(0))))
    assert summary["subjects"] == 3 and summary["clips"] == {"negative": 3, "positive": 3, "surprise": 3}
    assert {name: part["clips"]["positive"] for name, part in summary["per_database"].items()} == {"samm": 2, "smic": 1}


def test_what_cannot_be_used_is_listed_and_faces_do_not_stay(run) -> None:
    folder, summary = run
    assert summary["unusable"] == [{"line": 11, "name": "clips/absent", "reason": "there is no such folder or video"}]
    assert not (folder / "pictures.npy").exists()
    assert json.loads((folder / "run.json").read_text())["settings"]["epochs"] == EPOCHS


def test_a_run_that_was_stopped_within_a_fold_goes_on_to_the_same_predictions(
    run, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, settings = tmp_path / "run", MicroSettings(str(drawn), EPOCHS, SIZE)
    begin_or_resume(settings, folder, Display(Console(quiet=True)))
    train_fold(folder, 0)
    monkeypatch.setattr("mcoe_model.learning.checkpoint.Checkpoint.save", _save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        train_fold(folder, 1)
    monkeypatch.undo()
    finished = (folder / "folds" / "000.json").stat().st_mtime_ns
    assert len(json.loads((folder / "folds" / "001.json").read_text())["predicted"]) == 2
    code, output, _ = micro("--data", str(drawn), "--out", str(folder), "--json")
    assert code == 0
    assert (folder / "folds" / "000.json").stat().st_mtime_ns == finished
    for number in range(SUBJECTS):
        name = Path("folds") / f"{number:03}.json"
        assert (folder / name).read_text() == (run[0] / name).read_text()
    assert {**json.loads(output), "seconds": 0} == {**run[1], "seconds": 0}


def _save_then_stop(self, model, optimiser, epochs, *, last) -> None:
    self.interval = 0
    SAVE(self, model, optimiser, epochs, last=last)
    if epochs == 2:
        raise KeyboardInterrupt


def test_the_table_for_people_names_what_is_optimistic(run, drawn: Path) -> None:
    code, output, _ = micro("--data", str(drawn), "--out", str(run[0]))
    said = " ".join(output.split())
    assert code == 0 and "3 subjects, each left out once" in said and "optimistic" in said
    assert "line 11, clips/absent: there is no such folder" in said


@pytest.mark.parametrize(
    ("table", "options", "code", "words"),
    [
        ("subject,clip,emotion\ns1,a,anger\n", (), 12, "are of s1: nobody is left to learn from"),
        ("subject,clip,emotion\ns1,b,anger\n", (), 11, "holds no usable clip: 1 are not: line 2, b: there is no such"),
        ("subject,clip,emotion\n", ("--seed", "-1"), 2, "--seed must be at least 0"),
    ],
)
def test_useless_data_are_one_line_and_leave_nothing(
    tmp_path: Path, table: str, options: tuple[str, ...], code: int, words: str
) -> None:
    (tmp_path / "labels.csv").write_text(table)
    (tmp_path / "a").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "a" / "1.png")
    found, output, error = micro("--data", str(tmp_path), "--out", str(tmp_path / "run"), "--json", *options)
    line = error.strip().splitlines()[-1]
    assert (found, output) == (code, "") and line.startswith("error: ") and words in line
    assert ("read the table" in error) == (code != 2)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_run_is_left_alone(run, drawn: Path, tmp_path: Path) -> None:
    code, _, error = micro("--data", str(drawn), "--out", str(run[0]), "--seed", "1")
    assert code == 22 and "is a run with other settings" in error
    code, _, error = micro("--data", str(drawn), "--out", str(tmp_path))
    assert code == 20 and "holds no such run" in error
