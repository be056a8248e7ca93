"""Spans that wearables exported: read as the pictures that their wearers were shown, from the events themselves."""

from __future__ import annotations

import asyncio
import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import replay
from client.cameras.events import NumpyEvents
from client.cameras.source import Portion
from client.recorder import Recorder
from mcoe_model.data.cache import read_clips
from mcoe_model.data.events import EVENT, Frame
from mcoe_model.data.geometry import PICTURE_SIZE, SENSOR, Geometry
from mcoe_model.data.manifest import ManifestReader
from mcoe_model.data.representations import REPRESENTATIONS, TERNARY
from mcoe_model.errors import DataInvalid, DataMissing
from simulations.data import reader_of
from simulations.exported_spans import OPENERS, SpansReader, open_aedat4

pytest.importorskip("dv_processing")

GEOMETRY = Geometry(60, 20, 200, rotation=12.5, eye="left")
WINDOWS = 6


def record(path: Path, seed: int = 0) -> None:
    """A span as the export writes it: frames every 33 ms, events in between, times from its start."""
    random = np.random.default_rng(seed)
    frames = tuple(
        Frame(33_000 * i + 10, 5_000, random.integers(0, 256, SENSOR[::-1], np.uint8)) for i in range(WINDOWS + 1)
    )
    events = np.empty(6_000, EVENT)
    events["timestamp"] = np.sort(random.integers(0, frames[-1].end_us + 1_000, len(events)))
    events["x"], events["y"] = random.integers(0, SENSOR[0], len(events)), random.integers(0, SENSOR[1], len(events))
    events["polarity"] = random.integers(0, 2, len(events))
    path.parent.mkdir(parents=True, exist_ok=True)
    recorder = Recorder(path.parent, path.stem, lambda segment: segment.path.rename(path))
    recorder.add(Portion(NumpyEvents(events), (), None, None))
    for frame in frames:
        recorder.add(Portion(None, (frame,), None, None))
    recorder.cut(last=True)


def export(folder: Path, wearer: str, labels: tuple[str, ...], **changed: str) -> Path:
    """What one wearer exported, opened."""
    rows: list[dict[str, Any]] = []
    for number, label in enumerate(labels, 1):
        record(folder / "spans" / f"{number:04d}.aedat4", number)
        where = {name: value for name, value in asdict(GEOMETRY).items() if name != "version"}
        said = {"label": label, "starts": f"{number}.5", "day": number // 3, "flaw": ""}
        rows.append({"span": number, "wearer": wearer, "session": "a1b2c3d4"} | said | where | changed)
    with (folder / "spans.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("study") / "one", "Sabc", ("fear", "other", "neutral"))


def test_windows_are_those_that_were_shown(exported: Path) -> None:
    path = exported / "spans" / "0001.aedat4"
    shown = asyncio.run(replay.pairs([path.read_bytes()], GEOMETRY, 0, 1 << 62))
    row = {name: str(value) for name, value in asdict(GEOMETRY).items()}
    recorded = open_aedat4(path, row)
    assert len(shown) == len(recorded.frames) == WINDOWS
    raw = recorded.events
    cuts = np.searchsorted(raw.events["timestamp"], raw.edges_us, side="right")
    assert list(raw.edges_us[1:]) == [pair.end_us for pair in shown]
    for window, pair in enumerate(shown):
        np.testing.assert_array_equal(recorded.frames[window], pair.frame)
        events = raw.events[cuts[window] : cuts[window + 1]]
        picture = TERNARY.draw(events, 0, 1, (PICTURE_SIZE, PICTURE_SIZE))
        np.testing.assert_array_equal(picture[0], pair.event)
        assert len(events)


def test_spans_become_clips(exported: Path, tmp_path: Path) -> None:
    reader = reader_of(exported)
    assert isinstance(reader, SpansReader)
    clips = read_clips(reader, REPRESENTATIONS["time-surface"], size=24, cache=tmp_path / "cache")
    assert [(r.name, r.subject, r.session, r.emotion, r.n_frames) for r in clips.records] == [
        ("Sabc-a1b2c3d4-0001", "Sabc", "0000-a1b2c3d4", "fear", WINDOWS),
        ("Sabc-a1b2c3d4-0003", "Sabc", "0001-a1b2c3d4", "neutral", WINDOWS),
    ]
    ((name, reason),) = clips.skipped
    assert name == "Sabc-a1b2c3d4-0002" and "'other'" in reason
    assert clips.pictures(0)[1].shape == (WINDOWS, 2, 24, 24)


def test_exports_of_several_wearers_lie_side_by_side(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(exported)
    export(tmp_path / "two", "Sxyz", ("angry",), flaw="out-of-sync")
    index = reader_of(tmp_path).index()
    assert [record.subject for record in index.records] == ["Sabc", "Sabc"]
    assert "out-of-sync" in index.skipped[1].reason
    with pytest.raises(DataMissing, match=r"no spans\.csv"):
        SpansReader(tmp_path / "nowhere").index()


def test_a_damaged_recording_takes_its_span_out(tmp_path: Path) -> None:
    folder = export(tmp_path / "one", "Sabc", ("angry", "fear", "fear"))
    damaged = folder / "spans" / "0002.aedat4"
    damaged.write_bytes(damaged.read_bytes()[:2_000])
    (folder / "spans" / "0003.aedat4").unlink()
    clips = read_clips(SpansReader(folder), TERNARY, size=24, cache=tmp_path / "cache", workers=2)
    assert [record.emotion for record in clips.records] == ["angry"]
    assert sorted(reason.split()[0] for _, reason in clips.skipped) == ["0002.aedat4", "there"]


def test_a_table_that_is_none_of_an_export_is_refused(tmp_path: Path) -> None:
    (tmp_path / "spans.csv").write_text("span,wearer\n1,Sabc\n")
    with pytest.raises(DataInvalid, match="lacks the columns session, day"):
        SpansReader(tmp_path).index()
    export(tmp_path / "one", "Sabc", ("angry",), day="soon")
    with pytest.raises(DataInvalid, match=r"not a table of spans: .*'soon'"):
        SpansReader(tmp_path / "one").index()


def test_a_table_of_clips_may_name_recordings(exported: Path, tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    table.write_text(
        "clip,subject,session,label,frames,events,side,x,y\n"
        f"c1,p1,1,fear,,{exported}/spans/0001.aedat4,200,60,20\n"
        f"c2,p1,1,fear,,{exported}/spans/0001.aedat4,,,\n"
        f"c3,p1,1,fear,,{exported}/spans/0001.aedat4,20,,\n"
    )
    clips = read_clips(ManifestReader(table, OPENERS), TERNARY, size=90, cache=tmp_path / "cache")
    assert [record.name for record in clips.records] == ["c1", "c2"]
    assert not np.array_equal(clips.pictures(0)[0], clips.pictures(1)[0]), "another square of the sensor"
    assert "side must be between" in clips.skipped[0].reason
