"""The wearable's settings: where they come from, and that all faults are told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.check_in_gates import CheckInGates, CheckInRules
from client.sessions import PromptRules, RetentionRules
from client.settings import ClientSettings, load_settings
from client.traffic import Traffic
from mcoe_model.errors import SettingsError


def test_without_a_file_the_defaults_count(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, {}, {})
    assert settings == ClientSettings()
    rules = settings.store_rules("7")
    assert (rules.consent_version, rules.retention, rules.prompts) == ("7", RetentionRules(), PromptRules())


def test_flags_go_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "mcoe-client.toml").write_text('quota_gb = 5\npage_port = 1\nquiet_from = "21:30"\npage_tls = true\n')
    environment = {"MCOE_CLIENT_PAGE_PORT": "2", "MCOE_CLIENT_PROMPTS_PER_DAY": "3", "HOME": "/"}
    settings = load_settings(tmp_path, {"page_port": 3, "language": "de", "page_host": None}, environment)
    assert (settings.quota_gb, settings.page_port, settings.prompts_per_day, settings.language) == (5.0, 3, 3, "de")
    assert settings.store_rules("1").prompts.quiet == (21 * 60 + 30, 8 * 60)
    assert settings.store_rules("1").retention.quota_bytes == 5 * 10**9


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "mcoe-client.toml").write_text(
        'quota_gb = 0\ncolour = "red"\npage_port = "x"\nquiet_until = "25:00"\npage_tls = false\nlanguage = "fr"\n'
        'check_in_from = "8"\ncheck_in_mb_per_day = -1\ncheck_in_mb_per_month = 0.5\ncheck_in_on_mobile = 1\n'
        'days_after_recording = 0\nconsent_texts = "/nowhere"\nprompts_per_day = -1\nstudy_key = "/nowhere"\n'
    )
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path, {}, {"MCOE_CLIENT_DISK_FLOOR_GB": "nan", "MCOE_CLIENT_SNOOZE_MINUTES": "soon"})
    told = "\n".join(caught.value.faults)
    for name in ("quota_gb", "colour", "page_port", "quiet_until", "page_tls", "language", "days_after_recording"):
        assert name in told
    for name in ("consent_texts", "prompts_per_day", "study_key", "disk_floor_gb", "snooze_minutes"):
        assert name in told
    for name in ("check_in_from", "check_in_mb_per_day", "check_in_mb_per_month", "check_in_on_mobile"):
        assert name in told
    assert len(caught.value.faults) == 16


def test_the_machines_sensors_are_looked_for_where_it_is_said(tmp_path: Path) -> None:
    battery = tmp_path / "power_supply" / "BAT0"
    battery.mkdir(parents=True)
    for name, text in (("type", "Battery"), ("capacity", "40")):
        (battery / name).write_text(f"{text}\n")
    rules = load_settings(tmp_path, {}, {"MCOE_CLIENT_SYSTEM": str(tmp_path)}).check_in_rules
    [closed] = CheckInGates(rules, Traffic(tmp_path / "traffic.json")).closed()
    assert closed.key == "gate.battery"
    with pytest.raises(SettingsError, match="system is no folder"):
        load_settings(tmp_path, {"system": str(tmp_path / "nowhere")}, {})


def test_check_ins_need_no_settings_and_take_those_that_there_are(tmp_path: Path) -> None:
    assert load_settings(tmp_path, {}, {}).check_in_rules == CheckInRules()
    (tmp_path / "mcoe-client.toml").write_text(
        'check_in_from = "22:00"\ncheck_in_until = "06:30"\ncheck_in_on_mobile = true\n'
        "check_in_mb_per_day = 5\ncheck_in_mb_per_month = 0\n"
    )
    found = load_settings(tmp_path, {}, {}).check_in_rules
    assert found == CheckInRules((22 * 60, 6 * 60 + 30), True, 5_000_000, 0)


def test_consent_texts_of_different_versions_are_a_fault(tmp_path: Path) -> None:
    (tmp_path / "en.txt").write_text("1\ntext")
    (tmp_path / "de.txt").write_text("2\nText")
    with pytest.raises(SettingsError, match=r"consent_texts.*en\.txt is 1, de\.txt is 2"):
        load_settings(tmp_path, {"consent_texts": str(tmp_path)}, {})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "mcoe-client.toml").write_text("quota_gb = = 1")
    with pytest.raises(SettingsError, match=r"mcoe-client\.toml"):
        load_settings(tmp_path, {}, {})


@pytest.mark.parametrize("minute, quiet", [(22 * 60, True), (7 * 60 + 59, True), (8 * 60, False), (13 * 60, False)])
def test_the_quiet_time_may_pass_midnight(minute: int, quiet: bool) -> None:
    assert PromptRules().is_quiet(minute) is quiet
    assert PromptRules(quiet=(8 * 60, 22 * 60)).is_quiet(minute) is (8 * 60 <= minute < 22 * 60)
    assert not PromptRules(quiet=(600, 600)).is_quiet(minute)
