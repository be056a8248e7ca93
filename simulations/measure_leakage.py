"""What router statistics tell the server of a wearer, at each level of coarseness: the leakage study's command.

Three tables. How far the expert load separates lightings, emotions and subjects, under the base and under the last
round's model. What an attacker tells of a client: how far off the guessed mix of emotions is (half the sum of absolute
differences, 0 to 1), how often the most frequent emotion and the lighting are guessed right, and how all three compare
with a guess without seeing anything. What each level costs in WAR where an aggregation rule uses the statistics.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mcoe_model.errors import SettingsError
from mcoe_model.files import write_json
from mcoe_model.names import LIGHTINGS
from mcoe_model.networks.presets import config_of
from mcoe_model.workers import one_thread
from simulations import coarse_rule, leakage, leakage_tables
from simulations.answers import Answers, answers_of
from simulations.command import command, make_parser, read_request
from simulations.console import Crew, Display
from simulations.experiment import evaluate_all, published, run_rounds
from simulations.leakage_tables import Found, Separations
from simulations.load_separation import Shown, separate
from simulations.scene import Paths, Scene, open_scene
from simulations.settings import SimulationSettings
from simulations.tables import write_csv
from simulations.variants import begin_study, run_base

#: Rounds that an attacker sees.
SEEN = (1, 10)
#: What a rule knows of a client's statistics -> the rule: the server's default, and what is left of it.
RULES_AT = {
    "exact": "expert-weighted-mean",
    "four bins": f"{coarse_rule.__file__}:{coarse_rule.FourBins.__name__}",
    "experts sent": "weighted-mean",
}
#: Settings that this study decides.
DECIDED = (
    *("seed", "grid", "fold", "baselines", "train", "batch_norm", "rounds"),
    *("partition", "alpha", "local_method"),
)
EXAMPLES = """
Examples:

  python simulations/measure_leakage.py --seeds 0 1 2
"""
UPDATE = "the update itself"
#: Clients whose updates a worker makes at a time.
BATCH = 20

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """What the attacker wants to know, by clip of the data set."""

    emotion: dict[int, int]
    lighting: dict[int, int]

    @staticmethod
    def of(scene: Scene) -> Truth:
        records = dict(enumerate(scene.clips.records))
        lighting = {clip: LIGHTINGS.index(record.lighting) for clip, record in records.items()}
        return Truth({clip: record.class_index for clip, record in records.items()}, lighting)

    def mixes(self, clients: Sequence[leakage.Client], rounds: int) -> Floats:
        """(P, c) the shares of emotions in the clips of the first rounds."""
        return np.stack([client.mix(self.emotion, rounds) for client in clients])

    def lightings(self, clients: Sequence[leakage.Client]) -> NDArray[np.int64]:
        """(P,) the lighting of each client's first clip."""
        return np.array([self.lighting[int(client.clips[0, 0])] for client in clients])

    def judge(self, guessed: leakage.Guesses, clients: Sequence[leakage.Client], rounds: int) -> dict[str, Floats]:
        """Measure -> error or hit of every client (P,)."""
        mix = self.mixes(clients, rounds)
        off = np.abs(guessed.mix - mix).sum(axis=1) / 2
        most = mix[np.arange(len(mix)), guessed.mix.argmax(axis=1)] == mix.max(axis=1)
        hits = guessed.lighting == self.lightings(clients)
        return {"mix_off": off, "most_frequent": most.astype(float), "lighting": hits.astype(float)}


def main(arguments: list[str] | None = None) -> None:
    """Run rounds, let an attacker learn from people of his own, and say what he can tell of the clients.

    Raises SettingsError for people who would be on both sides, no clients or a model without experts, and as
    `read_request`.
    """
    parser = make_parser("measure_leakage.py", __doc__ or "", EXAMPLES, leave_out=DECIDED)
    parser.add_argument("--seeds", type=int, nargs="+", help="one run each, pooled [0]")
    parser.add_argument("--clients", type=int, help=f"clients made of each person [{leakage.CLIENTS_OF_EACH}]")
    request = read_request(parser, arguments, own={"seeds": [0], "clients": leakage.CLIENTS_OF_EACH})
    if request is None:
        return
    settings, each = replace(request.settings, train="head", rounds=max(SEEN)), request.own["clients"]
    if settings.data and settings.protocol == "published":
        raise SettingsError(["--protocol published has the same people on both sides; leave it out"])
    if each < 1:
        raise SettingsError([f"--clients must be at least 1, not {each}"])
    if not config_of(settings.preset).experts:
        raise SettingsError([f"--model {settings.model} has no experts, and so nothing that a router would tell"])
    display = Display(Console(stderr=request.as_json))
    if not request.resumed:
        begin_study(request.settings, request.folder, request.own)
    one_thread()
    with display.live():
        crew = Crew(settings.processes, display)
        try:
            found = [
                _of_seed(replace(settings, seed=seed), request.folder / f"seed-{seed}", each, crew, display)
                for seed in request.own["seeds"]
            ]
        finally:
            crew.close()
    rows = leakage_tables.rows(found)
    summary = {"data": settings.data or "synthetic", **request.own, **rows}
    write_json(request.folder / "summary.json", summary)
    for name, of_table in rows.items():
        write_csv(request.folder / f"{name}.csv", of_table)
    for table in leakage_tables.tables(rows):
        display.console.print(table)
    if request.as_json:
        print(json.dumps(summary))


def _of_seed(settings: SimulationSettings, folder: Path, each: int, crew: Crew, display: Display) -> Found:
    with display.within(f"seed {settings.seed},"):
        run_base(settings, folder, crew, display)
        run_rounds(crew, folder, display)
        separations = _separations(folder, crew)
        victims, attackers = _attack(folder, each, crew)
    answers = {}
    for level, rule in RULES_AT.items():
        with display.within(f"seed {settings.seed}, aggregated with statistics {level!r},"):
            again = replace(settings, base=str(Paths(folder).base), rule=rule)
            answers[level] = _answers(again, folder / "cost" / level.replace(" ", "-"), crew, display)
    return Found(separations, victims, attackers, answers)


def _separations(folder: Path, crew: Crew) -> Separations:
    """How far the clients' clips, each routed once, are separated by what they show."""
    scene = open_scene(folder)
    clips = scene.indices("clients")
    shown = Shown.of([scene.clips.records[clip] for clip in clips])
    models = {"base": Paths(folder).base, "last round": [*published(folder).values()][-1]}
    jobs = {name: crew.pool.submit(leakage.route, folder, path, clips) for name, path in models.items()}
    found: Separations = {}
    for model, job in jobs.items():
        gate, chosen = job.result()
        load = np.eye(gate.shape[1])[chosen].mean(axis=1)  # (N, E) the shares of a clip's choices
        for routed, vectors in {"load": load, "gate": gate}.items():
            apart = separate(vectors, shown, seed=scene.settings.seed)
            found |= {(model, routed, what): one for what, one in apart.items()}
    return found


def _attack(folder: Path, each: int, crew: Crew) -> tuple[tuple[str, ...], dict[str, dict[str, Floats]]]:
    """Whose clients the victims are, and attacker -> measure -> error or hit of each."""
    truth, most = Truth.of(open_scene(folder)), max(SEEN)
    shadows = leakage.make_clients(folder, leakage.SHADOWS, most, each)
    victims = leakage.make_clients(folder, (leakage.VICTIMS,), most, each)
    people, lighting = [client.subject for client in shadows], truth.lightings(shadows)
    seen = _seen(folder, (shadows, victims), crew)
    result = {}
    for rounds in SEEN:
        mixes = truth.mixes(shadows, rounds)
        blind = leakage.guess_without(mixes, lighting, len(victims))
        result[f"nothing, {_said(rounds)}"] = truth.judge(blind, victims, rounds)
        for name, sides in seen.items():
            own, wanted = (_over_rounds(name, side[:, :rounds]) for side in sides)
            guessed = leakage.guess(own, mixes, lighting, people, wanted)
            result[f"{name}, {_said(rounds)}"] = truth.judge(guessed, victims, rounds)
    seed = open_scene(folder).settings.seed
    return tuple(f"{seed}/{client.subject}" for client in victims), result


def _seen(folder: Path, sides: Sequence[Sequence[leakage.Client]], crew: Crew) -> dict[str, list[Floats]]:
    """Attacker -> what he sees of his own clients and of his victims, (P, R, F) each."""
    asked = leakage.rounds_asked(folder)[: max(SEEN)]
    updates = [
        [crew.pool.submit(leakage.update_features, folder, asked, side[begin : begin + BATCH])
         for begin in range(0, len(side), BATCH)]
        for side in sides
    ]  # fmt: skip
    clips = sorted({int(clip) for side in sides for client in side for clip in client.clips.reshape(-1)})
    places = {clip: place for place, clip in enumerate(clips)}
    routed = [job.result() for job in [crew.pool.submit(leakage.route, folder, one.model, clips) for one in asked]]
    seen = {
        name: [leakage.statistics_features(side, routed, places, level) for side in sides]
        for name, level in leakage.LEVELS.items()
    }
    return seen | {UPDATE: [np.concatenate([job.result() for job in jobs]) for jobs in updates]}


def _over_rounds(name: str, features: Floats) -> Floats:
    """(P, F) of an update's mean over R rounds, or (P, R x F) of statistics side by side, from (P, R, F)."""
    return features.mean(axis=1) if name == UPDATE else features.reshape(len(features), -1)


def _answers(settings: SimulationSettings, folder: Path, crew: Crew, display: Display) -> Answers:
    """What the model of the last round says of the test subjects' clips."""
    run_base(settings, folder, crew, display)
    run_rounds(crew, folder, display)
    last = f"round-{settings.rounds}"
    evaluate_all(crew, folder, "evaluate on test", [(last, "test", published(folder)[last])])
    return answers_of(open_scene(folder), [last], "test")


def _said(rounds: int) -> str:
    return f"{rounds} round{'s' if rounds > 1 else ''}"


if __name__ == "__main__":
    command(main)
