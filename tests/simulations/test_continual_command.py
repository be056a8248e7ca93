"""Comparisons of methods against forgetting: one device's stream, the settings, and the command as a whole."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mcoe_model.errors import SettingsError
from mcoe_model.learning.methods import MethodSettings
from mcoe_model.learning.samples import FeatureSamples
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import build
from mcoe_model.streams import stream
from simulations.continual import app
from simulations.continual_settings import ContinualSettings, OwnMethod
from simulations.lessons import Known, learn_stream
from simulations.own import locate
from simulations.streams import DeviceStream, Stage

F = 128
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def known():
    """Two domains in which the same looks mean other emotions; clips 0-7 and 8-15, each learned, held out, unseen."""
    labels, features = [], []
    for clip in range(48):
        domain, look = clip // 24, clip % 4
        centre = stream("look", look).normal(size=F) + stream("domain", domain).normal(size=F)
        noise = stream("clip", clip).normal(size=(2, 5, F)) * 0.3
        frames, events = (centre + noise).astype(np.float32)
        features.append({("frame", "any"): frames, ("event", "any"): events})
        labels.append((look + domain) % 4)
    samples = FeatureSamples(tuple(f"clip {n}" for n in range(48)), np.array(labels), tuple(features))
    return Known(samples, {n: n for n in range(48)}, dict.fromkeys(range(48), "normal"), dict(enumerate(labels)))


TWO = DeviceStream(
    "one",
    tuple(Stage(str(d), *(tuple(range(24 * d + 8 * p, 24 * d + 8 * p + 8)) for p in range(3))) for d in (0, 1)),
)


def learn(known, name, **more):
    settings = {"limit_bytes": 10**6, "recipe": FineTuneSettings(7, 8, 2e-3), "lesson_clips": 4, "exact": False}
    method = MethodSettings(name) if isinstance(name, str) else name
    return learn_stream(build("mcoe-tiny", seed=3).eval(), known, TWO, method, keys=(0,), **(settings | more))


def test_naive_training_forgets_and_a_memory_does_not(known):
    naive, replay = learn(known, "naive"), learn(known, "latent-replay")
    assert naive.own.shape == naive.unseen.shape == (3, 2)
    for side in ("own", "unseen"):
        assert getattr(naive, side)[1, 0] >= 0.9 and getattr(naive, side)[2, 0] <= 0.5
        assert getattr(replay, side)[2].min() >= 0.8
    assert naive.bytes_kept == 0 < replay.bytes_kept <= 10**6


def test_the_same_keys_give_the_same_numbers_and_every_method_begins_alike(known):
    first, again = learn(known, "der++"), learn(known, "der++")
    np.testing.assert_array_equal(first.own, again.own)
    np.testing.assert_array_equal(first.own[0], learn(known, "joint").own[0])
    # Until the first lesson is learned, there is nothing that a memory could add.
    naive, remembering = (learn(known, name, lesson_clips=8) for name in ("naive", "der++"))
    np.testing.assert_array_equal(naive.own[1], remembering.own[1])


def test_a_method_of_ones_own_is_held_to_its_limit(known, tmp_path):
    mine = OwnMethod(locate("method", f"{EXAMPLES}/anchored_head.py:AnchoredHead"))
    found = learn(known, mine)
    assert 0 < found.bytes_kept <= 10**6 and (found.own[0] == learn(known, "naive").own[0]).all()
    growing = (EXAMPLES / "anchored_head.py").read_text()
    growing = growing.replace("return self\n", "self._anchor |= more(self); return self\n")
    growing += "\n\ndef more(kept):\n    return {f'{name}-again': value for name, value in kept._anchor.items()}\n"
    (tmp_path / "growing.py").write_text(growing)
    with pytest.raises(SettingsError, match="more than the limit"):
        learn(known, OwnMethod(locate("method", f"{tmp_path}/growing.py:AnchoredHead")), limit_bytes=500_000)


def test_every_window_can_be_asked(known):
    exact = learn(known, "naive", exact=True, recipe=FineTuneSettings(1, 8, 1e-4))
    assert ((exact.own >= 0) & (exact.own <= 1)).all()


def test_arms_are_methods_by_limits_by_evictions_and_naive_comes_first():
    settings = ContinualSettings(methods="der++:0.3:1, joint,naive", memory_mb="0.2,2", eviction="reservoir,re-fed")
    assert [arm.label for arm in settings.arms] == [
        "naive", "der++:0.3:1 0.2 MB", "der++:0.3:1 2 MB", "der++:0.3:1+re-fed 0.2 MB", "der++:0.3:1+re-fed 2 MB",
        "joint",
    ]  # fmt: skip


def test_wrong_settings_are_listed_together():
    with pytest.raises(SettingsError) as caught:
        ContinualSettings(stream="days", methods="magic", memory_mb="0", seeds=0, epochs=0, windows="some", fold=5)
    assert len(caught.value.faults) == 7


@pytest.fixture(scope="module")
def see(tmp_path_factory):
    """Fourteen people in SEE's layout, seven emotions twice, pictures of a few pixels."""
    root, database = tmp_path_factory.mktemp("see"), {}
    for subject in range(1, 15):
        lighting = ("normal", "Low")[subject % 2]
        for number in range(14):
            emotion = EMOTIONS[number // 2]
            name = f"{20 * subject + number}_{subject:03d}_man_24_Master_{lighting}_{emotion}_5_take00{number % 2}"
            database[name] = {"subset": "training", "annotations": {"label": emotion, "segment": [0, 5]}}
            for modality in ("event", "frame"):
                folder = root / modality / emotion.replace("neutral", "neutraL") / name
                folder.mkdir(parents=True)
                for picture in range(5):
                    grey = stream(name, modality, picture).integers(0, 255, (16, 16)).astype(np.uint8)
                    Image.fromarray(grey).save(folder / f"{picture:05d}.jpg")
    (root / "emotion.json").write_text(json.dumps({"labels": list(EMOTIONS), "database": database}))
    return root


def run(see, *words, cache):
    given = ["--data", see, "--base-epochs", "1", "--epochs", "1", "--workers", "1", *words]
    return CliRunner(env={"MCOE_CACHE": str(cache)}).invoke(app, [str(word) for word in given])


def test_the_command_compares_goes_on_and_refuses(see, tmp_path):
    methods = f"der++,ewc,joint,{EXAMPLES}/anchored_head.py:AnchoredHead"
    flags = ("--stream", "subjects", "--methods", methods, "--memory-mb", "0.5", "--seeds", "1", "--json")
    first = run(see, *flags, "--out", tmp_path / "run", cache=tmp_path / "cache")
    assert first.exit_code == 0, first.output
    summary = json.loads(first.stdout)
    (own,) = summary["own_methods"]
    mine = f"AnchoredHead-{own['sha256'][:12]} 0.5 MB"
    assert set(summary["arms"]) == {"naive", "der++ 0.5 MB", "joint", mine}
    assert 0 < summary["arms"][mine]["bytes_kept"] <= 500_000
    assert "more than the limit of 500000" in summary["left_out"]["ewc 0.5 MB"]
    assert summary["exploratory"] and summary["stages"] == 2 and summary["devices"] == 1
    rows = list(csv.DictReader((tmp_path / "run" / "table.csv").open()))
    assert len(rows) == 5 and [row["acc"] for row in rows if row["method"] == "ewc"] == [""]
    assert "<h1>" in (tmp_path / "run" / "report.html").read_text()

    before = {name: (tmp_path / "run" / name).read_bytes() for name in ("table.csv", "report.html", "run.json")}
    lost = next((tmp_path / "run" / "seed-0").glob("der++-0.5-MB/*.json"))
    kept = lost.read_bytes()
    lost.unlink()
    (tmp_path / "run" / "summary.json").unlink()
    assert run(see, *flags, "--out", tmp_path / "run", cache=tmp_path / "cache").exit_code == 0
    assert lost.read_bytes() == kept
    assert (tmp_path / "run" / "table.csv").read_bytes() == before["table.csv"]

    other = run(see, *flags, "--lr", "0.01", "--out", tmp_path / "run", cache=tmp_path / "cache")
    assert other.exit_code == 22 and "other settings" in other.stderr
    for kind, reason in (("lighting", "light is confounded"), ("sessions", "not days")):
        refused = run(see, "--stream", kind, "--out", tmp_path / kind, cache=tmp_path / "cache")
        assert refused.exit_code == 11 and reason in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert not (tmp_path / kind).exists()
