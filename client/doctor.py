"""The check before a recording: everything that it needs, each with what to do where it is wrong. It changes nothing.

Whatever a machine does not tell is unknown, which is said and allowed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

from client import keys
from client.cameras.davis346 import NODES, SYSTEM, plugged
from client.cameras.source import DeviceName
from client.clock_state import ClockState, clock_state
from client.enrolment import ClientPaths, read_membership
from client.leaving import COME_BACK, Leaving, key_id
from client.settings import ClientSettings
from client.wearable.folders import SHARED_MEMORY, is_memory
from client.wearers import Wearers
from mcoe_model.errors import McoeError, ModelInvalid
from mcoe_model.model_file import file_sha256, read_model

State = Literal["ok", "unknown", "warning", "wrong"]

#: What a rule that lets users open the camera names (iniVation), and where such rules are.
_VENDOR = "152a"
_RULES = (Path("/etc/udev/rules.d"), Path("/lib/udev/rules.d"), Path("/usr/lib/udev/rules.d"))
#: Where Linux lists its swap, and a Jetson its version.
_SWAPS, _RELEASE = Path("/proc/swaps"), Path("/etc/nv_tegra_release")
#: Bytes of memory that segments and rings may need at a time.
_TMPFS_BYTES = 256 << 20
#: Days before its end that a certificate is warned of.
_EXPIRES_DAYS = 14


@dataclass(frozen=True)
class Finding:
    """One line. ``ok``; ``unknown``: this machine does not tell; ``warning``: it works; ``wrong``: it does not.

    ``remedy`` is empty where nothing is to be done.
    """

    check: str
    state: State
    what: str
    remedy: str = ""


@dataclass(frozen=True)
class Premises:
    """What is looked at. ``now``: the status of the main process, None when none runs."""

    folder: Path
    device: DeviceName
    settings: ClientSettings
    now: dict[str, Any] | None
    usb: Path = SYSTEM
    nodes: Path = NODES
    rules: Sequence[Path] = _RULES
    shared_memory: Path = SHARED_MEMORY
    swaps: Path = _SWAPS
    release: Path = _RELEASE
    clock: Callable[[], ClockState] = clock_state

    @property
    def paths(self) -> ClientPaths:
        return Wearers(self.folder, finish=False).paths


Check = Callable[[Premises], Iterator[Finding]]


def check_camera(premises: Premises) -> Iterator[Finding]:
    """Whether the camera is there, and on USB 3."""
    if premises.device.kind == "recording":
        there = premises.device.path is not None and premises.device.path.is_file()
        remedy = "" if there else "name a recording that exists: --device recording:FILE"
        yield Finding("camera", "ok" if there else "wrong", "a recording" if there else "no such file", remedy)
        return
    if premises.device.kind != "davis346":
        yield Finding("camera", "ok", f"{premises.device.kind}: nothing to plug in")
        return
    if importlib.util.find_spec("dv_processing") is None:
        yield Finding("camera", "wrong", "dv-processing is not installed", "pip install 'mcoe[capture]'")
    found = plugged(premises.usb, premises.nodes)
    cameras = [one for one in found if one.davis346]
    if not cameras:
        what = "another iniVation camera is there, no DAVIS346" if found else "no DAVIS346 at any USB port"
        yield Finding("camera", "wrong", what, "plug it in, with the cable that came with it; look at dmesg")
        return
    yield Finding("camera", "ok", "DAVIS346 is there")
    if cameras[0].usb3:
        yield Finding("usb 3", "ok", f"{cameras[0].mbits:.0f} Mbit/s")
    else:
        remedy = "use a USB 3 port and cable; at USB 2 events are lost when the eye moves fast"
        yield Finding("usb 3", "wrong", f"{cameras[0].mbits:.0f} Mbit/s", remedy)


def check_udev(premises: Premises) -> Iterator[Finding]:
    """Whether this user may open the camera; while none is there, whether there is a rule for that."""
    if premises.device.kind != "davis346":
        return
    cameras = [one for one in plugged(premises.usb, premises.nodes) if one.davis346]
    texts = [_read(path) for folder in premises.rules for path in folder.glob("*.rules")]
    if cameras and all(one.permitted for one in cameras):
        yield Finding("udev rule", "ok", "this user may open the camera")
    elif any(_VENDOR in text for text in texts):
        if cameras:
            remedy = "sudo udevadm control --reload-rules, plug it in again; be in the rule's group: groups"
            yield Finding("udev rule", "wrong", "there is one, but this user may not open the camera", remedy)
        else:
            yield Finding("udev rule", "ok", "there is one for iniVation's cameras")
    else:
        remedy = (
            f"sudo cp {Path(__file__).parent / 'deploy' / '65-inivation.rules'} /etc/udev/rules.d/ && "
            "sudo udevadm control --reload-rules && sudo udevadm trigger"
        )
        yield Finding("udev rule", "wrong", "no rule lets users open the camera", remedy)


def check_disk(premises: Premises) -> Iterator[Finding]:
    """Free space beside the floor, and what recordings take beside their quota."""
    there = next(place for place in (premises.folder, *premises.folder.absolute().parents) if place.exists())
    free, floor = shutil.disk_usage(there).free, premises.settings.disk_floor_gb * 1e9
    what = f"{free / 1e9:.1f} GB free, {floor / 1e9:.1f} GB stay free"
    remedy = "" if free > floor else "delete recordings on the page, or free the disk"
    yield Finding("disk", "ok" if free > floor else "wrong", what, remedy)
    used = sum(map(_bytes, premises.paths.recordings.rglob("*.sealed")))
    quota = premises.settings.quota_gb * 1e9
    remedy = "" if used < quota else "label or delete recordings; a new one is refused before"
    what = f"recordings take {used / 1e9:.1f} of {quota / 1e9:.1f} GB"
    yield Finding("quota", "ok" if used < quota else "wrong", what, remedy)


def check_memory(premises: Premises) -> Iterator[Finding]:
    """A tmpfs for what is not sealed yet, and no swap that would write it to a disk."""
    place = premises.shared_memory
    if not is_memory(place):
        yield Finding("tmpfs", "wrong", f"{place} is on a disk", f"mount -t tmpfs tmpfs {place}")
    elif shutil.disk_usage(place).free < _TMPFS_BYTES:
        what = f"{shutil.disk_usage(place).free >> 20} MiB free in {place}"
        yield Finding("tmpfs", "warning", what, f"mount -o remount,size=1G {place}")
    else:
        yield Finding("tmpfs", "ok", f"{shutil.disk_usage(place).free >> 20} MiB free in {place}")
    swaps = [line.split()[0] for line in _read(premises.swaps).splitlines()[1:]]
    disks = [name for name in swaps if not Path(name).name.startswith("zram")]
    if disks:
        what = f"{len(disks)} on a disk, which may come to hold pictures and keys"
        yield Finding("swap", "warning", what, "swapoff -a, or swap to zram only (the default of a Jetson)")
    else:
        yield Finding("swap", "ok", "none on a disk")


def check_clock(premises: Premises) -> Iterator[Finding]:
    """Whether something keeps the clock right."""
    state = premises.clock()
    if state == "unsynchronised":
        remedy = "connect it to a network once, or: sudo timedatectl set-ntp true"
        yield Finding("clock", "warning", "nothing keeps it right; times are written down as such", remedy)
    else:
        yield Finding("clock", "ok" if state == "synchronised" else "unknown", state)


def check_power(premises: Premises) -> Iterator[Finding]:
    """The Jetson's power mode, as it says itself."""
    lines = [line.strip() for line in (_said("nvpmodel", "-q") or "").splitlines() if line.strip()]
    if not lines:
        yield Finding("power mode", "unknown", "no nvpmodel here: not a Jetson, or not allowed to ask")
        return
    mode = next((line.split(":", 1)[1].strip() for line in lines if "Power Mode" in line), lines[0])
    yield Finding("power mode", "ok", mode, "sudo nvpmodel -m N chooses another; more power, more pictures a second")


def check_platform(premises: Premises) -> Iterator[Finding]:
    """Which of the cases of JetPack, Python and torch this is."""
    release = _read(premises.release)
    python = platform.python_version()
    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            "platform", "wrong", f"Python {python}, no torch", "install torch for this device: docs/client.md"
        )
        return
    if not release:
        yield Finding("platform", "ok", f"no Jetson: Python {python}, torch {torch}")
        return
    major = release.split()[1].removeprefix("R") if len(release.split()) > 1 else "?"
    jetpack = {"36": "6", "38": "7", "39": "7"}.get(major)
    if jetpack == "7":
        yield Finding("platform", "ok", f"JetPack 7, Python {python}, torch {torch}; it computes on the CPU")
    elif jetpack == "6":
        yield Finding("platform", "ok", f"JetPack 6, Python {python}, torch {torch}; it computes on the CPU")
    else:
        remedy = "JetPack 6 or 7; JetPack 5 and the TX2 have no Python that Flower runs on"
        yield Finding("platform", "wrong", f"Linux for Tegra R{major}", remedy)


def check_model(premises: Premises) -> Iterator[Finding]:
    """Whether there is a model that recognises, and whether its bytes are what its name says."""
    from client.serving import served_model

    path, unlocked = served_model(premises.paths, unlocked=False), served_model(premises.paths, unlocked=True)
    own = "; the wearer's own is sealed, and recognises while unlocked" if unlocked != path else ""
    if path is None and own:
        yield Finding("model", "warning", f"no model of the fleet's{own}", "enrol, or import the model it began from")
        return
    if path is None:
        remedy = "mcoe-client model import FILE, or enrol: then the fleet's arrives by itself"
        yield Finding("model", "warning", "none: recordings can be made, nothing is recognised", remedy)
        return
    try:
        _, card = read_model(path)
        if file_sha256(path) != path.stem:
            raise ModelInvalid("not the bytes of its name")
        yield Finding("model", "ok", f"{card.generation.preset} {path.stem[:12]}, verified{own}")
    except McoeError:
        yield Finding(
            "model", "wrong", f"{path.stem[:12]} is damaged", "import it again, or delete it: it is fetched anew"
        )


def check_server(premises: Premises) -> Iterator[Finding]:
    """Whether the fleet's server answers, with a certificate of the fleet's authority that lasts."""
    if not premises.paths.membership.exists():
        yield Finding("server", "ok", "member of no fleet: it works alone")
        return
    try:
        membership = read_membership(premises.paths)
        answer = httpx.get(
            f"https://{membership.address}/health",
            verify=ssl.create_default_context(cafile=str(premises.paths.authority)),
            timeout=5,
        )
        well = answer.is_success
        remedy = "" if well else "nothing is lost meanwhile; ask its operator"
        what = f"answers ({answer.status_code}); its certificate is the fleet's"
        yield Finding("server", "ok" if well else "warning", what, remedy)
    except McoeError as fault:
        yield Finding("server", "wrong", str(fault), "enrol again")
    except (httpx.HTTPError, OSError, ssl.SSLError) as fault:
        remedy = "nothing is lost without it; check network and clock, or ask its operator"
        yield Finding("server", "warning", f"does not answer: {fault}", remedy)
    yield from _authority(premises.paths.authority)


def check_wearer(premises: Premises) -> Iterator[Finding]:
    """A wearer with a key, enrolled or alone, who has agreed, and whether the key is here."""
    paths, wearers = premises.paths, Wearers(premises.folder, finish=False)
    begin = "open the page (mcoe-client page) and follow it, or: mcoe-client wearer new CODE"
    if wearers.current is None:
        yield Finding("key", "wrong", "nobody has set it up", begin)
        return
    try:
        locked = keys.needs_passphrase(paths.device_key)
        what = "opened by a passphrase" if locked else "a file: protects nothing once the device is lost"
        yield Finding("key", "ok" if locked else "warning", what, "" if locked else "wearer new without --keyfile")
    except McoeError as fault:
        yield Finding("key", "wrong", str(fault), "restore it from a backup, or begin with a new wearer")
        return
    joined = paths.membership.exists() and paths.key.exists()
    if left := Leaving(premises.folder).of(key_id(paths)):
        yield Finding("enrolled", "warning", left.line(), COME_BACK)
    else:
        yield Finding("enrolled", "ok", "in a fleet, with a key of its own" if joined else "in no fleet")
    yield from _consent(premises, wearers)
    if premises.now is None:
        yield Finding("unlocked", "unknown", "the wearable does not run", "mcoe-client --device davis346")
    elif premises.now["stage"] == "locked":
        yield Finding("unlocked", "wrong", "it is locked: no recording, no learning", "mcoe-client unlock, or the page")
    else:
        yield Finding("unlocked", "ok", "it is open")


#: In the order in which they are shown.
CHECKS: tuple[Check, ...] = (
    check_camera, check_udev, check_disk, check_memory, check_clock, check_power, check_platform, check_model,
    check_server, check_wearer,
)  # fmt: skip


def examine(premises: Premises, checks: Sequence[Check] = CHECKS) -> list[Finding]:
    """Every line, in the order of the checks."""
    return [finding for check in checks for finding in check(premises)]


def _consent(premises: Premises, wearers: Wearers) -> Iterator[Finding]:
    """Which uses the wearer agreed to."""
    from client.sessions import Store

    paths = wearers.paths
    agreed: list[str] = []
    if premises.now is not None:
        version = premises.settings.rules().consent_version
        agreed = sorted(one["kind"] for one in premises.now["consents"] if one["version"] == version)
    elif paths.store.exists():
        try:
            with closing(Store(paths.store, paths.recordings, premises.settings.rules(), look=True)) as store:
                agreed = sorted(consent.kind for consent in store.agreed())
        except McoeError as fault:
            yield Finding("consent", "unknown", str(fault))
            return
    if "capture" in agreed:
        yield Finding("consent", "ok", f"to {', '.join(agreed)}")
    else:
        yield Finding("consent", "wrong", "not to capture", "ask on the page, or: mcoe-client consent --give capture")


def _authority(path: Path) -> Iterator[Finding]:
    from cryptography import x509

    with suppress(OSError, ValueError):
        ends = max(one.not_valid_after_utc for one in x509.load_pem_x509_certificates(path.read_bytes()))
        days = (ends.timestamp() - time.time()) / 86400
        soon = days < _EXPIRES_DAYS
        remedy = (
            "ask its operator to renew it; a wearable that connects learns of the new one by itself" if soon else ""
        )
        yield Finding(
            "certificate", "warning" if soon else "ok", f"the fleet's authority ends in {days:.0f} days", remedy
        )


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # deleted meanwhile
        return 0


def _said(*command: str) -> str | None:
    """What a program answers; None where there is none, or it refuses."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, env=os.environ | {"LC_ALL": "C"})
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
