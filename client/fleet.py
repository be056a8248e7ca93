"""A wearable's part in its fleet: `python -m client.fleet DIR` stays a member until SIGTERM.

What `mcoe-client --device none` runs, and beside a camera a child of its main process.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from client.app import make_client_app
from client.check_in_gates import CheckInGates, CheckInRules
from client.child_process import no_core_dump
from client.enrolment import (
    ClientPaths,
    Membership,
    ReportedLost,
    ask_newest,
    download_model,
    read_membership,
    refresh_authorities,
)
from client.folder_store import FolderStore
from client.health import read_health
from client.keys import DeviceKey, make_keyfile, read_keyfile
from client.learner import ClipStore
from client.node import Connection, Node
from client.offers import Offers
from client.outbox import Outbox
from client.own_models import settle_own_models
from client.radio import Radio
from client.running import Running
from client.session_clips import SessionClips, take_clips
from client.settings import load_settings
from client.told import ToldFile
from client.traffic import Traffic
from mcoe_model.errors import EnrolmentRefused, McoeError, ServerUnreachable, for_log
from mcoe_model.workers import end_with_parent, one_thread

#: Seconds between two tries to reach a server from which nothing has come yet.
RETRY_S = 5.0
_LOST = "the server refused: this wearable was reported lost"
#: Seconds between two looks whether what stands still may go on.
_WATCH_S = 0.2


@dataclass(frozen=True)
class Keys:
    """What updates are sealed with, and the lesson book."""

    outbox: bytes
    lessons: bytes

    @staticmethod
    def of(device: DeviceKey) -> Keys:
        return Keys(device.derive("outbox"), device.derive("lessons"))


def run_fleet(
    paths: ClientPaths,
    rules: CheckInRules,
    keys: Keys | None = None,
    recording: Callable[[], bool] = lambda: False,
    *,
    labels: bool = True,
) -> None:
    """Carry the fleet's messages and do its tasks until SIGTERM or SIGINT, while its gates are open.

    ``keys`` hang from the device key; by default from one without a passphrase, made at the first run.
    ``recording`` is whether a recording runs; ``labels``, whether the wearer agrees to the use of what was labelled.

    Raises DataMissing for a wearable that has not joined, DataInvalid, Locked, EnrolmentRefused, and ReportedLost for
    one that the server says is lost, which is kept in ``paths.told``; nothing is deleted.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    no_core_dump()
    one_thread()
    membership = read_membership(paths)
    if keys is None:
        device = read_keyfile(paths.device_key) if paths.device_key.exists() else make_keyfile(paths.device_key)
        logging.info("updates are sealed with a key in a file, which protects nothing once the device is lost")
        keys = Keys.of(device)
        settle_own_models(paths, keys.lessons)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    told, traffic = ToldFile(paths.told), Traffic(paths.traffic)
    if told.read().lost:  # it stays so, whether the server can be reached or not
        raise ReportedLost(_LOST)
    gates = CheckInGates(rules, traffic, recording)
    gates.say_unknown()
    try:
        model = _find_model(paths, membership, gates, stopped)
    except ReportedLost:
        told.hear_lost()
        raise
    except EnrolmentRefused as fault:
        told.hear_turned_away(str(fault))
        raise
    if model is None:
        return
    stand_still(recording)
    logging.info("reading the labelled clips; the first time takes a while")

    @lru_cache(maxsize=1)
    def store_of(model: Path) -> ClipStore:
        store: ClipStore
        if membership.clips:
            store = FolderStore(paths, membership.client_id, Path(membership.clips), membership.subject, model)
        else:
            store = SessionClips(paths, membership.client_id, model, keys.lessons, labels=labels)
        logging.info("%s has %d labelled clips", membership.client_id, len(store.clip_names()))
        return store

    store_of(model)
    running = Running(paths.running)
    if not running.read().runs:
        running.adopt(model.stem)
    offers = Offers(paths, running, model, keys.lessons, recording, labels=labels)
    offers.start()
    outbox = Outbox(paths.outbox, keys.outbox, lambda learned: take_clips(paths, keys.lessons, learned))
    connection = Connection(membership.address, paths.authority, paths.key, paths.folder)
    learns = make_client_app(
        lambda context: store_of(offers.resident),
        outbox,
        offers,
        told,
        lambda: read_health(paths, rules.system),
        [traffic.counted],
    )

    def clips() -> tuple[str, ...]:
        try:
            return store_of(offers.resident).clip_names()
        except (McoeError, OSError):  # the next check-in says so
            return ()

    radio = Radio(told, outbox, gates.look, clips)
    Node(connection, learns, stopped, lambda: _refresh(paths, membership, told, stopped), radio).run()
    if told.read().lost:
        raise ReportedLost(_LOST)


def stand_still(recording: Callable[[], bool]) -> RemovableHandle:
    """No network of this process computes while a recording runs: it waits before its next layer, and then goes on.

    Messages and heartbeats go on, so that the task is not given up. Until the handle is removed.
    """

    def wait(*_: object) -> None:
        while recording():
            time.sleep(_WATCH_S)

    return register_module_forward_pre_hook(wait)


def _refresh(paths: ClientPaths, membership: Membership, told: ToldFile, stopped: threading.Event) -> bool:
    """Whether the fleet's authorities changed. For a wearable that was reported lost it is the end of its part."""
    try:
        changed = refresh_authorities(paths, membership.address)
    except (McoeError, OSError) as fault:  # the connection that there is goes on
        logging.warning("the fleet's authorities cannot be looked at: %s", for_log(fault))
        return False
    if changed:
        logging.info("the fleet's authorities are others than before; connecting again")
    try:
        ask_newest(paths, membership.address)
    except ReportedLost:
        told.hear_lost()
        stopped.set()
    except EnrolmentRefused as fault:  # the server's words, of this wearable alone
        told.hear_turned_away(str(fault))
        logging.warning("%s", fault)
    except (McoeError, OSError) as fault:
        logging.warning("it is not known whether this wearable is a member: %s", for_log(fault))
    return changed


def _find_model(
    paths: ClientPaths, membership: Membership, gates: CheckInGates, stopped: threading.Event
) -> Path | None:
    """The fleet's newest model; while the server does not answer, the last one that is here, or wait for it.

    Any model of the generation will do: its backbones encode the clips, and a task brings the rest.
    """
    said = False
    while not gates.wait(stopped):
        try:
            refresh_authorities(paths, membership.address)
            return download_model(paths, membership.address)
        except ServerUnreachable as fault:
            resident = Running(paths.running).read().resident
            here = sorted(
                paths.models.glob("*.safetensors"), key=lambda path: (path.stem == resident, path.stat().st_mtime_ns)
            )
            if here:
                logging.warning("%s", fault)
                return here[-1]
            if not said:
                logging.warning("%s; trying again every %.0f s", fault, RETRY_S)
            said = True
            stopped.wait(RETRY_S)
    return None


def main() -> None:
    """`python -m client.fleet WEARER DIR`, a child: the first line of standard input has its keys, and whether the
    wearer agrees to labels.

    It and further lines say whether a recording runs. Any other, and the end of it, ends this process.
    """
    end_with_parent()
    said = json.loads(sys.stdin.readline())
    keys, recording = Keys(bytes.fromhex(said["outbox"]), bytes.fromhex(said["lessons"])), threading.Event()
    threading.Thread(target=_listen, args=(said, recording), daemon=True).start()
    try:
        rules = load_settings(Path(sys.argv[2]), {}).check_in_rules
        run_fleet(ClientPaths(Path(sys.argv[1])), rules, keys, recording.is_set, labels=said["labels"])
    except McoeError as fault:
        said = str(fault) if isinstance(fault, EnrolmentRefused) else for_log(fault)
        print(f"error: {said}", file=sys.stderr)
        sys.exit(fault.exit_code)


def _listen(said: dict[str, Any], recording: threading.Event) -> None:
    """Keep ``recording`` to what is said of it; whatever else is said, it is time to end."""
    try:
        while "recording" in said:
            (recording.set if said["recording"] else recording.clear)()
            said = json.loads(sys.stdin.readline() or "{}")
    finally:
        recording.clear()  # what stands still could not end
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
