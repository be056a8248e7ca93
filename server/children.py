"""The server's processes besides the one that supervises them: SuperLink, coordinator and dashboard.

    python -m server.children superlink|dashboard DIR
    python -m server.children coordinator DIR EXPERIMENT

They find everything in the data folder; `mcoe-server start` wrote there what it was told. Each experiment has its own
coordinator, all of them share the others. What one of them alone needs is imported where it begins: a second of
processor time and tens of megabytes that the others do not take.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mcoe_model.errors import McoeError
from mcoe_model.files import write_bytes
from mcoe_model.workers import end_with_parent
from server.acceptance import Rejected
from server.aggregation.private_mean import SECRET_BYTES
from server.app import Coordinator, Event, Policy, ReplyJudged, RoundEnded, RoundOpened, Waiting
from server.delivery import news_for
from server.evaluation import EvaluationGate
from server.experiments import Experiments, open_experiments
from server.fleet import open_fleet
from server.forgetting import run_errands
from server.lock import hold
from server.paths import ServerPaths
from server.presence import Presence
from server.refusals import WRITE_S, Refusals
from server.registry import Registry, utc_now
from server.registry.models import CANDIDATE
from server.rounds import RoundEngine
from server.settings import ServerSettings
from server.settings_file import read_running
from server.superlink.control import Control
from server.superlink.database import Compaction
from server.superlink.run import run_grid
from server.trials import Trials
from server.trusted import TrustedTrainer
from server.under_way import UnderWay

if TYPE_CHECKING:
    from server.superlink.process import SuperLink

#: Seconds between two questions to a node that stays online: how many clips it has, what its outbox holds.
ASK_AGAIN_S = 60.0
#: Seconds after which a question counts as lost: a client answers only once its training is done.
LOST_S = 900.0
#: Seconds between two looks at what has passed the retention time.
DAY_S = 86400.0
#: Bytes that a reply may have beyond those of the newest model's file, which holds all that an update can.
REPLY_MARGIN = 1 << 20
#: Seconds between two looks for what is still to be cleared of clients that were forgotten.
ERRANDS_S = 60.0

log = logging.getLogger("mcoe")


def superlink_of(paths: ServerPaths, settings: ServerSettings) -> SuperLink:
    """The SuperLink of a data folder."""
    from server.superlink.process import SuperLink

    return SuperLink(
        paths.certificates,
        paths.superlink,
        paths.secret,
        settings.host,
        settings.port,
        settings.local_port,
        settings.fleet_per_minute,
        settings.fleet_body_mb << 20,
    )


def run_superlink(paths: ServerPaths, running: Sequence[ServerSettings]) -> None:
    """Serve wearables until SIGTERM; Flower's database is made to agree with the registry at the start."""
    from server.device_routes import PREFIX, device_routes
    from server.superlink.process import serve

    logging.getLogger("flwr").setLevel(logging.WARNING)  # else it says every request, twice
    settings = running[0]
    superlink = superlink_of(paths, settings)
    experiments = open_experiments(paths, running)
    refusals = Refusals()
    threading.Thread(target=_register_when_up, args=(experiments,), daemon=True).start()
    threading.Thread(target=_keep_refusals, args=(experiments, refusals), daemon=True).start()
    threading.Thread(target=_keep_compact, args=(experiments, running), daemon=True).start()
    threading.Thread(target=_end_when_renewed, args=(paths.certificates / "server.crt",), daemon=True).start()
    routes = device_routes(
        experiments,
        paths.certificates,
        paths.used_signatures,
        refusals.note,
        enrolment=settings.enrolment,
        forgetting=settings.forget_default,
    )
    serve(superlink, routes, PREFIX, refusals.note)
    experiments.record_refusals(refusals.take())


def run_dashboard(paths: ServerPaths, running: Sequence[ServerSettings]) -> None:
    """Serve the operator's pages on loopback until SIGTERM."""
    from server.dashboard.serve import serve_dashboard

    serve_dashboard(paths, running, running[0].dashboard_port, running[0].webhook)


def _register_when_up(experiments: Experiments) -> None:
    while True:
        try:
            changes = experiments.register_members()
        except Exception as fault:  # not listening yet
            log.debug("the SuperLink does not answer yet: %s", fault)
            time.sleep(0.2)
            continue
        if changes:
            log.info("registered or removed %d nodes in Flower's database", changes)
        return


def _keep_refusals(experiments: Experiments, refusals: Refusals) -> None:
    """Write once a minute who was refused. Never ends."""
    while True:
        time.sleep(WRITE_S)
        try:
            experiments.record_refusals(refusals.take())
        except Exception as fault:  # the next ones are written; nobody waits for these
            log.warning("who was refused in the last minute could not be recorded: %s", fault)


def _end_when_renewed(certificate: Path) -> None:
    """End this process when the server's certificate is another: it is started again, and then serves that one."""
    served = certificate.read_bytes()
    while True:
        time.sleep(2.0)
        with suppress(FileNotFoundError):
            if certificate.read_bytes() != served:
                log.info("the server's certificate was renewed; starting again with it")
                os.kill(os.getpid(), signal.SIGTERM)
                return


def _keep_compact(experiments: Experiments, running: Sequence[ServerSettings]) -> None:
    """Compact Flower's database when it has grown, and finish forgetting. Never ends."""
    fleet = next(iter(experiments.fleets.values()))
    compaction = Compaction(fleet.paths.superlink, running[0].compact_mb << 20)
    longest = max(LOST_S, *(settings.deadline_s for settings in running))
    look = time.monotonic()
    while True:
        time.sleep(1.0)
        try:
            if time.monotonic() >= look:
                look = time.monotonic() + ERRANDS_S
                run_errands(fleet.paths, fleet.registry.engine)
            if compaction.is_due(experiments.any_round_under_way):
                done = compaction.compact(time.time() - longest)
                log.info("Flower's database had %.1f MB and has %.1f now", done.before / 1e6, done.after / 1e6)
        except Exception as fault:  # it is tried again; nobody waits for it
            log.warning("Flower's database could not be compacted: %s", fault)
            time.sleep(60.0)


def run_coordinator(paths: ServerPaths, settings: ServerSettings) -> None:
    """Run an experiment's rounds until SIGTERM, in the Flower run of a coordinator that was killed or in a new one."""
    with hold(paths.lock_of(settings.experiment), f"another coordinator runs {settings.experiment}"):
        _coordinate(paths, settings)


def _coordinate(paths: ServerPaths, settings: ServerSettings) -> None:
    fleet = open_fleet(paths, settings)
    newest = fleet.registry.newest_model()
    assert newest is not None, "`mcoe-server start` checks that there is a model"
    spool = paths.spool_of(settings.experiment)
    engine = RoundEngine(fleet.registry, fleet.artifacts, spool, settings.round_settings, CANDIDATE)
    if settings.private:
        if not paths.noise_secret.exists():
            write_bytes(paths.noise_secret, secrets.token_bytes(SECRET_BYTES))
        engine.secret = paths.noise_secret.read_bytes()
    cache = paths.folder / "cache"
    engine.trainer = TrustedTrainer(fleet.artifacts, cache)
    gate = None
    if settings.evaluation_set:
        data = Path(settings.evaluation_set)
        gate = EvaluationGate(fleet.registry, fleet.artifacts, data, cache, settings.evaluation_margin)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _when_up(fleet.control_address, stopped)
    if stopped.is_set():
        return

    def largest() -> int:
        return fleet.artifacts.path(fleet.registry.newest_model() or newest).stat().st_size + REPLY_MARGIN

    secret, run_file = paths.secret.read_bytes(), paths.run_of(settings.experiment)
    retention = (fleet.registry, settings.retention_days, stopped)
    threading.Thread(target=keep_to_retention, args=retention, daemon=True).start()
    largest()  # raises where the model is gone, which is not to look like a start
    works = hold(paths.at_work(settings.experiment), f"another coordinator runs {settings.experiment}")
    with works, run_grid(fleet.control_address, secret, run_file, largest) as grid:
        presence = Presence(
            grid,
            fleet.registry.saw_member,
            fleet.registry.client_of_node,
            news=lambda check_in: news_for(fleet.registry, check_in),
            offer=fleet.registry.offer,
            again_s=ASK_AGAIN_S,
            lost_s=LOST_S,
            check_ins=settings.check_ins,
            speaks_other=fleet.registry.saw_other_protocol,
            note_health=fleet.registry.note_health,
            lied=lambda client: fleet.registry.audit("check-in refused", client, "its node said that it is another"),
        )
        policy = Policy(
            rounds=0,
            cohort=settings.cohort,
            over_select=settings.over_select,
            fair=True,
            opening=settings.opening,
            deadline_s=settings.deadline_s,
            pause_s=settings.pause_s,
            max_in_flight=settings.max_in_flight,
        )
        trials = Trials(
            presence,
            fleet.registry,
            fleet.artifacts,
            settings.release_policy,
            settings.train,
            gate,
            settings.deadline_s,
            settings.max_in_flight,
        )
        floor = disk_floor(paths.folder, settings.disk_floor_mb)

        def under_way(name: str) -> UnderWay:
            return UnderWay(paths.under_way_of(settings.experiment), grid.run_id, name)

        Coordinator(presence, engine, policy, settings.seed, say, floor, stopped, under_way, trials.step).run()


def keep_to_retention(registry: Registry, days: int, stopped: threading.Event) -> None:
    """Delete what has passed the retention time, now and daily until ``stopped``: an idle server keeps it no longer."""
    pause = 0.0
    while not stopped.wait(pause):
        try:
            registry.prune(utc_now(), days)
            pause = DAY_S
        except Exception as fault:  # it is tried again; rounds do not wait for it
            log.warning("what has passed the retention time could not be deleted: %s", fault)
            pause = 60.0


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


def disk_floor(folder: Path, floor_mb: int) -> Callable[[], str | None]:
    """Says why no round may open on the disk of this folder, if fewer than so many MB are free."""

    def obstacle() -> str | None:
        enough = shutil.disk_usage(folder).free >> 20 >= floor_mb
        return None if enough else f"less than {floor_mb} MB are free in {folder}, which a round needs"

    return obstacle


def say(event: Event) -> None:
    """One line of the log for each event."""
    match event:
        case Waiting(reason):
            log.info("waiting: %s", reason.partition(" (present:")[0])  # `status` names them, and can forget
        case RoundOpened(number, cohort, waiting):
            log.info("round %d: %d of %d clients to be heard", number, waiting, cohort)
        case ReplyJudged(number, _, Rejected(reason)):  # whose it was is in the registry, which can forget
            log.warning("round %d: a reply rejected: %s", number, reason)
        case ReplyJudged(number, _, _):
            log.info("round %d: a reply accepted", number)
        case RoundEnded(number, None):
            log.warning("round %d: abandoned", number)
        case RoundEnded(number, sha256):
            log.info("round %d: published model %s", number, str(sha256)[:12])


def main() -> None:
    """Run the child that the command line names."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    log.setLevel(logging.INFO)
    end_with_parent()
    kind, paths = sys.argv[1], ServerPaths(Path(sys.argv[2]))
    try:
        running = read_running(paths)
        if kind == "coordinator":
            run_coordinator(paths, next(settings for settings in running if settings.experiment == sys.argv[3]))
        else:
            {"superlink": run_superlink, "dashboard": run_dashboard}[kind](paths, running)
    except McoeError as fault:
        print(json.dumps({"error": str(fault)}), file=sys.stderr)
        sys.exit(fault.exit_code)


if __name__ == "__main__":
    main()
