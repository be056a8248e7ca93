"""Settings of a synthetic set are checked whole."""

from __future__ import annotations

import dataclasses

import pytest

from mcoe_model.data.synthetic import SyntheticSettings
from mcoe_model.errors import ExitCode, SettingsError


def test_all_faults_are_reported_together() -> None:
    with pytest.raises(SettingsError) as caught:
        SyntheticSettings(subjects=0, sequences=0, size=5, design="studio", difficulty=float("nan"), seed=-1)
    assert len(caught.value.faults) == 6
    for word in ("subjects", "sequences", "size", "design", "difficulty", "seed"):
        assert word in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_wearable_set_keeps_its_sessions_full() -> None:
    with pytest.raises(SettingsError, match="at least 84"):
        SyntheticSettings(design="wearable", sequences=83)
    assert SyntheticSettings(design="wearable", sequences=84).sequences == 84


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SyntheticSettings().size = 64  # type: ignore[misc]
