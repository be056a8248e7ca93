"""The benchmark beside avalanche-lib times learning on both sides, and no import."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mcoe_model.learning.settings import FineTuneSettings

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "avalanche_anchor.py"
#: What a benchmark of theirs is made from, by module.
THEIRS = {
    "": "",
    "benchmarks": "def benchmark_from_datasets(**_): pass",
    "benchmarks.utils": "AvalancheDataset = DataAttribute = None",
    "training": "",
    "training.plugins": "ReplayPlugin = None",
    "training.supervised": "DER = Naive = None",
}


@pytest.fixture
def anchor() -> ModuleType:
    spec = importlib.util.spec_from_file_location("avalanche_anchor", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_their_library_is_loaded_before_anything_is_timed(
    anchor: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its place stands a package of the same names; the environment of the tests has no avalanche-lib."""
    for name, code in THEIRS.items():
        folder = tmp_path / "avalanche" / Path(*name.split("."))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text(code + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    loaded: list[set[str]] = []

    def learn(*_: Any, **__: Any) -> Any:
        loaded.append({name for name in sys.modules if name.partition(".")[0] == "avalanche"})
        return np.array([[0.1, 0.1], [0.5, 0.1], [0.4, 0.6]])  # (T + 1, T)

    run = SimpleNamespace(
        settings=SimpleNamespace(recipe=FineTuneSettings(), seeds=1, lesson=7),
        streams=[SimpleNamespace(device="one", stages=()), SimpleNamespace(device="two", stages=())],
    )
    monkeypatch.setattr(anchor.torch.library, "define", lambda *_: None)
    monkeypatch.setattr(anchor, "open_run", lambda _: run)
    monkeypatch.setattr(anchor, "base_and_clips", lambda *_: (None, None))
    monkeypatch.setattr(anchor, "middle_only", lambda *_: None)
    monkeypatch.setattr(anchor, "ours", learn)
    monkeypatch.setattr(anchor, "theirs", learn)
    try:
        rows = list(anchor.compare(tmp_path, 14))
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "avalanche"]:
            del sys.modules[name]
    assert [row["method"] for row in rows] == ["latent-replay", "der++:0.3:1.0"]
    every = {f"avalanche.{name}".rstrip(".") for name in THEIRS}
    assert len(loaded) == 8 and all(names == every for names in loaded), "two methods, sides and wearers"
