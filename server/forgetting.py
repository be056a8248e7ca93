"""Forgetting a client to the end: what lies beside the registry goes too, whatever is killed or locked meanwhile.

An errand is written down inside the registry's transaction, just before it commits. Whoever finds it later knows by the
registry whether the client was deleted, and then clears the rest; every step may be repeated.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from mcoe_model.errors import McoeError, ServerRuns
from mcoe_model.files import read_json, write_json
from server.lock import hold
from server.paths import ServerPaths
from server.registry import Registry
from server.registry.database import scrub
from server.registry.privacy import Receipt
from server.superlink.database import compact, remove_nodes
from server.under_way import leave_out

#: Seconds that a transaction may take to commit once its errand is written.
COMMIT_S = 60.0
#: Days for which a wearable that did not hear its receipt may ask for it again.
ANSWERED_DAYS = 90

log = logging.getLogger("mcoe")


def write_errand(paths: ServerPaths, experiment: str, public_key: str | None, receipt: Receipt) -> None:
    """Write down what is to be cleared of a client whose rows are being deleted. Raises DiskFull."""
    name = f"{receipt.time:%Y-%m-%dT%H-%M-%S}-{secrets.token_hex(4)}.json"
    errand = {
        "client_id": receipt.client_id,
        "experiment": experiment,
        "public_key": public_key,
        "update_ids": list(receipt.update_ids),
        "receipt": receipt.plain(),
    }
    write_json(paths.errands / name, errand)


def run_errands(paths: ServerPaths, registry: Engine) -> None:
    """Clear what errands name. One that cannot be finished now, as when a database is locked, waits for the next."""
    for errand in sorted(paths.errands.glob("*.json")):
        try:
            _run(paths, registry, errand)
        except (McoeError, OSError, json.JSONDecodeError) as fault:
            log.warning("what is left of a client that was forgotten will be cleared later: %s", fault)
    for answered in paths.answered.glob("*.json"):
        with suppress(FileNotFoundError):
            if time.time() - answered.stat().st_mtime > ANSWERED_DAYS * 86_400:
                answered.unlink()


def receipt_for(paths: ServerPaths, registry: Engine, public_key: str) -> dict[str, Any] | None:
    """The receipt that was issued to whoever held this key and was forgotten; None for others, and after a while."""
    run_errands(paths, registry)  # it may have been deleted a moment ago
    try:
        return dict(read_json(paths.receipts / read_json(_answer(paths, public_key))["receipt"]))
    except FileNotFoundError:
        return None


def _run(paths: ServerPaths, registry: Engine, file: Path) -> None:
    try:
        errand = read_json(file)
    except FileNotFoundError:  # another process was faster
        return
    client_id, experiment = str(errand["client_id"]), str(errand["experiment"])
    if Registry(registry, experiment).knows(client_id):
        if time.time() - file.stat().st_mtime > COMMIT_S:  # nothing was deleted
            file.unlink(missing_ok=True)
        return
    write_json(paths.receipts / file.name, errand["receipt"])
    if errand["public_key"] is not None:
        write_json(_answer(paths, str(errand["public_key"])), {"receipt": file.name})
    for update_id in errand["update_ids"]:
        for path in paths.spool.rglob(f"{update_id}.safetensors"):
            path.unlink(missing_ok=True)
    with suppress(ServerRuns), hold(paths.lock_of(experiment), ""):  # a running coordinator does it itself
        leave_out(paths.under_way_of(experiment), client_id)
    if errand["public_key"] is not None:
        remove_nodes(paths.superlink, [str(errand["public_key"])])
    compact(paths.superlink)
    scrub(registry)
    file.unlink(missing_ok=True)


def _answer(paths: ServerPaths, public_key: str) -> Path:
    """The file that says which receipt is for who holds a key; of the key it has a hash alone."""
    return paths.answered / f"{hashlib.sha256(public_key.encode()).hexdigest()}.json"
