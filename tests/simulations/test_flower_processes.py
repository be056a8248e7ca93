"""What is checked before any work when Flower's engine is asked for."""

import pytest
from rich.console import Console

from mcoe_model.errors import MissingExtra
from simulations import experiment, flower_engine
from simulations.console import Display
from simulations.settings import SimulationSettings


@pytest.mark.parametrize("resumed", [False, True])
def test_without_the_extra_nothing_is_begun(tmp_path, monkeypatch, resumed):
    monkeypatch.setattr(flower_engine, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install .*\[ray\]"):
        experiment.begin_or_resume(
            SimulationSettings(engine="ray"), tmp_path / "run", Display(Console(quiet=True)), resumed=resumed
        )
    assert list(tmp_path.iterdir()) == []
