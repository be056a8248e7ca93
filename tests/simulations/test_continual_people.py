"""Measures by person and differences with intervals: people who share a device, and what counts as reached."""

import csv
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
from test_continual_command import TWO, known  # noqa: F401 (one is a fixture)
from test_continual_rounds import EACH, together

from mcoe_model.data.reader import ClipRecord
from mcoe_model.files import write_json
from mcoe_model.learning.forgetting import removed, stream_scores
from mcoe_model.learning.metrics import paired_difference
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.streams import stream
from simulations.continual_people import Outcome, by_person, differences, removed_interval
from simulations.continual_report import write_report
from simulations.continual_settings import ContinualSettings
from simulations.continual_summary import verdict, write_results
from simulations.lessons import Learned, Questions
from simulations.streams import DeviceStream, Stage
from simulations.words import percent, points

#: Clips of a domain's people, one entry a clip: domains and people of unequal size, three domains.
CLIPS = ("a", "a", "a", "b", "c", "c", "d", "d", "d", "d", "e", "f", "f")
EVERY = range(len(CLIPS))
DOMAINS = (range(4), range(4, 6), range(6, 13))
UNSEEN = 3


def people_of(names):
    return [ClipRecord(f"{name}-{place}", name, "", "hdr", "fear", "training", 5) for place, name in enumerate(names)]


def learned(*keys, clips=EVERY, skill=0.5, domains=DOMAINS):
    """What a device might find of these clips and of three unseen ones after no stage and after each of three."""
    count = len(clips) + UNSEEN
    held_out = np.array([[place in domain for place in range(count)] for domain in domains])
    unseen = np.array([[place >= count - UNSEEN for place in range(count)]] * len(domains))
    random = stream("learned", *keys)
    right = random.random((len(domains) + 1, count)) < skill
    predicted = np.zeros((len(domains) + 1, count, 7), np.float32)
    predicted[..., 2] = right
    predicted[..., 3] = ~right
    asked = (*clips, *range(100, 100 + UNSEEN))
    return Learned(Questions(asked, np.full(count, 2), held_out, unseen), predicted, 10, 1)


def outcome(name, seeds=3, **more):
    """Of one device that all people share; the records know more clips than it asks."""
    return Outcome.of([[learned(name, seed, **more)] for seed in range(seeds)], people_of([*CLIPS, *["z"] * 100]))


def test_measures_of_clips_add_up_to_the_streams_own():
    one = outcome("one")
    for measure in ("acc", "forgetting"):
        clips = getattr(one, measure)
        own = [getattr(stream_scores(device), measure) for row in one.own for device in row]
        np.testing.assert_allclose(clips.values @ clips.weights, own)
        assert clips.weights.sum() == pytest.approx(1)
    assert set(one.acc.people) == set("abcdef") and set(one.forgetting.people) == set("abc")


def test_people_who_share_a_device_are_told_apart():
    one = outcome("one")
    last = [learned("one", seed).correct[-1] for seed in range(3)]
    theirs = [[place for place in EVERY if CLIPS[place] == person] for person in "abcdef"]
    expected = [[row[places].mean() for places in theirs] for row in last]
    np.testing.assert_allclose(by_person(one.acc), expected)


def test_a_difference_between_people_who_share_a_device_is_that_of_the_table_and_has_an_interval():
    better, worse = outcome("better", skill=0.9), outcome("worse", skill=0.2)
    (found,) = differences([better.acc], worse.acc)
    means = [np.mean([stream_scores(device).acc for row in one.own for device in row]) for one in (better, worse)]
    assert found["estimate"] == pytest.approx(means[0] - means[1])
    assert 0 < found["low"] < found["estimate"] < found["high"]
    assert (found["subjects"], found["seeds"], found["p_holm"]) == (6, 3, found["p"])
    (fallen,) = differences([better.forgetting], worse.forgetting)
    assert fallen["subjects"] == 3 and fallen["low"] < fallen["high"]  # nobody forgets the last domain


def test_where_everybody_has_a_device_it_is_as_with_one_value_for_each_device():
    halves = (range(0, 4), range(4, 8), range(8, 13))
    names = ["anna"] * 4 + ["bert"] * 4 + ["carl"] * 5

    def arm(name):
        rows = [
            [
                learned(name, seed, place, clips=own, domains=(range(2), range(2, len(own))))
                for place, own in enumerate(halves)
            ]
            for seed in range(4)
        ]
        return Outcome.of(rows, people_of([*names, *["z"] * 100]))

    one, other = arm("one"), arm("other")
    for measure in ("acc", "forgetting"):
        by_device = [
            np.array([[getattr(stream_scores(device), measure) for device in row] for row in found.own])
            for found in (one, other)
        ]
        (found,) = differences([getattr(one, measure)], getattr(other, measure))
        expected = paired_difference(*by_device, ["anna", "bert", "carl"], seed=0)
        assert [found[name] for name in expected._fields] == pytest.approx(list(expected))
    np.testing.assert_allclose(by_person(one.acc), [[stream_scores(d).acc for d in row] for row in one.own])


def test_the_share_removed_has_an_interval_that_holds_it():
    naive, method = (
        Outcome.of([[forgets(name, seed, share)] for seed in range(5)], people_of([*"abcd" * 5, *"z" * 100]))
        for name, share in (("naive", 0.6), ("method", 0.2))
    )
    low, high = removed_interval(naive.forgetting, method.forgetting)
    forgotten = [float(np.mean([stream_scores(row[0]).forgetting for row in one.own])) for one in (naive, method)]
    assert low < removed(*forgotten) < high < 1
    assert removed_interval(naive.forgetting, naive.forgetting) == pytest.approx((0, 0))
    nothing = Outcome.of([[forgets("none", seed, 0.0)] for seed in range(5)], people_of([*"abcd" * 5, *"z" * 100]))
    assert removed_interval(nothing.forgetting, nothing.forgetting) is None


def forgets(name, seed, share):
    """Two domains of twenty clips; the first is known whole after its stage, and this share of it is not at the end."""
    one = learned(name, seed, clips=range(40), domains=(range(20), range(20, 40)))
    predicted = one.predicted.copy()
    lost = stream("lost", name, seed).random(20) < share
    predicted[1, :20] = np.eye(7)[2]
    predicted[2, :20] = np.where(lost[:, None], np.eye(7)[3], np.eye(7)[2])
    return replace(one, predicted=predicted)


def test_one_person_has_no_interval():
    alone = Outcome.of([[learned("one", seed)] for seed in range(3)], people_of(["a"] * 120))
    assert differences([alone.acc], alone.acc) is None
    assert removed_interval(alone.forgetting, alone.forgetting) is None


@pytest.mark.parametrize(
    ("removed_between", "joint_between", "said"),
    [
        ((0.70, 0.9), (-0.03, 0.01), "met"),
        ((0.69, 0.9), (-0.01, 0.01), "not resolved"),
        ((0.75, 0.9), (-0.04, 0.05), "not resolved"),
        ((0.4, 0.69), (-0.04, 0.05), "not met"),
        ((0.75, 0.9), (-0.2, -0.031), "not met"),
        ((0.4, 0.6), None, "not met"),
        (None, (0.0, 0.1), "not resolved"),
        ((0.75, 0.9), None, "not resolved"),
        (None, None, "not resolved"),
    ],
)
def test_goals_are_met_where_the_intervals_say_so(removed_between, joint_between, said):
    assert verdict(removed_between, joint_between) == said


def test_in_rounds_people_of_one_stream_are_told_apart(known):  # noqa: F811
    """Two devices learn a stream in which the clips of both are asked."""
    short = {"recipe": FineTuneSettings(1, 4, 1e-3)}
    found = together(known, "naive", order=(TWO,), learners={"one": EACH}, **short)["one"]
    records = people_of(["left" if clip % 8 < 4 else "right" for clip in range(48)])
    one = Outcome.of([[found]], records)
    assert set(one.acc.people) == set(one.forgetting.people) == {"left", "right"}
    held_out = found.questions.held_out.any(axis=0)
    left = np.array([records[clip].subject == "left" for clip in found.questions.clips])
    sides = [held_out & left, held_out & ~left]
    np.testing.assert_allclose(by_person(one.acc), [[found.correct[-1, side].mean() for side in sides]])
    assert differences([one.acc], one.acc)[0]["subjects"] == 2


#: How much of what a stage taught is still known after the later ones.
KEPT = {"naive": 0.2, "der++ 2 MB": 0.75, "a-gem 2 MB": 0.25, "lwf 2 MB": 0.97, "joint": 0.95}


@pytest.fixture
def finished(tmp_path):
    """A run whose results are drawn: thirty people in three groups on one device, four clips each, and twenty seeds."""
    domains = [range(40 * place, 40 * place + 40) for place in range(3)]
    settings = ContinualSettings(stream="subjects", methods="der++,a-gem,lwf,joint", seeds=20)

    def found(seed, arm, device):
        one = learned(arm.label, seed, clips=range(120), domains=domains)
        right = stream("kept", arm.label, seed).random(one.predicted.shape[:2]) < KEPT[arm.label]
        for domain, clips in enumerate(domains):
            right[domain + 1, clips] = True
        predicted = np.where(right[..., None], np.eye(7)[2], np.eye(7)[3]).astype(np.float32)
        return replace(one, predicted=predicted)

    record = {"data": "synthetic", "command": ["continual.py"], "started": "2024-01-01", "settings": asdict(settings)}
    record |= {"commit": "c", "uncommitted_changes": False, "data_sha256": "d", "split_sha256": "s"}
    write_json(tmp_path / "run.json", record)
    stages = tuple(Stage(str(place), (), tuple(clips), ()) for place, clips in enumerate(domains))
    return SimpleNamespace(
        folder=tmp_path,
        settings=settings,
        arms=settings.arms,
        left_out={},
        streams=(DeviceStream("everyone", stages),),
        clips=SimpleNamespace(records=people_of([f"{clip // 4:02d}" for clip in range(120)])),
        learned=found,
    )


def test_tables_summary_and_report_of_people_who_share_a_device(finished):
    summary = write_results(finished)
    assert (summary["devices"], summary["people"], summary["informative"]) == (1, 30, True)
    arms = summary["arms"]
    for row in csv.DictReader((finished.folder / "table.csv").open()):
        one = finished.learned(int(row["seed"]), next(a for a in finished.arms if a.method.label == row["method"]), "")
        worst = np.sort([one.correct[-1, 4 * person : 4 * person + 4].mean() for person in range(30)])[:3].mean()
        assert float(row["worst_tenth"]) == pytest.approx(worst) and row["people"] == "30"
        assert row["method"] != "naive" or float(row["worst_tenth"]) < float(row["acc"])
    assert set(summary["reached"]) == {"der++ 2 MB", "a-gem 2 MB", "lwf 2 MB"}
    assert summary["reached"]["lwf 2 MB"] == "met" and summary["reached"]["a-gem 2 MB"] == "not met"
    for label, said in summary["reached"].items():
        low, high = arms[label]["removed_interval"]
        assert low < arms[label]["removed"] < high
        joint = arms[label]["acc_minus_joint"]
        assert joint["estimate"] == pytest.approx(arms[label]["acc"] - arms["joint"]["acc"])
        assert verdict((low, high), (joint["low"], joint["high"])) == said
    assert arms["joint"]["acc_minus_joint"] is None and arms["naive"]["removed_interval"] is None

    methods = {row["method"]: row for row in csv.DictReader((finished.folder / "methods.csv").open())}
    assert methods["lwf"]["reached"] == "met" and methods["naive"]["reached"] == ""
    for name, value in zip(("removed_low", "removed_high"), arms["lwf 2 MB"]["removed_interval"], strict=True):
        assert float(methods["lwf"][name]) == pytest.approx(value)

    report = write_report(finished.folder).read_text()
    for label, said in summary["reached"].items():
        low, high = arms[label]["removed_interval"]
        joint = arms[label]["acc_minus_joint"]
        assert f"{percent(arms[label]['removed'])} ({percent(low)} to {percent(high)})" in report
        assert f"{points(joint['estimate'])} ({points(joint['low'])} to {points(joint['high'])})" in report
        assert f"<td>{said}</td>" in report
    assert "within 3 points of joint training: met." in report and "worst tenth of the 30 people" in report
