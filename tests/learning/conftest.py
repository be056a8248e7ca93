"""Real clips for the learning tests: a small synthetic data set, written and decoded once."""

from pathlib import Path

import pytest

from mcoe_model.data.cache import Clips, open_clips
from mcoe_model.data.synthetic.settings import SyntheticSettings
from mcoe_model.data.synthetic.writer import write_see


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """Eight subjects with three sequences each, 32 pixels."""
    folder: Path = tmp_path_factory.mktemp("clips")
    write_see(folder / "see", SyntheticSettings(subjects=8, sequences=3, size=32, seed=7))
    return open_clips(folder / "see", size=32, cache=folder / "cache")
