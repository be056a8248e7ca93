"""What `mcoe-server` can be told: one TOML file, then environment variables, then flags, checked whole before work.

``mcoe-server.toml`` in the data folder holds what differs from the defaults; ``MCOE_SERVER_PORT`` and the like go over
it, and flags over those. `start` without any of them works on this machine alone.
"""

from __future__ import annotations

import math
import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from mcoe_model.errors import DataMissing, SettingsError
from mcoe_model.files import read_json, write_json
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.update import TRAIN_MODES, TrainMode
from server.aggregation import RULES
from server.aggregation.rule import ROUTER_MODES, RouterMode, RuleSettings
from server.cohort import cohort_size
from server.private_mode import PrivateMode
from server.registry.database import sqlite_url

ENVIRONMENT = "MCOE_SERVER_"


def _setting(default: Any, says: str) -> Any:
    return field(default=default, metadata={"help": says})


@dataclass(frozen=True)
class ServerSettings:
    """Every setting of the server, with what `mcoe-server start --help` says of it."""

    host: str = _setting("127.0.0.1", "address that wearables reach; 0.0.0.0 for every one of this machine")
    port: int = _setting(8443, "port that wearables reach (TLS)")
    local_port: int = _setting(8444, "port on 127.0.0.1 for the server's own processes")
    database: str = _setting("", "SQLAlchemy URL of the registry; by default SQLite in the data folder")
    experiment: str = _setting("fleet", "experiment that this server runs")
    train: TrainMode = _setting("head", "head (frozen backbones) or full")
    rule: str = _setting("expert-weighted-mean", f"aggregation rule: {', '.join(RULES)}")
    seed: int = _setting(0, "seed of the cohorts and of the clients' training")
    local_epochs: int = _setting(5, "epochs on a client in one round")
    batch_size: int = _setting(8, "batch size on a client")
    lr: float = _setting(1e-3, "learning rate on a client")
    min_clients: int = _setting(2, "a round opens when this many clients with clips are present")
    cohort: str = _setting("all", "clients per round: all, a number or a share of those present")
    over_select: float = _setting(1.0, "ask so many times more clients, and close when enough were accepted")
    quorum: float = _setting(0.5, "share of the cohort whose replies must be accepted")
    deadline_s: float = _setting(3600.0, "seconds after which a round closes without those who have not answered")
    pause_s: float = _setting(5.0, "seconds between a round's end and the next one's opening")
    enrolment: bool = _setting(True, "whether wearables may enrol with an invitation")
    private: bool = _setting(False, "client-level differential privacy; its rule takes the place of rule")
    private_clip: float = _setting(1.0, "L2 norm to which a client's whole update is clipped")
    private_noise: float = _setting(1.0, "noise on the sum of updates, in clips")
    private_denominator: int = _setting(20, "cohort size that the sum is divided by, whoever answers")
    private_delta: float = _setting(1e-5, "delta of every epsilon")
    private_epsilon: float = _setting(8.0, "a client that has spent this takes part no longer")
    evaluation_set: str = _setting("", "folder of labelled clips in SEE's layout that every new model is scored on")
    evaluation_margin: float = _setting(0.02, "a new model may score this much less WAR than its parent")
    faulty: int = _setting(1, "clients that a robust rule assumes to be hostile")
    router: RouterMode = _setting("averaged", f"what becomes of the router: {', '.join(ROUTER_MODES)}")
    keep_updates: bool = _setting(False, "keep accepted updates for `rounds replay`: to look into faults")
    coarse: bool = _setting(False, "keep router statistics in four bins once their round is over")
    retention_days: int = _setting(90, "days that router statistics and check-ins are kept")
    dashboard_port: int = _setting(8445, "port on 127.0.0.1 for the dashboard; 0: none")
    webhook: str = _setting("", "address that is told when a round closes or an alarm begins")
    disk_floor_mb: int = _setting(500, "no round opens with less free disk than this")

    def __post_init__(self) -> None:
        found = []
        for name in ("port", "local_port"):
            if not 0 < getattr(self, name) < 65536:
                found.append(f"{name} must be between 1 and 65535, not {getattr(self, name)}")
        if self.port == self.local_port:
            found.append(f"port and local_port are both {self.port}; they must differ")
        if self.train not in TRAIN_MODES:
            found.append(f"train must be one of {', '.join(TRAIN_MODES)}, not {self.train!r}")
        if self.rule not in RULES:
            found.append(f"rule must be one of {', '.join(RULES)}, not {self.rule!r}")
        if not 1 <= self.over_select <= 10:
            found.append(f"over_select must be between 1 and 10, not {self.over_select}")
        if self.private and self.over_select > 1:
            found.append("private rounds must not close with the first replies: over_select must be 1")
        if not 0 < self.quorum <= 1:
            found.append(f"quorum must be above 0 and at most 1, not {self.quorum}")
        for name in ("min_clients", "deadline_s"):
            if not 0 < getattr(self, name) < math.inf:
                found.append(f"{name} must be above 0 and finite, not {getattr(self, name)}")
        for name in ("pause_s", "disk_floor_mb", "seed", "evaluation_margin", "retention_days", "dashboard_port"):
            if not 0 <= getattr(self, name) < math.inf:
                found.append(f"{name} must not be negative and be finite, not {getattr(self, name)}")
        for name in ("host", "experiment"):
            if not getattr(self, name).strip():
                found.append(f"{name} must not be empty")
        if self.evaluation_set and not Path(self.evaluation_set).is_dir():
            found.append(f"evaluation_set {self.evaluation_set} is no folder")
        for check in (
            lambda: self.fine_tune,
            lambda: self.rule_settings,
            lambda: self.private_mode,
            lambda: cohort_size(self.cohort, sys.maxsize),
        ):
            try:
                check()
            except SettingsError as fault:
                found += fault.faults
        try:
            make_url(self.database or "sqlite://")
        except (ArgumentError, ValueError):  # its text may hold a password
            found.append("database is no SQLAlchemy URL, such as postgresql+psycopg://user@host/name")
        if found:
            raise SettingsError(found)

    @property
    def fine_tune(self) -> FineTuneSettings:
        """How a client trains in one round."""
        return FineTuneSettings(epochs=self.local_epochs, batch_size=self.batch_size, learning_rate=self.lr)

    @property
    def private_mode(self) -> PrivateMode | None:
        """Differential privacy, or None."""
        if not self.private:
            return None
        rule = (self.private_clip, self.private_noise, self.private_denominator)
        return PrivateMode(*rule, self.private_delta, self.private_epsilon)

    @property
    def rule_settings(self) -> RuleSettings:
        """Bounds of the aggregation rule."""
        return RuleSettings(faulty=self.faulty, router=self.router)


@dataclass(frozen=True)
class ServerPaths:
    """The files of a server's data folder."""

    folder: Path

    @property
    def settings(self) -> Path:
        return self.folder / "mcoe-server.toml"

    @property
    def certificates(self) -> Path:
        return self.folder / "certificates"

    @property
    def registry(self) -> Path:
        return self.folder / "registry.sqlite"

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    @property
    def superlink(self) -> Path:
        """Flower's database: disposable, since registrations can be made again from the registry."""
        return self.folder / "superlink.sqlite"

    @property
    def secret(self) -> Path:
        """What the coordinator shows the SuperLink to be given its task."""
        return self.folder / "superexec.secret"

    @property
    def noise_secret(self) -> Path:
        """What the noise of private rounds is drawn from; whoever knows it can take the noise away."""
        return self.folder / "noise.secret"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def database_url(self, settings: ServerSettings) -> str:
        """The registry's database."""
        return settings.database or sqlite_url(self.registry)


def load_settings(
    paths: ServerPaths, flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> ServerSettings:
    """Defaults, then the TOML file, then the environment, then flags that are not None.

    Raises DataMissing for a folder that `mcoe-server init` did not make, SettingsError with every fault found.
    """
    if not paths.settings.is_file():
        raise DataMissing(f"{paths.folder} holds no server; make one with: mcoe-server init --dir {paths.folder}")
    kinds = {setting.name: type(setting.default) for setting in fields(ServerSettings)}
    found: list[str] = []
    given: dict[str, Any] = {}
    try:
        given |= tomllib.loads(paths.settings.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        found.append(f"{paths.settings}: {fault}")
    for variable, text in environment.items():
        if variable.startswith(ENVIRONMENT):
            name = variable.removeprefix(ENVIRONMENT).lower()
            given[name] = _from_text(text, kinds.get(name, str))
    given |= {name: value for name, value in flags.items() if value is not None}
    fitting: dict[str, Any] = {}
    for name, value in given.items():
        if name not in kinds:
            found.append(f"there is no setting {name!r}")
        elif kinds[name] is float and type(value) is int:
            fitting[name] = float(value)
        elif type(value) is not kinds[name]:
            found.append(f"{name} must be a {kinds[name].__name__}, not {value!r}")
        else:
            fitting[name] = value
    try:
        settings = ServerSettings(**fitting)
    except SettingsError as fault:
        found += fault.faults
    if found:
        raise SettingsError(found)
    return settings


def write_running(paths: ServerPaths, settings: ServerSettings) -> None:
    """Tell the server's processes what `start` was told."""
    write_json(paths.folder / "running.json", asdict(settings))


def read_running(paths: ServerPaths) -> ServerSettings:
    """What `start` was told."""
    stored: dict[str, Any] = read_json(paths.folder / "running.json")
    return ServerSettings(**stored)


def _from_text(text: str, kind: type) -> Any:
    """The value that a setting's text means; text that means none stays text, and is then named as a fault."""
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    try:
        return kind(text)
    except ValueError:
        return text
