"""Which model a wearer is served: the exact test of McNemar, the wearer's last word, and a file that two processes
write."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from toy_camera import write_toy_model

from client.comparison import Comparison, Verdict, compare
from client.enrolment import ClientPaths
from client.model_import import import_model
from client.running import Running, RunningModel
from client.serving import served_model
from mcoe_model.errors import DataMissing, DecisionNeeded, ModelInvalid
from mcoe_model.model_file import file_sha256

A, B, C = (letter * 64 for letter in "abc")


@pytest.mark.parametrize(
    ("clips", "emotions", "only_newer", "only_served", "verdict"),
    [
        (24, 3, 0, 6, "worse"),  # p = 2/64
        (24, 3, 0, 5, "passed"),  # p = 2/32
        (24, 3, 6, 0, "passed"),
        (24, 3, 1, 8, "worse"),  # p = 20/512
        (24, 3, 1, 7, "passed"),  # p = 18/256
        (24, 3, 0, 0, "passed"),
        (20, 2, 0, 20, "worse"),
        (19, 2, 0, 19, "none"),
        (40, 1, 0, 40, "none"),
        (0, 0, 0, 0, "none"),
    ],
)
def test_a_newer_model_is_worse_when_chance_does_not_explain_it(
    clips: int, emotions: int, only_newer: int, only_served: int, verdict: Verdict
) -> None:
    found = Comparison(clips, emotions, only_newer, only_served, only_newer, only_served)
    assert found.verdict == verdict


def test_clips_are_compared_one_by_one() -> None:
    found = compare([0, 0, 4, 4], [True, True, False, False], [True, False, True, False])
    assert found == Comparison(clips=4, emotions=2, newer=2, served=2, only_newer=1, only_served=1)
    with pytest.raises(ValueError):
        compare([0, 4], [True], [True, False])


def test_the_wearer_goes_back_and_forth(tmp_path: Path) -> None:
    running = Running(tmp_path / "running.json")
    with pytest.raises(DecisionNeeded):
        running.keep()
    running.adopt(A)
    with pytest.raises(DecisionNeeded, match="one model only"):
        running.keep()
    with pytest.raises(DecisionNeeded, match="runs already"):
        running.take()
    better, worse = Comparison(24, 3, 19, 18, 2, 1), Comparison(24, 3, 12, 20, 0, 8)
    running.adopt(B, better)
    assert running.keep() == RunningModel(A, newer=B, trial=better)
    assert running.keep() == running.read() == RunningModel(A, newer=B, trial=better)
    assert running.read().wanted == {A, B}
    assert running.take() == RunningModel(B, before=A, trial=better)
    running.refuse(C, "worse", worse)
    assert running.keep() == RunningModel(B, C, "worse", A, C, worse)  # one that was never run changes nothing
    assert running.take() == RunningModel(C, before=B, trial=worse)
    running.refuse(A, "damaged")
    with pytest.raises(DecisionNeeded):
        running.take()  # what is damaged nobody can take
    assert running.read() == RunningModel(C, A, "damaged", before=B, trial=worse)


@pytest.mark.parametrize("trial", ["the new model recognises 19 of your 24 clips", {"clips": "many"}, {}, 7, None])
def test_what_an_earlier_version_said_of_a_trial_is_not_shown_and_spoils_nothing(tmp_path: Path, trial: object) -> None:
    file = tmp_path / "running.json"
    file.write_text(json.dumps({"runs": A, "before": B, "trial": trial}))
    assert Running(file).read() == RunningModel(A, before=B)
    assert Running(file).keep() == RunningModel(B, newer=A)


def test_the_model_that_runs_is_served_when_its_file_is_there(tmp_path: Path) -> None:
    paths = ClientPaths(tmp_path)
    assert served_model(paths, unlocked=True) is None
    Running(paths.running).adopt(A)
    assert served_model(paths, unlocked=True) is None
    paths.models.mkdir()
    (paths.models / f"{A}.safetensors").touch()
    assert served_model(paths, unlocked=True) == paths.models / f"{A}.safetensors"


def test_an_imported_model_runs_when_it_can_recognise_here(tmp_path: Path) -> None:
    paths, file = ClientPaths(tmp_path / "wearable"), write_toy_model(tmp_path / "model.safetensors", 1)
    imported = import_model(paths, file)
    assert (imported.sha256, imported.preset, imported.runs) == (file_sha256(file), "mcoe-tiny", True)
    assert served_model(paths, unlocked=True) == paths.models / f"{imported.sha256}.safetensors"
    other = write_toy_model(tmp_path / "other.safetensors", 2, preprocessing_version=99)
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(file.read_bytes()[:-1000])
    for refused in (other, torn):
        with pytest.raises(ModelInvalid):
            import_model(paths, refused)
    with pytest.raises(DataMissing):
        import_model(paths, tmp_path / "absent.safetensors")
    assert Running(paths.running).read() == RunningModel(imported.sha256)
    assert [path.stem for path in paths.models.iterdir()] == [imported.sha256]


def test_changes_of_two_processes_do_not_undo_each_other(tmp_path: Path) -> None:
    file = tmp_path / "running.json"
    Running(file).adopt(A)
    Running(file).adopt(B)
    code = f"""
from pathlib import Path
from client.running import Running
for _ in range(100):
    Running(Path({str(file)!r})).refuse("{C}", "damaged")
"""
    with subprocess.Popen([sys.executable, "-c", code]) as other:
        while other.poll() is None:
            runs = Running(file).keep().runs
            assert (runs, Running(file).take().runs) == (A, B)
    assert other.returncode == 0
    assert Running(file).read() == RunningModel(B, C, "damaged", before=A)
