"""The personalisation study's command: what is held out, what a trial finds, and a small run that goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from client.lesson_book import HELD_OUT
from mcoe_model.errors import SettingsError
from mcoe_model.learning.evaluate import evaluate
from mcoe_model.learning.fine_tune import measure
from mcoe_model.learning.weights import load_model
from simulations.compare_personal import RUNS, as_worn, main, tried_hits
from simulations.parts import Parts
from simulations.scene import Paths, open_scene

SMALL = {"subjects": 5, "size": 32, "session-clips": 14, "base-epochs": 1, "rounds": 1, "workers": 1, "seeds": 0}


@pytest.fixture(scope="module")
def study(simulation_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study with one wearer."""
    folder = tmp_path_factory.mktemp("personal") / "study"
    flags = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MCOE_CACHE", str(simulation_cache))
        main([*flags, "--out", str(folder)])
    return folder


def test_a_trial_asks_the_middle_window_of_every_clip(prepared_base: Path) -> None:
    scene = open_scene(prepared_base)
    model, card = load_model(scene.paths.base)
    clips = scene.evaluation_samples(model, card, scene.indices("clients"))
    assert tuple(tried_hits(evaluate(model, clips)).tolist()) == measure(model, clips).hits


def test_one_clip_in_five_is_learned_by_nobody(study: Path) -> None:
    scene = open_scene(study / "seed-0" / "base")
    (client,) = scene.subjects("clients")
    learned, held_out = as_worn(scene, client)
    assert sorted((*learned, *held_out)) == list(scene.indices("clients", client))
    assert len(held_out) == (len(learned) + len(held_out)) // HELD_OUT
    for variant in RUNS:
        parts = Parts.read(Paths(study / "seed-0" / variant).parts)
        assert parts.clients == tuple(scene.clips.records[clip].name for clip in learned)
        assert parts.later == scene.parts.later
        assert json.loads(Paths(study / "seed-0" / variant).run.read_bytes())["parts_sha256"] == parts.sha256


def test_a_small_run_says_what_a_wearer_gains_and_that_no_trial_had_enough_clips(study: Path) -> None:
    summary = json.loads((study / "summary.json").read_bytes())
    assert (summary["wearers"], summary["exploratory"], summary["seeds"]) == (1, True, [0])
    tried = [row for row in summary["models"] if row["tried"]]
    assert len(tried) == 5 and all((row["turned_down"], row["no_verdict"]) == (0, 1) for row in tried)
    before = {row["model"]: row for row in summary["models"] if not row["tried"]}
    assert all(row["median"] == before[row["model"]]["median"] for row in tried)  # all are served
    assert set(summary["verdicts"]) == {"mixture weights", "trained further", "personal router", "personal experts"}
    assert "no verdict" in (study / "models.md").read_text()


def test_a_run_that_goes_on_does_only_what_is_not_there(
    study: Path, simulation_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MCOE_CACHE", str(simulation_cache))
    (kept,) = (study / "seed-0" / "wearers").glob("*.npz")
    before, written = (study / "summary.json").read_bytes(), kept.stat().st_mtime_ns
    main(["--resume", str(study), "--json"])
    assert kept.stat().st_mtime_ns == written and (study / "summary.json").read_bytes() == before
    with np.load(kept, allow_pickle=False) as found:
        correct = found["correct"]
    kept.unlink()
    main(["--resume", str(study), "--json"])
    with np.load(kept, allow_pickle=False) as again:
        assert np.array_equal(again["correct"], correct)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["wearers"] == 1


def test_seeds_that_are_the_same_and_too_few_clips_of_a_session_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        main(["--session-clips", "13", "--seeds", "1", "1", "--out", str(tmp_path / "study")])
    assert len(caught.value.faults) == 2
    assert "--seeds must differ" in str(caught.value) and "at least 14, not 13" in str(caught.value)
    assert not (tmp_path / "study").exists()
