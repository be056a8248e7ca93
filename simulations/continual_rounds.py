"""Devices learn their streams together: a lesson of everybody's is a round, and the next one begins from one model.

Rounds are the product's own: `client.learner` trains a lesson and makes the update, without experts that were not used;
`server.rounds` judges it, aggregates and publishes. They are not held over a grid: what a device keeps between its
lessons, which may be a method of somebody's own, would have to pass from process to process with every message, and
methods and seeds fill the workers anyway. So devices take turns in one process, and all that a round leaves on disk is
gone at the end.

What is learned in a lesson, and what is kept of it, is as alone: a device keeps what it has learned as its own model
then was, not as the round's.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from client.learner import learn
from mcoe_model.errors import TooFewSubjects
from mcoe_model.learning.method import ContinualMethod, Retention
from mcoe_model.learning.methods import MethodSettings
from mcoe_model.learning.remembered import Remembered
from mcoe_model.learning.samples import FeatureSamples
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.learning.weights import copy_weights, tensors_of
from mcoe_model.model_file import ModelCard
from mcoe_model.networks import MCOENet
from mcoe_model.protocol import CheckIn
from mcoe_model.streams import stream_seed
from mcoe_model.tensors import Payload
from mcoe_model.update import TrainMode
from server.acceptance import Rejected, Reply
from server.aggregation import RULES
from server.aggregation.rule import RuleSettings
from server.registry import Registry
from server.registry.artifacts import Artifacts
from server.registry.database import open_database, sqlite_url
from server.rounds import RoundEngine, RoundSettings
from simulations.continual_settings import OwnMethod
from simulations.lessons import Known, Learned, Questions, begin, is_joint, predict, within
from simulations.streams import Clips, DeviceStream, lessons

#: Who takes part in a round, and the clips that each is to learn.
Cohort = Mapping[str, Clips]


@dataclass
class LessonStore:
    """A device as the client's code sees it (`client.learner.ClipStore`): nothing waits there but this lesson."""

    client_id: str
    resident: MCOENet
    card: ModelCard
    lesson: FeatureSamples
    kept: Retention | None

    @property
    def learns(self) -> tuple[TrainMode, ...]:
        return ("head",)

    def clip_names(self) -> tuple[str, ...]:
        return self.lesson.names

    def model(self) -> tuple[MCOENet, ModelCard]:
        return self.resident, self.card

    def samples(self, model: object, train_mode: TrainMode) -> FeatureSamples:
        return self.lesson

    def method(self) -> ContinualMethod | None:
        """The method in this lesson; the resident model is what the round began from."""
        return self.kept.method(self.resident) if self.kept else None

    def tried(self, model: object, train_mode: TrainMode) -> FeatureSamples:
        return self.lesson


@dataclass
class _Device:
    """What a device keeps, the most bytes that it ever was, and how many of its updates went into no model."""

    kept: Retention | None
    most: int = 0
    rejected: int = 0


def learn_in_rounds(
    base: MCOENet,
    card: ModelCard,
    known: Known,
    streams: Sequence[DeviceStream],
    learners: Mapping[str, Sequence[DeviceStream]],
    method: MethodSettings | OwnMethod,
    *,
    rule: str,
    limit_bytes: int,
    recipe: FineTuneSettings,
    lesson_clips: int,
    exact: bool,
    seed: int,
) -> list[Learned]:
    """Learn all streams from the base, which stays as it is; what came of each, in their order.

    ``learners`` are the devices that learn a stream, by its name; ``card`` is the base's. A stage is over for everybody
    at once, and the model of its last round is asked then. ``joint`` begins every stage from the base, in as many
    rounds as a lesson has epochs: in each round every device learns all its clips so far, once. So its last model was
    shown each clip as often as any method shows it.
    Raises SettingsError when a method keeps more than ``limit_bytes``, DiskFull when the rounds find no room.
    """
    devices = [one for stream in streams for one in learners[stream.device]]
    joint = is_joint(method)
    settings = RoundSettings(replace(recipe, epochs=1) if joint else recipe, rule=rule, seed=seed)
    fleet = {one.device: _Device(begin(method, copy.deepcopy(base), limit_bytes, in_rounds=True)) for one in devices}
    model = copy.deepcopy(base)
    questions = [Questions.of(stream, known) for stream in streams]
    found = [predict(model, known, questions, exact)]
    with TemporaryDirectory(prefix="mcoe-rounds-") as folder, ExitStack() as databases:
        for stage in range(len(streams[0].stages)):
            if joint:
                settings = replace(settings, seed=stream_seed(seed, "joint", stage))
                rounds = [_so_far(devices, stage)] * recipe.epochs
            else:
                rounds = cohorts(devices, stage, lesson_clips)
            if joint or stage == 0:
                engine = _engine(Path(folder) / f"from-{stage}", base, card, settings, fleet)
                databases.callback(engine.registry.engine.dispose)
            for cohort in rounds:
                _hold(engine, cohort, fleet, model, card, known, limit_bytes)
            copy_weights(model, engine.artifacts.get(str(engine.registry.newest_model()))[0])
            found.append(predict(model, known, questions, exact))
    results = []
    for asked, said, stream in zip(questions, zip(*found, strict=True), streams, strict=True):
        mine = [fleet[one.device] for one in learners[stream.device]]
        most, rejected = max(one.most for one in mine), sum(one.rejected for one in mine)
        results.append(Learned(asked, np.stack(said), most, rejected))
    return results


def cohorts(devices: Sequence[DeviceStream], stage: int, lesson_clips: int) -> list[Cohort]:
    """The rounds of a stage: in each, everybody's next lesson; who has none left in this stage sits out."""
    cut = {one.device: lessons(one.stages[stage], lesson_clips) for one in devices}
    rounds = max(len(parts) for parts in cut.values())
    return [{name: parts[number] for name, parts in cut.items() if number < len(parts)} for number in range(rounds)]


def check_cohorts(learners: Mapping[str, Sequence[DeviceStream]], lesson_clips: int, rule: str) -> None:
    """Raises TooFewSubjects when in some round there are fewer devices than the rule can work with."""
    devices = [one for several in learners.values() for one in several]
    needed = RULES[rule].least(RuleSettings())
    for stage in range(len(devices[0].stages)):
        for number, cohort in enumerate(cohorts(devices, stage, lesson_clips), 1):
            if len(cohort) < needed:
                raise TooFewSubjects(
                    f"rule {rule} needs {needed} devices, and round {number} of stage {stage + 1} has {len(cohort)} "
                    "with a lesson left; add subjects, or use another --rule"
                )


def _so_far(devices: Sequence[DeviceStream], stage: int) -> Cohort:
    """Everybody with clips in the stages so far, and all of these."""
    clips = {one.device: tuple(c for part in one.stages[: stage + 1] for c in part.learned) for one in devices}
    return {name: learned for name, learned in clips.items() if learned}


def _engine(
    folder: Path, base: MCOENet, card: ModelCard, settings: RoundSettings, clients: Mapping[str, _Device]
) -> RoundEngine:
    """A round engine that begins from the base and knows the clients."""
    folder.mkdir()
    registry = Registry(open_database(sqlite_url(folder / "registry.sqlite")), "continual")
    engine = RoundEngine(registry, Artifacts(folder / "models"), folder / "spool", settings)
    engine.start_from(tensors_of(base), card)
    for client in clients:
        registry.saw(CheckIn(client, 0))
    return engine


def _hold(
    engine: RoundEngine,
    cohort: Cohort,
    fleet: Mapping[str, _Device],
    model: MCOENet,
    card: ModelCard,
    known: Known,
    limit_bytes: int,
) -> None:
    """One round. One resident ``model`` serves all devices: each task overwrites what is trained of it."""
    current = engine.open(list(cohort))
    payload = Payload.of(current.payload)
    refused = set[str]()
    for name, clips in cohort.items():
        device, lesson = fleet[name], known.learned(clips)
        kept = device.kept
        if isinstance(kept, Remembered):
            copy_weights(model, payload.tensors)
            kept = kept.begins_from(model)
        learned = learn(LessonStore(name, model, card, lesson, kept), current.task, payload)
        if kept:
            lightings = [known.lightings[clip] for clip in clips]
            device.kept = within(kept.after(model, lesson, lightings), limit_bytes)
            device.most = max(device.most, device.kept.size_bytes)
        reply = Reply(name, learned.update, learned.meta.to_record(), learned.report.to_record())
        if isinstance(engine.receive(current, reply), Rejected):
            device.rejected += 1
            refused.add(name)
    if engine.finish(current) is None:  # abandoned: what was learned in it is in no model
        for name in cohort.keys() - refused:
            fleet[name].rejected += 1
