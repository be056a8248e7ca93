"""The server's processes besides the one that supervises them: SuperLink, coordinator and dashboard.

    python -m server.children superlink|coordinator|dashboard DIR

They find everything in the data folder; `mcoe-server start` wrote there what it was told.
"""

from __future__ import annotations

import datetime
import json
import logging
import secrets
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mcoe_model.errors import McoeError
from mcoe_model.files import write_bytes
from mcoe_model.workers import end_with_parent
from server.acceptance import Rejected
from server.aggregation.private_mean import SECRET_BYTES
from server.app import Coordinator, Event, Policy, ReplyJudged, RoundEnded, RoundOpened, Waiting
from server.dashboard.serve import serve_dashboard
from server.delivery import news_for
from server.device_routes import PREFIX, device_routes
from server.evaluation import EvaluationGate
from server.fleet import Fleet, open_fleet
from server.presence import Presence
from server.rounds import RoundEngine, RoundSettings
from server.settings import ServerPaths, ServerSettings, read_running
from server.superlink.control import Control
from server.superlink.process import SuperLink, serve
from server.superlink.run import run_grid

#: Seconds between two questions to a node that stays online: how many clips it has, what its outbox holds.
ASK_AGAIN_S = 60.0
#: Seconds after which a question counts as lost: a client answers only once its training is done.
LOST_S = 900.0

log = logging.getLogger("mcoe")


def superlink_of(paths: ServerPaths, settings: ServerSettings) -> SuperLink:
    """The SuperLink of a data folder."""
    return SuperLink(
        paths.certificates, paths.superlink, paths.secret, settings.host, settings.port, settings.local_port
    )


def run_superlink(paths: ServerPaths, settings: ServerSettings) -> None:
    """Serve wearables until SIGTERM; Flower's database is made to agree with the registry at the start."""
    superlink = superlink_of(paths, settings)
    fleet = open_fleet(paths, settings)
    threading.Thread(target=_register_when_up, args=(fleet,), daemon=True).start()
    serve(superlink, device_routes(fleet, paths.certificates / "ca.crt", enrolment=settings.enrolment), PREFIX)


def run_dashboard(paths: ServerPaths, settings: ServerSettings) -> None:
    """Serve the operator's pages on loopback until SIGTERM."""
    serve_dashboard(paths, settings, settings.dashboard_port, settings.webhook)


def _register_when_up(fleet: Fleet) -> None:
    while True:
        try:
            changes = fleet.register_members()
        except Exception as fault:  # not listening yet
            log.debug("the SuperLink does not answer yet: %s", fault)
            time.sleep(0.2)
            continue
        if changes:
            log.info("registered or removed %d nodes in Flower's database", changes)
        return


def run_coordinator(paths: ServerPaths, settings: ServerSettings) -> None:
    """Run rounds for ever, each Flower run taken from the SuperLink of this folder, until SIGTERM."""
    fleet = open_fleet(paths, settings)
    newest = fleet.registry.newest_model()
    assert newest is not None, "`mcoe-server start` checks that there is a model"
    _, card = fleet.artifacts.get(newest)
    rounds = RoundSettings(
        fine_tune=settings.fine_tune,
        train_mode=settings.train,
        rule=settings.rule,
        rule_settings=settings.rule_settings,
        quorum=settings.quorum,
        seed=settings.seed,
        keep_updates=settings.keep_updates,
        private=settings.private_mode,
    )
    engine = RoundEngine(fleet.registry, fleet.artifacts, paths.spool, rounds, card.generation.top_k)
    if settings.private:
        if not paths.noise_secret.exists():
            write_bytes(paths.noise_secret, secrets.token_bytes(SECRET_BYTES))
        engine.secret = paths.noise_secret.read_bytes()
    if settings.evaluation_set:
        data, cache = Path(settings.evaluation_set), paths.folder / "cache"
        engine.gate = EvaluationGate(fleet.registry, fleet.artifacts, data, cache, settings.evaluation_margin)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _when_up(fleet.control_address, stopped)
    if stopped.is_set():
        return
    control = Control(fleet.control_address)
    run = control.start_run()
    control.close()
    log.info("Flower run %d", run)
    with run_grid(fleet.control_address, paths.secret.read_bytes()) as grid:
        presence = Presence(
            grid,
            fleet.registry.saw,
            fleet.registry.client_of_node,
            news=lambda check_in: news_for(fleet.registry, check_in),
            again_s=ASK_AGAIN_S,
            lost_s=LOST_S,
        )
        policy = Policy(
            rounds=0,
            cohort=settings.cohort,
            over_select=settings.over_select,
            fair=True,
            min_clients=settings.min_clients,
            deadline_s=settings.deadline_s,
            pause_s=settings.pause_s,
        )
        floor = _disk_floor(paths.folder, settings.disk_floor_mb)

        def watch(event: Event) -> None:
            say(event)
            if isinstance(event, RoundEnded):
                fleet.registry.prune(datetime.datetime.now(datetime.UTC), settings.retention_days)

        Coordinator(presence, engine, policy, settings.seed, watch, floor, stopped).run()


def _when_up(address: str, stopped: threading.Event) -> None:
    """Wait until the SuperLink answers."""
    while not stopped.is_set():
        control = Control(address)
        try:
            control.nodes()
            return
        except Exception as fault:
            log.debug("the SuperLink does not answer yet: %s", fault)
            stopped.wait(0.2)
        finally:
            control.close()


def _disk_floor(folder: Path, floor_mb: int) -> Callable[[], bool]:
    said = False

    def enough() -> bool:
        nonlocal said
        free = shutil.disk_usage(folder).free >> 20
        if free < floor_mb and not said:
            log.warning("%d MB are free in %s, a round needs %d; none opens until there are", free, folder, floor_mb)
        said = free < floor_mb
        return not said

    return enough


def say(event: Event) -> None:
    """One line of the log for each event."""
    match event:
        case Waiting(present, needed):
            log.info("waiting: %d clients with clips are present, %d are needed", present, needed)
        case RoundOpened(number, cohort, waiting):
            log.info("round %d: %d of %d clients to be heard", number, waiting, cohort)
        case ReplyJudged(number, client, Rejected(reason)):
            log.warning("round %d: %s rejected: %s", number, client, reason)
        case ReplyJudged(number, client, _):
            log.info("round %d: %s accepted", number, client)
        case RoundEnded(number, None):
            log.warning("round %d: abandoned", number)
        case RoundEnded(number, sha256):
            log.info("round %d: published model %s", number, str(sha256)[:12])


def main() -> None:
    """Run the child that the command line names."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    log.setLevel(logging.INFO)
    end_with_parent()
    kind, folder = sys.argv[1], ServerPaths(Path(sys.argv[2]))
    try:
        kinds = {"superlink": run_superlink, "coordinator": run_coordinator, "dashboard": run_dashboard}
        kinds[kind](folder, read_running(folder))
    except McoeError as fault:
        print(json.dumps({"error": str(fault)}), file=sys.stderr)
        sys.exit(fault.exit_code)


if __name__ == "__main__":
    main()
