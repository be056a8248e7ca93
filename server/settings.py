"""What `mcoe-server` can be told, checked whole before work. `start` without any of it works on this machine alone.

What belongs to the whole server, such as its ports, its experiments share.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from mcoe_model.errors import SettingsError
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.update import TRAIN_MODES, TrainMode
from server.aggregation import RULES
from server.aggregation.optimiser import OPTIMISERS, OptimiserName, OptimiserSettings
from server.aggregation.private_mean import PrivateMean
from server.aggregation.rule import ROUTER_MODES, RouterMode, RuleSettings
from server.check_ins import CheckIns
from server.cohort import cohort_size
from server.lifecycle import RELEASES, Release, ReleasePolicy
from server.opening import Opening, OpenWhen
from server.private_mode import PrivateMode
from server.registry.privacy import FORGETTING, Forgetting
from server.round_settings import RoundSettings

#: What an experiment may be called: it names a folder, a part of an address and a process.
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


def _setting(default: Any, says: str) -> Any:
    return field(default=default, metadata={"help": says, "whole": False})


def _whole(default: Any, says: str) -> Any:
    """A setting of the whole server, that its experiments share."""
    return field(default=default, metadata={"help": says, "whole": True})


@dataclass(frozen=True)
class ServerSettings:
    """Every setting of the server and of one of its experiments, with what it means."""

    host: str = _whole("127.0.0.1", "address that wearables reach; 0.0.0.0 for every one of this machine")
    port: int = _whole(8443, "port that wearables reach (TLS)")
    local_port: int = _whole(8444, "port on 127.0.0.1 for the server's own processes")
    database: str = _whole("", "SQLAlchemy URL of the registry; by default SQLite in the data folder")
    experiment: str = _whole("fleet", "experiment that this server runs")
    train: TrainMode = _setting("head", "head (frozen backbones) or full")
    rule: str = _setting("expert-weighted-mean", f"aggregation rule: {', '.join(RULES)}")
    seed: int = _setting(0, "seed of the cohorts and of the clients' training")
    local_epochs: int = _setting(5, "epochs on a client in one round")
    batch_size: int = _setting(8, "batch size on a client")
    lr: float = _setting(1e-3, "learning rate on a client")
    open_when: OpenWhen = _setting("ready", "rounds open when clients are ready, on a schedule or on command")
    round_every_hours: float = _setting(24.0, "hours between the openings of two rounds of a schedule")
    min_clients: int = _setting(2, "a round opens when this many clients with new clips are present")
    same_data_rounds: int = _setting(1000, "rounds that may learn a client's clips before it needs new ones; 0: any")
    cohort: str = _setting("all", "clients per round: all, a number or a share of those present")
    cohort_filter: str = _setting("*", "clients that rounds may ask: patterns over id or alias, separated by commas")
    over_select: float = _setting(1.0, "ask so many times more clients, and close when enough were accepted")
    quorum: float = _setting(0.5, "share of the cohort whose replies must be accepted")
    first_k: int = _setting(-1, "accepted replies that close a round; 0: all; -1: min_clients with check_in_s, or all")
    max_staleness: int = _setting(4, "with first_k, a late update is taken at most so many versions later")
    staleness_exponent: float = _setting(0.5, "a of the weight (1 + tau)^-a of an update tau versions late")
    deadline_s: float = _setting(3600.0, "seconds after which a round closes without those who have not answered")
    pause_s: float = _setting(5.0, "seconds between a round's end and the next one's opening")
    max_in_flight: int = _setting(64, "train messages that are outstanding at a time; each takes server memory")
    client_version_least: str = _setting("", "clients of an older version train nothing; empty: any will do")
    client_version_advised: str = _setting("", "clients of an older version are advised to be updated")
    check_in_s: float = _setting(0.0, "seconds between two check-ins of a client, which sleeps meanwhile; 0: it stays")
    enrolment: bool = _whole(True, "whether wearables may enrol while an invitation is open")
    private: bool = _setting(False, "client-level differential privacy; it has a rule of its own, so set no other")
    private_clip: float = _setting(1.0, "L2 norm to which a client's whole update is clipped")
    private_noise: float = _setting(1.0, "noise on the sum of updates, in clips")
    private_denominator: int = _setting(20, "cohort size that the sum is divided by, whoever answers")
    private_delta: float = _setting(1e-5, "delta of every epsilon")
    private_epsilon: float = _setting(8.0, "a client that has spent this takes part no longer")
    trusted_set: str = _setting("", "folder of clean clips in SEE's layout that the rule fltrust trains on")
    evaluation_set: str = _setting("", "folder of labelled clips in SEE's layout that every new model is scored on")
    evaluation_margin: float = _setting(0.02, "a new model may score this much less WAR than its parent")
    evaluation_clients: int = _setting(0, "clients that compare a new model with its parent, without evaluation_set")
    canary_share: float = _setting(0.0, "share of the clients that runs a new model first; 0: none")
    canary_check_ins: int = _setting(5, "check-ins of canary clients after which a new model is released")
    canary_hours: float = _setting(168.0, "hours that a canary has for these check-ins; then it is held")
    release: Release = _setting("auto", f"{' or '.join(RELEASES)}: a model that passed waits for `models promote`")
    max_examples: int = _setting(1000, "a client's number of clips counts at most this much")
    max_gate_mass: float = _setting(500.0, "its gate mass for one expert counts at most this much")
    faulty: int = _setting(1, "clients that a robust rule assumes to be hostile")
    router: RouterMode = _setting("averaged", f"what becomes of the router: {', '.join(ROUTER_MODES)}")
    server_optimiser: OptimiserName = _setting("none", f"step along what the rule made: {', '.join(OPTIMISERS)}")
    server_lr: float = _setting(0.0, "learning rate of the server's optimiser; 0: 1 with fedavgm, 0.01 with fedadam")
    server_momentum: float = _setting(0.9, "momentum of fedavgm, beta 1 of fedadam")
    server_second_momentum: float = _setting(0.99, "beta 2 of fedadam")
    server_adaptivity: float = _setting(1e-3, "tau of fedadam: below it, values take smaller steps")
    forget_default: Forgetting = _whole("keep", f"when a wearer asks to be forgotten: {', '.join(FORGETTING)}")
    keep_updates: bool = _setting(False, "keep accepted updates for `rounds replay`: to look into faults")
    coarse: bool = _setting(False, "keep router statistics in four bins once their round is over")
    retention_days: int = _setting(90, "days that router statistics and check-ins are kept")
    dashboard_port: int = _whole(8445, "port on 127.0.0.1 for the dashboard; 0: none")
    webhook: str = _whole("", "address that is told when a round closes or an alarm begins")
    fleet_per_minute: int = _whole(6000, "requests a minute that one address may make of Flower's public routes")
    fleet_body_mb: int = _whole(64, "size of the largest body that these take; Flower sends a model in parts of 5 MB")
    compact_mb: int = _whole(64, "Flower's database is compacted when larger, once no round is open")
    disk_floor_mb: int = _whole(500, "no round opens with less free disk than this")

    def __post_init__(self) -> None:
        found = []
        for name, least in (("port", 1), ("local_port", 1), ("dashboard_port", 0)):
            if not least <= getattr(self, name) < 65536:
                found.append(f"{name} must be between {least} and 65535, not {getattr(self, name)}")
        if self.local_port == self.port or self.dashboard_port in (self.port, self.local_port):
            ports = f"{self.port}, {self.local_port} and {self.dashboard_port}"
            found.append(f"port, local_port and dashboard_port must differ, not be {ports}")
        if self.webhook and not _is_web_address(self.webhook):  # its text may hold a password
            found.append("webhook is no address, such as https://example.org/hook")
        if self.train not in TRAIN_MODES:
            found.append(f"train must be one of {', '.join(TRAIN_MODES)}, not {self.train!r}")
        if self.rule not in RULES:
            found.append(f"rule must be one of {', '.join(RULES)}, not {self.rule!r}")
        if self.forget_default not in FORGETTING:
            found.append(f"forget_default must be one of {', '.join(FORGETTING)}, not {self.forget_default!r}")
        if not 1 <= self.over_select <= 10:
            found.append(f"over_select must be between 1 and 10, not {self.over_select}")
        if self.first_k > 0 and self.over_select > 1:
            found.append("first_k and over_select both close a round early; set one of them")
        if self.cohort.isdigit() and int(self.cohort) < self.first_k:
            found.append(f"first_k is {self.first_k}, and a cohort of {self.cohort} never sends so many")
        if self.private and self.over_select > 1:
            found.append("private rounds must not close with the first replies: over_select must be 1")
        if not 0 < self.quorum <= 1:
            found.append(f"quorum must be above 0 and at most 1, not {self.quorum}")
        for name in ("deadline_s", "fleet_per_minute", "fleet_body_mb", "max_in_flight"):
            if not 0 < getattr(self, name) < math.inf:
                found.append(f"{name} must be above 0 and finite, not {getattr(self, name)}")
        if self.check_in_s and not self.deadline_s > self.check_in_s:
            found.append(f"deadline_s must be longer than check_in_s, {self.check_in_s:g}: clients come in between")
        for name in ("evaluation_clients", "canary_share"):
            if self.private and getattr(self, name):
                found.append(f"{name} must be 0 in private mode: what clients say of a model carries no noise")
        for name in ("pause_s", "compact_mb", "disk_floor_mb", "seed", "retention_days"):
            if not 0 <= getattr(self, name) < math.inf:
                found.append(f"{name} must not be negative and be finite, not {getattr(self, name)}")
        for name in ("host", "cohort_filter"):
            if not getattr(self, name).strip():
                found.append(f"{name} must not be empty")
        if not _NAME.fullmatch(self.experiment):
            found.append(f"experiment must have up to 40 letters, digits, - and _, not {self.experiment!r}")
        for name in ("evaluation_set", "trusted_set"):
            if getattr(self, name) and not Path(getattr(self, name)).is_dir():
                found.append(f"{name} {getattr(self, name)} is no folder")
        for check in (
            lambda: self.fine_tune,
            lambda: self.rule_settings,
            lambda: self.optimiser,
            lambda: self.opening,
            lambda: self.check_ins,
            lambda: self.private_mode,
            lambda: self.release_policy,
            lambda: cohort_size(self.cohort, sys.maxsize),
        ):
            try:
                check()
            except SettingsError as fault:
                found += fault.faults
        if not found:  # what the settings of a round say of each other
            try:
                _ = self.round_settings
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
    def rule_in_force(self) -> str:
        """The rule that rounds aggregate by."""
        return PrivateMean.name if self.private else self.rule

    @property
    def optimiser(self) -> OptimiserSettings:
        """The server's optimiser."""
        moments = (self.server_momentum, self.server_second_momentum, self.server_adaptivity)
        return OptimiserSettings(self.server_optimiser, self.server_lr or None, *moments)

    @property
    def first_replies(self) -> int:
        """How many accepted replies close a round; 0: all. Wearables that sleep are seldom there together."""
        if self.first_k != -1:
            return self.first_k
        if not self.check_in_s or self.private or self.over_select > 1:
            return 0
        return max(self.opening.min_clients, RULES[self.rule].least(self.rule_settings))

    @property
    def opening(self) -> Opening:
        """When rounds open; a cohort of a fixed number needs as many clients."""
        enough = max(self.min_clients, int(self.cohort)) if self.cohort.isdigit() else self.min_clients
        return Opening(self.open_when, enough, self.round_every_hours, self.same_data_rounds)

    @property
    def check_ins(self) -> CheckIns:
        """What a client hears when it checks in."""
        return CheckIns(self.client_version_least, self.client_version_advised, self.check_in_s)

    @property
    def release_policy(self) -> ReleasePolicy:
        """What a new model has to show."""
        return ReleasePolicy(
            self.evaluation_margin,
            self.evaluation_clients,
            self.canary_share,
            self.canary_check_ins,
            self.canary_hours,
            self.release,
        )

    @property
    def rule_settings(self) -> RuleSettings:
        """Bounds of the aggregation rule."""
        return RuleSettings(
            max_examples=self.max_examples,
            max_gate_mass=self.max_gate_mass,
            faulty=self.faulty,
            router=self.router,
            staleness_exponent=self.staleness_exponent,
        )

    @property
    def round_settings(self) -> RoundSettings:
        """What every round does."""
        return RoundSettings(
            fine_tune=self.fine_tune,
            train_mode=self.train,
            rule=self.rule,
            rule_settings=self.rule_settings,
            quorum=self.quorum,
            seed=self.seed,
            keep_updates=self.keep_updates,
            private=self.private_mode,
            optimiser=self.optimiser,
            trusted_set=self.trusted_set,
            first_k=self.first_replies,
            max_staleness=self.max_staleness,
            cohort_filter=self.cohort_filter,
        )


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
