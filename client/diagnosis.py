"""What a wearable tells of itself to whoever helps: a list of what may be said, and nothing else.

Every value is a number, a version, one of the words of this program, or a setting's; no text that a wearer, a camera or
a file system chose: neither names, codes, labels, paths, addresses, serials nor times of the day.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

from client.cameras.source import DeviceName
from client.control import ask
from client.doctor import CHECKS, Premises
from client.kept import kept_ids
from client.leaving import Leaving
from client.own_models import PLAIN, SEALED
from client.sessions import Store
from client.settings import ClientSettings, load_settings
from client.wearers import Wearers
from mcoe_model import __version__
from mcoe_model.errors import McoeError, SettingsError, WearableDown, for_log

_PACKAGES = ("torch", "numpy", "flwr", "sqlalchemy", "cryptography", "dv-processing")
#: Settings whose text is a choice of this program's; of others it is only said that they are set.
_CHOICES = ("language",)


def diagnosis(folder: Path, device: DeviceName) -> dict[str, Any]:
    """Everything that is told. Nothing is changed; what is broken is said as its kind of fault."""
    try:
        now: dict[str, Any] | None = ask(folder, "status")
    except McoeError:
        now = None
    try:
        settings = load_settings(folder, {})
        told = _changed(settings)
    except SettingsError as fault:
        settings, told = ClientSettings(), {"faults": len(fault.faults)}
    return {
        "bundle": 1,
        "versions": {"mcoe": __version__, "python": platform.python_version()} | _packages(),
        "platform": {"system": platform.system(), "kernel": _kernel(), "machine": platform.machine()},
        "settings": told,
        "doctor": _checked(Premises(folder, device, settings, now)),
        "runs": now is not None,
        "stage": now["stage"] if now else None,
        "last_exit_codes": _exit_codes(folder),
        "counts": _counted(folder, settings),
        "free_gb": round(shutil.disk_usage(folder).free / 1e9, 1) if folder.exists() else None,
    }


def _kernel() -> str:
    """Its numbers alone: whoever builds one names it."""
    return ".".join(re.findall("[0-9]+", platform.release())[:3])


def _packages() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _changed(settings: ClientSettings) -> dict[str, Any]:
    """The settings that are not as they come."""
    values = {one.name: getattr(settings, one.name) for one in fields(settings)}
    changed = {name: value for name, value in values.items() if value != getattr(ClientSettings(), name)}
    free = {name for name, value in changed.items() if isinstance(value, str) and name not in _CHOICES}
    return changed | dict.fromkeys(sorted(free), "(set)")


def _checked(premises: Premises) -> list[dict[str, str]]:
    """The doctor's lines without what they say; a check that cannot be made is said to have failed."""
    found = []
    for check in CHECKS:
        try:
            found += [{"check": finding.check, "state": finding.state} for finding in check(premises)]
        except Exception as fault:  # a helper wants to know of any
            found.append({"check": check.__name__, "state": "failed", "fault": for_log(fault)})
    return found


def _exit_codes(folder: Path) -> dict[str, int | None] | None:
    """With what the children ended last, None for one that has not; None as a whole while nothing runs."""
    try:
        return dict(ask(folder, "exit_codes"))
    except WearableDown:
        return None


def _counted(folder: Path, settings: ClientSettings) -> dict[str, Any]:
    """How many there are of what grows."""
    leaving = Leaving(folder)
    counts: dict[str, Any] = {"not_said_yet": len(leaving.waiting()), "receipts": len(leaving.receipts())}
    try:
        paths = Wearers(folder, finish=False).paths
        models = [path for path in paths.models.glob("[!.]*") if path.suffix in (PLAIN, SEALED)]
        counts |= {"outbox": len(kept_ids(paths.outbox)), "models": len(models)}
        if paths.store.exists():
            with closing(Store(paths.store, paths.recordings, settings.rules(), look=True)) as store:
                counts |= store.counts()
    except McoeError as fault:
        counts["fault"] = for_log(fault)
    return counts
