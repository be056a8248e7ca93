"""Data sets for the tests of this folder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from see_folder import SeeFolder

from mcoe_model.data.reader import ClipRecord
from mcoe_model.data.see import parse_name


@pytest.fixture
def see(tmp_path: Path) -> SeeFolder:
    """Five sequences of four subjects, all sound."""
    return SeeFolder(tmp_path / "see")


@pytest.fixture(scope="session")
def published_names() -> list[str]:
    """The 767 sequence names of SEE's test split."""
    with np.load(Path(__file__).parents[1] / "golden" / "seen_e4_s3.npz", allow_pickle=False) as golden:
        return [str(name) for name in golden["names"]]


@pytest.fixture
def as_record() -> Callable[..., ClipRecord]:
    """A record from a name alone, for code that opens no picture."""

    def make(name: str, split: str = "testing") -> ClipRecord:
        parsed = parse_name(name)
        return ClipRecord(name, parsed.subject, "", parsed.lighting, parsed.emotion, split, parsed.length)

    return make
