"""What each arm answers of clips, and what that is worth: the step from predictions to scores.

A run over all folds is several runs, each of which tests other people; its answers are theirs, one after the other.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcoe_model.learning.metrics import Scores, paired_difference, recovered_gain, recovered_gain_interval, score
from mcoe_model.networks.presets import config_of
from simulations.arms import ALL_DATA, CENTRALISED, read_predictions
from simulations.scene import Scene, open_scene

#: A setting says something about federation only if centralised training gains at least this much WAR over the base.
INFORMATIVE_GAIN = 0.05
ARMS = ("base", "federated", "centralised", "local", "all_data")


@dataclass(frozen=True)
class Answers:
    """What an arm says of N clips: the mean over its models, where it has one for every client."""

    names: tuple[str, ...]
    labels: NDArray[np.int64]  # (N,)
    expected: NDArray[np.float64]  # (N, 7) the probability of each emotion being said
    subjects: tuple[str, ...]
    lightings: tuple[str, ...]
    mean_softmax: NDArray[np.float64] | None  # (N, 7); a mean of several models has none
    published: bool

    def correct(self) -> NDArray[np.float64]:
        """(N,) the probability of the true emotion being said."""
        return self.expected[np.arange(len(self.labels)), self.labels]

    def score(self) -> Scores:
        return score(
            self.labels,
            self.expected,
            self.subjects,
            self.lightings,
            mean_softmax=self.mean_softmax,
            published=self.published,
        )

    def by_subject(self) -> dict[str, tuple[float, int]]:
        """Subject -> (expected accuracy, clips)."""
        correct, subjects = self.correct(), np.array(self.subjects)
        of = {str(subject): correct[subjects == subject] for subject in np.unique(subjects)}
        return {subject: (float(values.mean()), len(values)) for subject, values in of.items()}


def arm_answers(folders: Sequence[Path]) -> dict[str, Answers]:
    """What every arm that was run says of the test parts of these runs together."""
    found = [
        {arm: answers_of(scene, names, "test") for arm, names in _names_of(scene).items()}
        for scene in map(open_scene, folders)
    ]
    return {arm: pool([one[arm] for one in found]) for arm in found[0]}


def learned_answers(folder: Path) -> Answers:
    """What a model of all data in one place says of the clips that it learned from."""
    scene = open_scene(folder)
    return pool([answers_of(scene, ["all_data"], part) for part in ALL_DATA])


def choose_centralised(folder: Path) -> str | None:
    """The form of centralised training that is better on validation (the smaller batch on a tie); None without any."""
    scores = {arm: scored for arm in CENTRALISED if (scored := validation_score(folder, arm))}
    return max(scores, key=lambda arm: (scores[arm].war, arm == CENTRALISED[0]), default=None)


def validation_score(folder: Path, *names: str) -> Scores | None:
    """What a model, or the mean of several, scored on the validation part, if they were evaluated there."""
    scene = open_scene(folder)
    there = all(scene.paths.predictions(name, "validation").exists() for name in names)
    return answers_of(scene, names, "validation").score() if there else None


def gain(answers: Mapping[str, Answers], seed: int) -> dict[str, Any]:
    """The recovered gain, and whether this setting can say anything about it (paired 95 % intervals over subjects)."""
    subjects = answers["base"].subjects
    correct = {arm: said.correct() for arm, said in answers.items()}  # (N,) each
    differences = {
        f"{arm} - base": paired_difference(correct[arm][None], correct["base"][None], subjects, seed=seed)._asdict()
        for arm in answers
        if arm != "base"
    }
    if "centralised" not in answers:
        return {"recovered_gain": None, "informative": None, "differences": differences}
    upper = differences["centralised - base"]
    triple = [answers[arm].score().war for arm in ("base", "federated", "centralised")]
    return {
        "recovered_gain": recovered_gain(*triple),
        "recovered_gain_interval": recovered_gain_interval(
            correct["base"], correct["federated"], correct["centralised"], subjects, seed=seed
        ),
        "informative": bool(upper["estimate"] >= INFORMATIVE_GAIN and upper["low"] > 0),
        "differences": differences,
    }


def random_passes(folders: Sequence[Path], passes: int) -> dict[str, dict[str, float]]:
    """The published protocol: each arm's mean and standard deviation of WAR and UAR over random passes."""
    drawn: dict[str, list[Scores]] = {}
    for number in range(passes):
        found = [
            {arm: answers_of(scene, names, "test", number) for arm, names in _names_of(scene).items()}
            for scene in map(open_scene, folders)
        ]
        for arm in found[0]:
            drawn.setdefault(arm, []).append(pool([one[arm] for one in found]).score())
    result = {}
    for arm, scores in drawn.items():
        war, uar = [scored.war for scored in scores], [scored.uar for scored in scores]
        result[arm] = {
            "war": statistics.mean(war),
            "war_sd": statistics.pstdev(war),
            "uar": statistics.mean(uar),
            "uar_sd": statistics.pstdev(uar),
        }
    return result


def _names_of(scene: Scene) -> dict[str, list[str]]:
    """Which prediction files make up each arm on the test part; an arm that was not run is absent."""
    names = {
        "base": ["base"],
        "federated": [f"round-{scene.settings.rounds}"],
        "centralised": [choose_centralised(scene.paths.folder) or CENTRALISED[0]],
        "local": [f"local-{subject}" for subject in scene.subjects("clients")],
        "all_data": ["all_data"],
    }
    return {
        arm: group for arm, group in names.items() if all(scene.paths.predictions(n, "test").exists() for n in group)
    }


def answers_of(scene: Scene, names: Sequence[str], part: str, number: int | None = None) -> Answers:
    """What the models of an arm say on average: of every window, or of those that a random pass draws."""
    said = [read_predictions(scene.paths.predictions(name, part)) for name in names]
    records = {record.name: record for record in scene.clips.records}
    shown = [records[clip] for clip in said[0].names]
    if number is None:
        expected = [one.predicted() for one in said]
    else:
        lengths, sampling = tuple(record.n_frames for record in shown), config_of(scene.settings.preset).sampling
        expected = [one.random_pass(sampling, scene.settings.seed, number, lengths) for one in said]
    return Answers(
        said[0].names,
        said[0].labels,
        np.mean(expected, axis=0),
        tuple(record.subject for record in shown),
        tuple(record.lighting for record in shown),
        said[0].mean_softmax() if len(said) == 1 else None,
        scene.settings.protocol == "published",
    )


def pool(answers: Sequence[Answers]) -> Answers:
    """The answers of several runs as one."""
    softmax = [one.mean_softmax for one in answers if one.mean_softmax is not None]
    return Answers(
        tuple(name for one in answers for name in one.names),
        np.concatenate([one.labels for one in answers]),
        np.concatenate([one.expected for one in answers]),
        tuple(subject for one in answers for subject in one.subjects),
        tuple(lighting for one in answers for lighting in one.lightings),
        np.concatenate(softmax) if len(softmax) == len(answers) else None,
        answers[0].published,
    )
