"""Calibration with k clips of a wearer: what is asked about is nobody's lesson, and is the same whatever k."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from mcoe_model.errors import DataMissing, SettingsError, TooFewSubjects
from mcoe_model.learning.evaluate import evaluate
from mcoe_model.learning.weights import load_model
from simulations.calibrate import AS_IT_IS, PRIORS, TRAINED, CalibrationSettings, calibrate, main
from simulations.personalise import with_class_priors
from simulations.scene import Paths, open_scene


@pytest.fixture
def finished(prepared_base: Path, tmp_path: Path) -> Path:
    """A run whose model is its base."""
    run = tmp_path / "run"
    shutil.copytree(prepared_base, run)
    shutil.copy(Paths(run).base, run / "model.safetensors")
    return run


def test_what_is_asked_about_is_not_learned_and_does_not_depend_on_the_smaller_k(finished: Path) -> None:
    scene = open_scene(finished)
    subject = scene.subjects("test")[0]
    whole = {scene.clips.records[index].name for index in scene.indices("test", subject)}
    both = calibrate(finished, subject, CalibrationSettings("0,1,2", draws=2))
    alone = calibrate(finished, subject, CalibrationSettings("2", draws=1))
    assert {key: said.shape[0] for key, said in both.said.items()} == dict.fromkeys(
        [(0, AS_IT_IS), (1, PRIORS), (1, TRAINED), (2, PRIORS), (2, TRAINED)], 2
    )
    assert alone.asked == both.asked[:1] and len(both.asked[0]) == len(whole) - 2
    for key, said in alone.said.items():  # nothing is left in the model of one fit when the next begins
        np.testing.assert_array_equal(said[0], both.said[key][0])
    assert not np.array_equal(both.said[2, TRAINED], both.said[0, AS_IT_IS])

    model, card = load_model(finished / "model.safetensors")
    labelled = whole - {record.name for record in both.asked[0]}
    part = [index for index in scene.indices("test", subject) if scene.clips.records[index].name in labelled]
    own, others = (
        scene.evaluation_samples(model, card, indices)
        for indices in (part, [i for i in scene.indices("test", subject) if i not in part])
    )
    said = with_class_priors(model, own, evaluate(model, others)).predicted()
    np.testing.assert_allclose(both.said[2, PRIORS][0], said, atol=1e-6)


def test_the_table_is_of_all_wearers_and_can_be_recomputed(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(finished), "--k", "0,2", "--draws", "2", "--workers", "1", "--json"])
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary == json.loads((finished / "calibration" / "summary.json").read_text())
    assert (finished / "calibration" / "table.csv").read_text().count("\n") == 1 + len(summary["rows"])
    plain, priors, trained = summary["rows"]
    assert (plain["k"], plain["way"], plain["difference"]) == (0, AS_IT_IS, None)
    scene = open_scene(finished)
    subjects = scene.subjects("test")
    assert summary["wearers"] + len(summary["too few clips"]) == len(subjects)

    with np.load(finished / "calibration" / "predictions.npz", allow_pickle=False) as stored:
        kept = dict(stored)
    asked = [one for one in subjects if one not in summary["too few clips"]]
    assert sorted(set(kept["subject"])) == asked and len(kept["subject"]) == summary["clips asked about"]
    records = {record.name: record for record in scene.clips.records}
    for names, labels in zip(kept["clip"], kept["label"], strict=True):  # of a draw
        found = [(records[name].subject, records[name].class_index) for name in names]
        assert found == list(zip(kept["subject"], labels, strict=True)) and len(set(names)) == len(names)
    one = calibrate(finished, asked[0], CalibrationSettings("0,2", draws=2))
    own = kept["subject"] == asked[0]
    assert [[record.name for record in draw] for draw in one.asked] == kept["clip"][:, own].tolist()
    right = np.take_along_axis(kept["said"], kept["label"][None, :, :, None], axis=3)[..., 0]  # (fits, draws, clips)
    for row, key, fit in ((plain, (0, AS_IT_IS), 0), (priors, (2, PRIORS), 1), (trained, (2, TRAINED), 2)):
        assert (row["k"], row["way"]) == (kept["k"][fit], kept["way"][fit]) == key
        np.testing.assert_array_equal(kept["said"][fit][:, own], one.said[key])
        assert row["war"] == pytest.approx(right[fit].mean())
        if key[0]:
            assert row["difference"] == pytest.approx(row["war"] - plain["war"], abs=1e-9)
            assert row["low"] <= row["difference"] <= row["high"]

    assert "one training seed" in summary["exploratory"]
    for ending in ("md", "tex"):
        said = (finished / "calibration" / f"table.{ending}").read_text()
        assert summary["exploratory"] in said and "(synthetic data)" in said
        assert PRIORS in said and f"{100 * priors['war']:.1f}" in said
    assert not re.search(r"(?<!\\)%", said), "LaTeX takes it for the beginning of a remark"


def test_what_cannot_be_calibrated_is_refused(prepared_base: Path, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        main([str(finished), "--k", "5,5", "--draws", "0", "--workers", "-1"])
    assert len(caught.value.faults) == 3
    for k in ("0", "-1", "one", ""):
        with pytest.raises(SettingsError, match="--k"):
            CalibrationSettings(k)
    with pytest.raises(TooFewSubjects, match="40 clips"):
        main([str(finished), "--k", "40"])
    with pytest.raises(DataMissing, match="not finished"):
        main([str(prepared_base)])
    with pytest.raises(DataMissing, match="holds no run"):
        main([str(tmp_path / "nothing")])
    run = json.loads(Paths(finished).run.read_text())
    run["settings"]["protocol"] = "published"
    Paths(finished).run.write_text(json.dumps(run))
    with pytest.raises(SettingsError, match="published"):
        main([str(finished)])
