"""Code of somebody's own: where it is found, what is said when it is not, and who never loads any."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mcoe_model.errors import NotResumable, SettingsError
from simulations import own
from simulations.settings import make_settings

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = f"{REPOSITORY}/examples/geometric_median.py:GeometricMedian"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with an entry point, as pip would have installed it."""
    site = tmp_path / "site"
    (site / "somebody").mkdir(parents=True)
    (site / "somebody" / "__init__.py").write_text("from somebody.median import Median\n")
    (site / "somebody" / "median.py").write_text("class Median:\n    name = 'theirs'\n")
    (site / "somebody-1.0.dist-info").mkdir()
    (site / "somebody-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: somebody\nVersion: 1.0\n")
    (site / "somebody-1.0.dist-info" / "entry_points.txt").write_text(
        "[mcoe.rule]\ntheir-median = somebody.median:Median\n"
        "median = somebody.median:Median\ngone = nobody.median:Median\n"
        "[mcoe.model]\nseen-e5-s2 = somebody.median:Median\n"
    )
    monkeypatch.syspath_prepend(site)


def test_a_file_is_loaded_by_its_path() -> None:
    assert own.is_own("rule", EXAMPLE) and not own.is_own("rule", "median")
    found = own.locate("rule", EXAMPLE)
    assert own.load(found) is own.load(found), "once in a process"
    assert own.make(found).name == "geometric-median"
    assert found.file == str(REPOSITORY / "examples" / "geometric_median.py") and len(found.sha256) == 64


def test_a_package_is_loaded_by_its_entry_point(installed: None, tmp_path: Path) -> None:
    assert own.is_own("rule", "their-median") and not own.is_own("model", "their-median")
    found = own.locate("rule", "their-median")
    assert found.file == str(tmp_path / "site" / "somebody" / "median.py")
    assert own.make(found).name == "theirs"
    assert make_settings("quick", {"rule": "their-median"}).rule == "their-median"
    for kind, name in (("rule", "median"), ("model", "seen-e5-s2")):
        assert not own.is_own(kind, name), "ours is nobody else's, whatever a package calls its own"
    with pytest.raises(SettingsError, match=r"module nobody.median, which is not there"):
        own.locate("rule", "gone")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def broken(:", "SyntaxError"),
        ("import nothing_like_it", "No module named 'nothing_like_it'"),
        ("raise SystemError('on\\npurpose')", "cannot be loaded: SystemError: on purpose"),
        ("Mine = None", "cannot be made: TypeError"),
        ("class Mine:\n    def __init__(self): raise OSError('no')", "cannot be made: OSError: no"),
        ("class Other: ...", "has no attribute 'Mine'"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(tmp_path: Path, code: str, says: str) -> None:
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(SettingsError, match=says) as told:
        own.make(own.locate("rule", f"{tmp_path}/mine.py:Mine"))
    assert "\n" not in str(told.value) and "mine.py:Mine" in str(told.value)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no file"):
        own.locate("rule", f"{tmp_path}/mine.py:Mine")
    with pytest.raises(SettingsError, match=r"entry point in the group mcoe\.data_reader"):
        own.locate("data-reader", "theirs")


def test_a_file_that_has_changed_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("Mine = 1")
    found = own.locate("rule", f"{tmp_path}/mine.py:Mine")
    (tmp_path / "mine.py").write_text("raise SystemExit")
    with pytest.raises(NotResumable, match=r"mine\.py, the rule of this run, has changed since"):
        own.load(found)


def test_settings_keep_the_whole_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    said = make_settings("quick", {"rule": "examples/geometric_median.py:GeometricMedian"})
    assert said.rule == EXAMPLE
    model = make_settings("quick", {"model": "examples/small_network.py:SmallConfig"})
    assert model.picture_size == 32 and model.preset.startswith("SmallConfig-")


def test_neither_server_nor_client_loads_such_code(installed: None) -> None:
    """Their settings know our names only, and nothing in them looks for others."""
    for package in ("server", "client", "mcoe_model"):
        for path in (REPOSITORY / package).rglob("*.py"):
            text = path.read_text()
            found = [word for word in ("entry_points", "spec_from_file", "exec_module", "SourceFileLoader", "runpy",
                                       "add_rule(", "add_preset(") if word in text.replace("def add_", "")]
            assert not found or path.name == "children.py", (path, found)
    tried = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from mcoe_model.errors import SettingsError
from server.round_settings import RoundSettings
from mcoe_model.learning.settings import FineTuneSettings
for rule in ({EXAMPLE!r}, "their-median"):
    try:
        RoundSettings(FineTuneSettings(), rule=rule)
    except SettingsError as fault:
        assert "rule must be one of" in str(fault)
    else:
        raise AssertionError(rule)
"""
    subprocess.run([sys.executable, "-c", tried], check=True)
