"""Methods against forgetting in federated rounds: who takes part, what is kept, and the command as a whole."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from test_continual_command import EXAMPLES, TWO, known, learn, run, see  # noqa: F401 (two are fixtures)

from mcoe_model.errors import SettingsError, TooFewSubjects
from mcoe_model.learning.methods import MethodSettings
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import SEE_NORMALISATION, Generation, ModelCard
from mcoe_model.networks import build
from simulations.continual_rounds import check_cohorts, cohorts, learn_in_rounds
from simulations.continual_settings import ContinualSettings, OwnMethod
from simulations.own import locate
from simulations.streams import DeviceStream

#: The stream of `TWO` on two devices, each with half of the clips to learn; both are asked all of it.
EACH = tuple(
    DeviceStream(name, tuple(replace(stage, learned=stage.learned[half]) for stage in TWO.stages))
    for name, half in {"a": slice(0, 4), "b": slice(4, 8)}.items()
)


def together(known, name, *, eviction="reservoir", order=EACH, learners=None, **more):  # noqa: F811
    base = build("mcoe-tiny", seed=3).eval()
    card = ModelCard(Generation("mcoe-tiny", backbone_sha256(tensors_of(base)), 64, SEE_NORMALISATION), "a test")
    method = MethodSettings(name, eviction=eviction) if isinstance(name, str) else name
    settings = {"limit_bytes": 10**6, "recipe": FineTuneSettings(6, 4, 4e-3), "lesson_clips": 4, "exact": False}
    learners = learners or {one.device: (one,) for one in order}
    settings |= {"rule": "weighted-mean", "seed": 0}
    found = learn_in_rounds(base, card, known, order, learners, method, **(settings | more))
    return dict(zip((one.device for one in order), found, strict=True))


def test_naive_rounds_forget_and_memories_do_not(known):  # noqa: F811
    naive, replay, joint = (together(known, name)["a"] for name in ("naive", "latent-replay", "joint"))
    assert naive.own.shape == naive.unseen.shape == (3, 2)
    np.testing.assert_array_equal(naive.own[0], learn(known, "naive").own[0])
    for side in ("own", "unseen"):
        assert getattr(naive, side)[1, 0] >= 0.9 and getattr(naive, side)[2, 0] <= 0.5
        assert getattr(replay, side)[2].min() >= 0.8
        assert getattr(joint, side)[2].min() >= 0.7
    assert naive.rejected == replay.rejected == joint.rejected == 0


def test_all_devices_have_one_model_and_their_order_changes_no_bit(known):  # noqa: F811
    short = {"recipe": FineTuneSettings(2, 4, 4e-3)}
    found, turned = together(known, "der++", **short), together(known, "der++", order=EACH[::-1], **short)
    assert not (found["a"].own[1:] == found["a"].own[0]).all()
    np.testing.assert_array_equal(found["a"].own, found["b"].own)
    for name in ("a", "b"):
        np.testing.assert_array_equal(found[name].unseen, turned[name].unseen)


@pytest.mark.parametrize(("name", "eviction"), [("a-gem", "reservoir"), ("latent-replay", "re-fed")])
def test_every_device_keeps_within_the_limit(known, name, eviction):  # noqa: F811
    """Each device learns eight clips; the memory has room for three."""
    found = together(known, name, eviction=eviction, limit_bytes=4000, recipe=FineTuneSettings(1, 4, 1e-3))
    for one in found.values():
        assert 2000 < one.bytes_kept <= 4000


def test_what_does_not_fit_is_refused_and_a_method_of_ones_own_learns(known):  # noqa: F811
    with pytest.raises(SettingsError, match="more than the limit"):
        together(known, "ewc", limit_bytes=4000)
    mine = OwnMethod(locate("method", f"{EXAMPLES}/anchored_head.py:AnchoredHead"))
    assert together(known, mine, recipe=FineTuneSettings(1, 4, 1e-3))["b"].bytes_kept > 0


def test_who_has_no_lesson_left_sits_out_until_the_next_stage_and_a_rule_may_need_more():
    first, second = EACH
    longer = replace(first, stages=(replace(first.stages[0], learned=tuple(range(8))), first.stages[1]))
    rounds = [cohorts((longer, second), stage, 4) for stage in (0, 1)]
    assert [[sorted(cohort) for cohort in stage] for stage in rounds] == [[["a", "b"], ["a"]], [["a", "b"]]]
    learned = [clip for cohort in rounds[0] for clip in cohort["a"]]
    assert learned == list(range(8))
    check_cohorts({"a": (first,), "b": (second,)}, 4, "weighted-mean")
    with pytest.raises(TooFewSubjects, match="round 1 of stage 1 has 2"):
        check_cohorts({"a": (first,), "b": (second,)}, 4, "krum")


def test_a_rule_is_of_rounds_and_needs_nothing_that_a_simulation_lacks():
    with pytest.raises(SettingsError, match="add --federated"):
        ContinualSettings(rule="median")
    with pytest.raises(SettingsError, match="--rule must be one of"):
        ContinualSettings(rule="fltrust", federated=True)
    assert ContinualSettings(rule="median", federated=True).where == "in rounds"


def test_the_command_learns_in_rounds_and_goes_on_with_the_same_bits_on_two_workers(see, tmp_path):  # noqa: F811
    flags = ("--stream", "emotions", "--methods", "latent-replay,joint", "--seeds", "1", "--windows", "middle")
    flags += ("--federated",)
    out, cache = tmp_path / "run", tmp_path / "cache"
    first = run(see, *flags, "--json", "--out", out, cache=cache)
    assert first.exit_code == 0, first.output
    summary = json.loads(first.stdout)
    assert (summary["learned"], summary["rule"], summary["stages"]) == ("in rounds", "weighted-mean", 3)
    assert {row["learned"] for row in csv.DictReader((out / "table.csv").open())} == {"in rounds"}
    assert "in rounds, weighted-mean" in (out / "report.html").read_text()
    (note,) = summary["notes"]
    assert "no sure upper line" in note and note in (out / "report.html").read_text()
    results = {path: path.read_bytes() for path in sorted((out / "seed-0").rglob("*.npz"))}
    assert len(results) == 3 * summary["devices"] > 3
    whole = (out / "table.csv").read_bytes()

    # As if stopped: one method has nothing yet, the other all devices but one.
    lost = [path for path in results if "naive" in str(path)] + [next(p for p in results if "replay" in str(p))]
    for path in lost:
        path.unlink()
    assert run(see, *flags, "--out", out, "--workers", "2", cache=cache).exit_code == 0
    assert {path: path.read_bytes() for path in results} == results
    assert (out / "table.csv").read_bytes() == whole

    few = run(see, "--stream", "subjects", "--federated", "--rule", "krum", "--out", tmp_path / "few", cache=cache)
    assert few.exit_code == 12 and "rule krum needs 5 devices" in few.stderr
    assert not (tmp_path / "few").exists()
