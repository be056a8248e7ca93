"""Synthetic events themselves: they are those that the synthetic event pictures show."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mcoe_model.data.cache import open_clips, read_clips
from mcoe_model.data.manifest import ManifestReader
from mcoe_model.data.reader import RecordedClip, check_clip
from mcoe_model.data.representations import REPRESENTATIONS, TERNARY
from mcoe_model.data.synthetic import SyntheticSettings
from mcoe_model.data.synthetic.clip import draw_clip, draw_raw_events
from mcoe_model.data.synthetic.design import plan
from mcoe_model.data.synthetic.raw import TABLE, write_raw_events
from mcoe_model.data.synthetic.writer import write_see
from mcoe_model.errors import OutputExists


def test_events_shown_as_ternary_are_the_pictures_that_are_drawn() -> None:
    settings = SyntheticSettings(subjects=4, sequences=1, design="crossed", size=32, seed=5)
    for clip in [replace(clip, length=9) for clip in plan(settings)]:
        frames, pictures = draw_clip(clip, settings)
        raw = draw_raw_events(clip, settings)
        check_clip(RecordedClip(frames, raw))
        assert len(raw.events) and raw.events["timestamp"][0] > 0 and raw.events["timestamp"][-1] <= raw.edges_us[-1]
        cuts = np.searchsorted(raw.events["timestamp"], raw.edges_us, side="right")
        for window, (first, last) in enumerate(itertools.pairwise(cuts)):
            shown = TERNARY.draw(raw.events[first:last], 0, 1, (32, 32))
            np.testing.assert_array_equal(shown[0], pictures[window])


def test_a_set_has_its_events_and_a_table_of_them(tmp_path: Path) -> None:
    settings = SyntheticSettings(subjects=1, sequences=2, size=32, design="see-like", seed=5)
    root = tmp_path / "set"
    write_see(root, settings)
    table = write_raw_events(root, settings)
    assert table == root / TABLE
    kept = {path.name: path.read_bytes() for path in (root / "raw").iterdir()}
    next((root / "raw").iterdir()).unlink()
    write_raw_events(root, settings, workers=2)
    assert {path.name: path.read_bytes() for path in (root / "raw").iterdir()} == kept, "the same bits, made anew"
    with pytest.raises(OutputExists):
        write_raw_events(root, replace(settings, seed=6))
    by_table = read_clips(ManifestReader(table), REPRESENTATIONS["voxel-grid"], size=32, cache=tmp_path / "cache")
    by_folder = open_clips(root, size=32, cache=tmp_path / "cache")
    assert {replace(record, session="", take=0) for record in by_table.records} == {
        replace(record, take=0) for record in by_folder.records
    }
    assert not by_table.skipped and by_table.pictures(0)[1].std() > 0
