"""A run's rounds: registry, artifacts, spool and engine of the run's folder, served over a grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flwr.serverapp import Grid

from mcoe_model.model_file import read_model
from server.acceptance import Rejected
from server.app import Coordinator, Event, Policy, ReplyJudged, RoundEnded, RoundOpened
from server.presence import Presence
from server.registry import Registry
from server.registry.artifacts import Artifacts
from server.registry.database import open_database, sqlite_url
from server.rounds import RoundEngine, RoundSettings
from simulations.scene import open_scene

EXPERIMENT = "simulation"


def open_registry(folder: Path) -> Registry:
    """The registry of a run."""
    return Registry(open_database(sqlite_url(folder / "registry.sqlite")), EXPERIMENT)


def coordinate(
    grid: Grid,
    folder: Path,
    watch: Callable[[Event], None],
    poll: float = 0.5,
    engine_of: Callable[..., RoundEngine] = RoundEngine,
) -> None:
    """Run every round that is not yet published, looking for replies every ``poll`` seconds. Raises RoundFailed.

    ``engine_of`` makes the engine, for what compares the product's with others.
    """
    scene = open_scene(folder)
    settings = RoundSettings(
        fine_tune=scene.client_recipe("federated"),
        train_mode=scene.settings.train,
        rule=scene.settings.rule,
        rule_settings=scene.settings.rule_settings(),
        schedule=scene.settings.schedule,
        rounds=scene.settings.rounds,
        seed=scene.settings.seed,
        optimiser=scene.settings.optimiser,
    )
    engine = engine_of(open_registry(folder), Artifacts(scene.paths.models), scene.paths.spool, settings)
    engine.start_from(*read_model(scene.paths.base))
    policy = Policy(scene.settings.rounds, scene.settings.cohort, max_in_flight=len(scene.clips.records), poll_s=poll)
    Coordinator(Presence(grid, engine.registry.saw), engine, policy, scene.settings.seed, watch).run()


def say_events(event: Event) -> None:
    """Events as plain lines, for a log."""
    match event:
        case RoundOpened(number, cohort, waiting):
            print(f"round {number}: {waiting} of {cohort} clients to be heard", flush=True)
        case ReplyJudged(number, client, Rejected(reason)):
            print(f"round {number}: reply of {client} rejected: {reason}", flush=True)
        case RoundEnded(number, None):
            print(f"round {number}: abandoned", flush=True)
        case RoundEnded(number, sha256):
            print(f"round {number}: published model {str(sha256)[:12]}", flush=True)
        case _:
            pass
