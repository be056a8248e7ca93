"""The wearable's settings: each with its default and meaning, checked all at once before anything starts.

``mcoe-client.toml`` in the wearable's folder holds what differs from the defaults; ``MCOE_CLIENT_QUOTA_GB`` and its
like go over it, and flags over both.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.check_in_gates import CheckInRules
from client.consent_text import LANGUAGES, read_consent_text, read_consent_texts
from client.gates import SYSTEM
from client.session_rules import PromptRules, RetentionRules, StoreRules
from client.wearers import SETTINGS_FILE
from mcoe_model.errors import DataInvalid, DataMissing, SettingsError
from mcoe_model.given_settings import fitting, from_environment, kinds_of

ENVIRONMENT = "MCOE_CLIENT_"
_TIME = re.compile("([01][0-9]|2[0-3]):([0-5][0-9])")
_MB, _GB = 10**6, 10**9


def _setting(default: Any, says: str) -> Any:
    return field(default=default, metadata={"help": says})


@dataclass(frozen=True)
class ClientSettings:
    """Every setting of the wearable, with what it means."""

    language: str = _setting("en", f"language of the page at first: {' or '.join(LANGUAGES)}")
    page_host: str = _setting("0.0.0.0", "address that the page listens on; 127.0.0.1: this machine alone")
    page_port: int = _setting(8443, "port of the page; 0: any that is free")
    page_tls: bool = _setting(True, "HTTPS; without it the page listens on 127.0.0.1 only")
    consent_texts: str = _setting("", "folder of the study's consent texts, en.txt and so on; empty: the demo's")
    study_key: str = _setting("", "file with the study's public key, for `export --study`; empty: none")
    days_after_learning: int = _setting(7, "days that a recording is kept once it was learned")
    days_after_recording: int = _setting(14, "days that a recording is kept at most, unless the wearer keeps it")
    quota_gb: float = _setting(20.0, "gigabytes that recordings may take together")
    disk_floor_gb: float = _setting(1.0, "gigabytes of the disk that recordings leave free")
    prompts_per_day: int = _setting(6, "questions a day at most; 0: none")
    quiet_from: str = _setting("22:00", "no questions from this time of the day on")
    quiet_until: str = _setting("08:00", "questions again from this time of the day on; the same: no quiet time")
    snooze_minutes: int = _setting(30, "minutes that a question stays away when it is put off")
    prompts_expire_hours: int = _setting(12, "hours after which a question is not asked any more")
    check_in_from: str = _setting("00:00", "check-ins with the fleet from this time of the day on")
    check_in_until: str = _setting("00:00", "no check-ins from this time of the day on; the same: at any time")
    check_in_on_mobile: bool = _setting(False, "check in over a mobile network, too")
    check_in_mb_per_day: int = _setting(1000, "megabytes a day after which no check-in happens; 0: any number")
    check_in_mb_per_month: int = _setting(10_000, "megabytes a month after which no check-in happens; 0: any number")

    system: str = _setting(str(SYSTEM), "folder in which the machine tells of battery, temperature and networks")

    def __post_init__(self) -> None:
        found = []
        if self.language not in LANGUAGES:
            found.append(f"language must be one of {', '.join(LANGUAGES)}, not {self.language!r}")
        if not 0 <= self.page_port <= 65535:
            found.append(f"page_port must be between 0 and 65535, not {self.page_port}")
        try:
            if not (self.page_tls or ipaddress.ip_address(self.page_host).is_loopback):
                found.append(f"without page_tls page_host must be 127.0.0.1, not {self.page_host}")
        except ValueError:
            found.append(f"page_host must be an address of this machine, such as 0.0.0.0, not {self.page_host!r}")
        for name in ("days_after_learning", "days_after_recording", "snooze_minutes", "prompts_expire_hours"):
            if getattr(self, name) < 1:
                found.append(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.quota_gb < math.inf:
            found.append(f"quota_gb must be above 0 and finite, not {self.quota_gb}")
        if not 0 <= self.disk_floor_gb < math.inf:
            found.append(f"disk_floor_gb must not be negative and be finite, not {self.disk_floor_gb}")
        for name in ("prompts_per_day", "check_in_mb_per_day", "check_in_mb_per_month"):
            if getattr(self, name) < 0:
                found.append(f"{name} must not be negative, not {getattr(self, name)}")
        for name in ("quiet_from", "quiet_until", "check_in_from", "check_in_until"):
            if not _TIME.fullmatch(getattr(self, name)):
                found.append(f"{name} must be a time of the day, such as 22:00, not {getattr(self, name)!r}")
        if self.consent_texts and not Path(self.consent_texts).is_dir():
            found.append("consent_texts is no folder")
        else:
            try:
                read_consent_texts(self.consent_folder)
            except (DataInvalid, DataMissing) as fault:
                found.append(f"consent_texts: {fault}")
        if self.system != str(SYSTEM) and not Path(self.system).is_dir():  # a machine may have none
            found.append("system is no folder")
        if self.study_key and not Path(self.study_key).is_file():
            found.append("study_key is no file")
        if found:
            raise SettingsError(found)

    @property
    def consent_folder(self) -> Path | None:
        """The study's consent texts, if there are any."""
        return Path(self.consent_texts) if self.consent_texts else None

    @property
    def check_in_rules(self) -> CheckInRules:
        """When the wearable may check in."""
        hours = (_minute(self.check_in_from), _minute(self.check_in_until))
        per_day, per_month = self.check_in_mb_per_day * _MB, self.check_in_mb_per_month * _MB
        return CheckInRules(hours, self.check_in_on_mobile, per_day, per_month, Path(self.system))

    def rules(self) -> StoreRules:
        """`store_rules` with the version of the consent text that is asked for now. Raises DataMissing, DataInvalid."""
        return self.store_rules(read_consent_text(self.consent_folder, self.language).version)

    def store_rules(self, consent_version: str) -> StoreRules:
        """What a wearer's store keeps to."""
        retention = RetentionRules(
            self.days_after_learning, self.days_after_recording, int(self.quota_gb * _GB), int(self.disk_floor_gb * _GB)
        )
        quiet = (_minute(self.quiet_from), _minute(self.quiet_until))
        prompts = PromptRules(self.prompts_per_day, quiet, self.snooze_minutes, self.prompts_expire_hours)
        return StoreRules(consent_version, retention, prompts)


def load_settings(
    folder: Path, flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> ClientSettings:
    """Defaults, then the file if there is one, then the environment, then flags that are not None.

    Raises SettingsError with every fault found.
    """
    found: list[str] = []
    given: dict[str, Any] = {}
    path = folder / SETTINGS_FILE
    try:
        given |= tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        pass
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        found.append(f"{path}: {fault}")
    given |= from_environment(environment, ENVIRONMENT, _KINDS)
    given |= {name: value for name, value in flags.items() if value is not None}
    try:
        settings = ClientSettings(**fitting(given, _KINDS, found))
    except SettingsError as fault:
        raise SettingsError(found + fault.faults) from fault
    if found:
        raise SettingsError(found)
    return settings


#: The type of every setting.
_KINDS = kinds_of(ClientSettings)


def _minute(time: str) -> int:
    hours, minutes = time.split(":")
    return int(hours) * 60 + int(minutes)
