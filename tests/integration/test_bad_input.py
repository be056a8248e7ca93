"""Bad input, through the command: one clear line, a documented exit code, and nothing half-written."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from refused import refused as refused_for

from mcoe_model.data.synthetic.settings import SyntheticSettings
from mcoe_model.data.synthetic.writer import write_see
from mcoe_model.errors import ExitCode
from mcoe_model.model_file import read_model, write_model
from simulations.arms import UNTRAINED

REPOSITORY = Path(__file__).parents[2]
SHORT = ["--rounds", "1", "--base-epochs", "1", "--workers", "1", "--size", "24", "--baselines", "off"]


@pytest.fixture(scope="module")
def see(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set in SEE's layout."""
    root = tmp_path_factory.mktemp("data") / "see"
    write_see(root, SyntheticSettings(subjects=10, sequences=3, size=24, seed=3))
    return root


def run(tmp_path: Path, *flags: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "simulations" / "see_by_subject.py"), *map(str, flags)],
        env=os.environ | {"MCOE_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def finished(see: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of these settings without any fault, and what it wrote to its standard output with ``--json``."""
    folder = tmp_path_factory.mktemp("finished")
    done = run(folder, "--data", see, *SHORT, "--out", folder / "out", "--json")
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stdout


def refused(tmp_path: Path, code: ExitCode, *flags: object) -> str:
    """Expect this exit code and one line of error, which is returned; no output folder is left behind."""
    out = tmp_path / "out"
    said = refused_for(tmp_path / "cache", code, *flags, "--out", out)
    assert not out.exists()
    return said


@pytest.fixture
def spoiled(see: Path, tmp_path: Path) -> Path:
    """A copy of the data set to spoil."""
    return Path(shutil.copytree(see, tmp_path / "spoiled"))


def annotation(root: Path) -> dict:
    return json.loads((root / "emotion.json").read_text())


def test_a_missing_folder(tmp_path):
    assert "nowhere" in refused(tmp_path, ExitCode.DATA_MISSING, "--data", tmp_path / "nowhere", *SHORT)


def test_a_missing_folder_ends_the_process(tmp_path):
    """What the others look at in this process, as whoever runs the script sees it."""
    done = run(tmp_path, "--data", tmp_path / "nowhere", *SHORT)
    assert (done.returncode, done.stderr.count("\n")) == (ExitCode.DATA_MISSING, 1), done.stderr
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stdout + done.stderr


def test_an_unknown_emotion(spoiled, tmp_path):
    content = annotation(spoiled)
    first = next(iter(content["database"]))
    content["database"][first.replace("_neutral_", "_bored_").replace("_angry_", "_bored_")] = content["database"][
        first
    ]
    (spoiled / "emotion.json").write_text(json.dumps(content))
    assert "bored" in refused(tmp_path, ExitCode.DATA_INVALID, "--data", spoiled, *SHORT)


def test_every_picture_torn(spoiled, tmp_path):
    for picture in spoiled.rglob("*.jpg"):
        picture.write_bytes(b"")
    assert str(spoiled) in refused(tmp_path, ExitCode.DATA_INVALID, "--data", spoiled, *SHORT)


def test_some_sequences_unusable_are_counted_named_and_left_out(spoiled, tmp_path):
    folders = sorted(path for path in spoiled.glob("event/*/*"))
    shutil.rmtree(folders[0])
    (folders[1] / "00003.jpg").write_bytes((folders[1] / "00003.jpg").read_bytes()[:100])
    done = run(tmp_path, "--data", spoiled, *SHORT, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "2 sequences cannot be used" in done.stdout
    skipped = json.loads((tmp_path / "out" / "run.json").read_text())["skipped"]
    assert {entry["name"] for entry in skipped} == {folders[0].name, folders[1].name}


def test_fewer_subjects_than_the_split_needs(tmp_path):
    said = refused(tmp_path, ExitCode.TOO_FEW_SUBJECTS, "--subjects", 3, "--sequences", 2, *SHORT)
    assert "subjects" in said


def test_fewer_clients_than_the_cohort(see, tmp_path):
    said = refused(tmp_path, ExitCode.TOO_FEW_SUBJECTS, "--data", see, "--cohort", 50, *SHORT)
    assert "50" in said


def test_a_base_checkpoint_that_is_missing_damaged_or_of_another_preset(see, finished, tmp_path):
    refused(tmp_path, ExitCode.DATA_MISSING, "--data", see, "--base", tmp_path / "none.safetensors", *SHORT)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"no model at all")
    refused(tmp_path, ExitCode.MODEL_INVALID, "--data", see, "--base", damaged, *SHORT)
    base = finished[0] / "model.safetensors"
    said = refused(tmp_path, ExitCode.MODEL_INVALID, "--data", see, "--base", base, "--model", "mcoe-edge", *SHORT)
    assert "mcoe-tiny" in said and "mcoe-edge" in said
    done = run(tmp_path, "--data", see, "--base", base, *SHORT, "--train", "head", "--out", tmp_path / "second")
    assert done.returncode == 0, done.stderr


def test_the_head_is_not_trained_on_a_base_that_never_was(see, finished, tmp_path):
    base, untrained = finished[0] / "arms" / "base.safetensors", tmp_path / "untrained.safetensors"
    tensors, card = read_model(base)
    write_model(untrained, tensors, replace(card, origin=UNTRAINED))
    flags = ("--data", see, *SHORT, "--train", "head")
    assert "never trained" in refused(tmp_path, ExitCode.MODEL_INVALID, "--base", untrained, *flags)


def test_weights_that_are_none_are_known_before_any_work(see, tmp_path):
    weights = tmp_path / "resnet18.pth"
    weights.write_text("not weights")
    said = refused(tmp_path, ExitCode.MODEL_INVALID, "--data", see, "--imagenet", weights, *SHORT)
    assert str(weights) in said and not (tmp_path / "cache").exists()


def test_an_output_folder_that_cannot_be_made_is_one_line(see, tmp_path):
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "out"
    said = refused_for(tmp_path / "cache", ExitCode.FAILED, "--data", see, *SHORT, "--out", out)
    assert str(tmp_path / "file") in said


def test_a_folder_that_holds_no_run_is_not_said_to_be_one(see, tmp_path):
    said = refused_for(tmp_path / "cache", ExitCode.OUTPUT_EXISTS, "--data", see, *SHORT, "--out", tmp_path)
    assert "holds no run" in said and "--resume" not in said


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path):
    said = refused_for(tmp_path / "cache", ExitCode.NOT_RESUMABLE, "--resume", tmp_path)
    assert "holds no run" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_full_disk_is_named_and_the_run_goes_on_once_there_is_room(see, finished, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not let us mount a small file system")
    try:
        out = small / "out"
        done = run(tmp_path, "--data", see, *SHORT, "--out", out)
        assert done.returncode == ExitCode.DISK_FULL, done.stderr
        assert done.stderr.count("\n") == 1 and "no space" in done.stderr and "go on with --resume" in done.stderr
        subprocess.run(["mount", "-o", "remount,size=200m", small], check=True)
        done = run(tmp_path, "--resume", out)
        assert done.returncode == 0, done.stderr
        assert (out / "model.safetensors").read_bytes() == (finished[0] / "model.safetensors").read_bytes()
    finally:
        subprocess.run(["umount", small], check=True)


def test_json_is_the_last_line_and_nothing_else_on_standard_output(finished):
    folder, said = finished
    summary = json.loads(said)
    assert summary == json.loads((folder / "summary.json").read_text())
    for arm in ("base", "federated"):
        assert {"war", "uar", "f1p", "per_emotion", "per_lighting", "worst_tenth"} <= summary[arm].keys()
    assert {
        "model",
        "data",
        "subjects",
        "rounds",
        "seed",
        "seconds",
        "bytes_up",
        "bytes_down",
        "recovered_gain",
    } <= summary.keys()
    assert summary["centralised"] is None
