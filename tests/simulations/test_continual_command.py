"""Comparisons of methods against forgetting: one device's stream, the settings, and the command as a whole."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from mcoe_model.errors import SettingsError
from mcoe_model.learning.methods import MethodSettings
from mcoe_model.learning.samples import FeatureSamples, measure_normalisation
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.model_file import read_card
from mcoe_model.names import EMOTIONS
from mcoe_model.networks import build
from mcoe_model.streams import stream
from simulations import continual_run
from simulations.console import Display
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


@pytest.mark.parametrize("exact", [False, True])
def test_what_is_predicted_of_every_clip_makes_the_accuracies(known, exact):
    found = learn(known, "naive", exact=exact, recipe=FineTuneSettings(1, 8, 2e-3))
    asked = found.questions
    assert asked.clips == tuple(sorted(c for stage in TWO.stages for c in (*stage.held_out, *stage.unseen)))
    assert found.predicted.shape == (3, 32, 7)
    np.testing.assert_allclose(found.predicted.sum(axis=2), 1, atol=1e-6)
    for side, part in (("own", "held_out"), ("unseen", "unseen")):
        for domain, stage in enumerate(TWO.stages):
            places = [asked.clips.index(clip) for clip in getattr(stage, part)]
            true = [known.samples.labels[clip] for clip in getattr(stage, part)]
            expected = found.predicted[:, places, true].mean(axis=1)
            np.testing.assert_allclose(getattr(found, side)[:, domain], expected, atol=1e-6)


def test_wrong_labels_are_learned_and_never_asked(known):
    wrong = replace(known, told={clip: (label + 1) % 4 for clip, label in known.told.items()})
    assert (wrong.learned((0, 8, 40)).labels == (known.learned((0, 8, 40)).labels + 1) % 4).all()
    assert (wrong.asked((0, 8, 40)).labels == known.samples.labels[[0, 8, 40]]).all()
    found = learn(wrong, "naive")
    # Held-out and unseen clips are taken for what looks like them, and that is wrong by their own labels.
    for side in (found.own, found.unseen):
        assert side[1, 0] <= 0.1 and side[2, 1] <= 0.1


def test_twenty_kilobytes_are_a_limit_that_binds(known):
    """16 clips are learned, and there is room for 15 of 1308 bytes."""
    (_, arm) = ContinualSettings(methods="latent-replay", memory_mb="0.02").arms
    assert (arm.limit_bytes, arm.label) == (20_000, "latent-replay 0.02 MB")
    assert learn(known, arm.method, limit_bytes=arm.limit_bytes).bytes_kept == 15 * 1308


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
    """Fourteen people in SEE's layout, each under one lighting, seven emotions twice, pictures of a few pixels."""
    root = tmp_path_factory.mktemp("see")
    return write_people(root, 14, lambda subject: [("normal", "Low")[subject % 2]], takes=2)


def write_people(root, subjects, lightings_of, takes):
    database = {}
    for subject in range(1, subjects + 1):
        kinds = [(light, emotion, t) for light in lightings_of(subject) for emotion in EMOTIONS for t in range(takes)]
        for number, (lighting, emotion, take) in enumerate(kinds):
            name = f"{20 * subject + number}_{subject:03d}_man_24_Master_{lighting}_{emotion}_5_take00{take}"
            database[name] = {"subset": "training", "annotations": {"label": emotion, "segment": [0, 5]}}
            for modality in ("event", "frame"):
                folder = root / modality / emotion.replace("neutral", "neutraL") / name
                folder.mkdir(parents=True)
                for picture in range(5):
                    brightest = 60 if lighting == "Low" else 255
                    grey = stream(name, modality, picture).integers(0, brightest, (16, 16)).astype(np.uint8)
                    Image.fromarray(grey).save(folder / f"{picture:05d}.jpg")
    (root / "emotion.json").write_text(json.dumps({"labels": list(EMOTIONS), "database": database}))
    return root


@pytest.fixture
def untrained(monkeypatch, tmp_path):
    """Prepares a run and writes its base as it was initialised; what it would have been trained on is told."""

    def make(**settings):
        monkeypatch.setenv("MCOE_CACHE", str(tmp_path / "cache"))
        given = []
        monkeypatch.setattr(continual_run, "fine_tune", lambda model, samples, *_, **__: given.append(samples))
        chosen = ContinualSettings(methods="naive", seeds=1, **settings)
        run = continual_run.prepare(chosen, tmp_path / "run", 1, Display(Console(quiet=True)))
        continual_run.train_base(run.folder, 0)
        (samples,) = given
        return run, samples

    return make


def run(see, *words, cache):
    given = ["--data", see, "--base-epochs", "1", "--epochs", "1", "--workers", "1", *words]
    return CliRunner(env={"MCOE_CACHE": str(cache)}).invoke(app, [str(word) for word in given])


def test_the_base_of_a_stream_of_lightings_saw_normal_light_alone(untrained, tmp_path):
    data = write_people(tmp_path / "see", 10, lambda _: ["normal", "Low"], takes=1)
    run, samples = untrained(stream="lighting", data=str(data))
    records = run.clips.records
    theirs = [index for index, record in enumerate(records) if record.subject in run.split.base]
    assert {records[index].lighting for index in theirs} == {"normal", "low-light"}
    normal = [index for index in theirs if records[index].lighting == "normal"]
    assert list(samples.indices) == normal
    assert samples.normalisation == measure_normalisation(run.clips, normal) != measure_normalisation(run.clips, theirs)
    assert read_card(run.base(0)).generation.normalisation == samples.normalisation
    assert all(stage.name in ("normal", "low-light") for one in run.streams for stage in one.stages)


@pytest.mark.parametrize(("stream_name", "noise"), [("emotions", "1"), ("subjects", "1"), ("emotions", "0")])
def test_label_noise_changes_what_is_learned_and_no_label_that_is_asked(see, untrained, stream_name, noise):
    run, samples = untrained(stream=stream_name, data=str(see), label_noise=noise)
    records = run.clips.records
    _, known = continual_run.base_and_clips(run.folder, 0)
    assert list(samples.labels) == [records[index].class_index for index in samples.indices]
    learned = {clip for one in run.streams for stage in one.stages for clip in stage.learned}
    assert set(known.told) == set(known.lightings) == learned
    for one in run.streams:
        for stage in one.stages:
            told = known.learned(stage.learned).labels
            assert all((told == [records[clip].class_index for clip in stage.learned]) == (noise == "0"))
            for asked in (stage.held_out, stage.unseen):
                assert not set(asked) & learned
                assert list(known.asked(asked).labels) == [records[clip].class_index for clip in asked]
                assert known.asked(asked).names == tuple(records[clip].name for clip in asked)


def test_the_command_compares_goes_on_and_refuses(see, tmp_path):
    methods = f"der++,latent-replay,experience-replay,ewc,joint,{EXAMPLES}/anchored_head.py:AnchoredHead"
    flags = ("--stream", "subjects", "--methods", methods, "--memory-mb", "0.5", "--seeds", "1", "--json")
    first = run(see, *flags, "--out", tmp_path / "run", cache=tmp_path / "cache")
    assert first.exit_code == 0, first.output
    summary = json.loads(first.stdout)
    (own,) = summary["own_methods"]
    mine = f"AnchoredHead-{own['sha256'][:12]} 0.5 MB"
    limited = {"der++ 0.5 MB", "latent-replay 0.5 MB", "experience-replay 0.5 MB", mine}
    assert set(summary["arms"]) == {"naive", "joint", *limited}
    assert 0 < summary["arms"][mine]["bytes_kept"] <= 500_000
    assert "more than the limit of 500000" in summary["left_out"]["ewc 0.5 MB"]
    assert summary["exploratory"] and summary["stages"] == 2 and summary["devices"] == 1
    rows = list(csv.DictReader((tmp_path / "run" / "table.csv").open()))
    assert len(rows) == 7 and [row["acc"] for row in rows if row["method"] == "ewc"] == [""]
    report = (tmp_path / "run" / "report.html").read_text()
    assert "<h1>" in report
    _is_by_person(tmp_path / "run", summary, rows)
    _says_what_is_the_same(tmp_path / "run", summary, rows, report)

    before = {name: (tmp_path / "run" / name).read_bytes() for name in ("table.csv", "methods.csv", "run.json")}
    lost = next((tmp_path / "run" / "seed-0").glob("der++-0.5-MB/*.npz"))
    kept = lost.read_bytes()
    lost.unlink()
    (tmp_path / "run" / "summary.json").unlink()
    assert run(see, *flags, "--out", tmp_path / "run", cache=tmp_path / "cache").exit_code == 0
    assert lost.read_bytes() == kept
    for name in ("table.csv", "methods.csv"):
        assert (tmp_path / "run" / name).read_bytes() == before[name]

    other = run(see, *flags, "--lr", "0.01", "--out", tmp_path / "run", cache=tmp_path / "cache")
    assert other.exit_code == 22 and "other settings" in other.stderr
    for kind, reason in (("lighting", "light is confounded"), ("sessions", "one session alone")):
        refused = run(see, "--stream", kind, "--out", tmp_path / kind, cache=tmp_path / "cache")
        assert refused.exit_code == 11 and reason in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert not (tmp_path / kind).exists()

    record = json.loads(before["run.json"])
    del record["format"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    continual_run.open_run.cache_clear()
    older = run(see, *flags[:-1], "--out", tmp_path / "run", cache=tmp_path / "cache")
    assert older.exit_code == 22 and "made by an earlier version" in older.stderr and older.stderr.count("\n") == 1


def _is_by_person(folder, summary, rows):
    """The people of one device are told apart: the worst tenth, and intervals that hold the differences."""
    with np.load(folder / "seed-0" / "naive" / "everyone.npz", allow_pickle=False) as found:
        people = sorted(set(found["subjects"][found["held_out"].any(axis=0)].tolist()))
        right = found["predicted"][-1, np.arange(len(found["names"])), [EMOTIONS.index(e) for e in found["emotions"]]]
        accs = [right[found["held_out"].any(axis=0) & (found["subjects"] == person)].mean() for person in people]
        whole = np.mean([right[clips].mean() for clips in found["held_out"]])
        assert [name.split("_")[6] for name in found["names"].tolist()] == found["emotions"].tolist()
    (naive,) = (row for row in rows if row["method"] == "naive")
    assert summary["people"] == int(naive["people"]) == len(people) > 2
    assert float(naive["worst_tenth"]) == pytest.approx(min(accs)) and float(naive["acc"]) == pytest.approx(whole)
    arms, (_, *others) = summary["arms"], summary["arms"]
    for label in others:
        for name, reference in (("acc", "naive"), ("forgetting", "naive"), ("acc", "joint")):
            one = arms[label][f"{name}_minus_{reference}"]
            if label != reference:
                assert one["estimate"] == pytest.approx(arms[label][name] - arms[reference][name])
                assert one["low"] <= one["estimate"] <= one["high"]
    methods = {row["method"]: row for row in csv.DictReader((folder / "methods.csv").open())}
    assert methods["joint"]["acc_minus_joint"] == "" and methods["naive"]["acc_minus_naive"] == ""
    one = arms["der++ 0.5 MB"]["acc_minus_joint"]
    assert [float(methods["der++"][f"acc_minus_joint{end}"]) for end in ("", "_low", "_high")] == pytest.approx(
        [one["estimate"], one["low"], one["high"]]
    )


def _says_what_is_the_same(folder, summary, rows, report):
    latent, pictures = ({**row} for row in rows if row["method"] in ("latent-replay", "experience-replay"))
    assert int(latent["bytes_kept"]) < int(pictures["bytes_kept"])
    different = [name for name in latent if latent[name] != pictures[name]]
    assert different == ["method", "bytes_kept"]
    (note,) = summary["notes"]
    assert "identical by construction" in note and note in report
    for name in ("table.md", "table.tex", "methods.md", "methods.tex"):
        assert note in (folder / name).read_text()
