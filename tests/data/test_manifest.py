"""A data set that a table describes: the same clips as its files hold, and every bad row in one line."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from see_folder import SeeFolder

from mcoe_model.data.cache import open_clips, read_clips
from mcoe_model.data.events import EVENT
from mcoe_model.data.manifest import OPTIONAL, REQUIRED, ManifestReader
from mcoe_model.data.reader import RawEvents, RecordedClip
from mcoe_model.data.representations import REPRESENTATIONS, TERNARY
from mcoe_model.data.see import read_see
from mcoe_model.errors import DataInvalid, DataMissing, ExitCode, SettingsError
from mcoe_model.learning.samples import PictureSamples, encode_clips
from mcoe_model.model_file import Normalisation
from mcoe_model.networks import PRESETS, build

SIZE = 16
Row = dict[str, str]


@pytest.fixture
def rows(see: SeeFolder) -> list[Row]:
    """A row for each sequence of a SEE folder."""
    return [
        {
            "clip": record.name, "subject": record.subject, "session": "1", "label": record.emotion,
            "frames": record.frame_folder, "events": record.event_folder,
            "lighting": record.lighting, "split": record.split,
        }
        for record in read_see(see.root).records
    ]  # fmt: skip


def write(table: Path, rows: list[Row], columns: tuple[str, ...] = (*REQUIRED, *OPTIONAL)) -> Path:
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return table


def write_events(path: Path, windows: int, *, side: int = 20, **changed: object) -> np.ndarray:
    """Events of a clip of so many windows; returns them."""
    random = np.random.default_rng(windows)
    events = np.empty(300, EVENT)
    events["timestamp"] = np.sort(random.integers(1, windows * 1000 + 1, 300))
    events["x"], events["y"] = random.integers(0, side, 300), random.integers(0, side, 300)
    events["polarity"] = random.integers(0, 2, 300)
    arrays = {name: events[name] for name in EVENT.names} | {"edges": np.arange(windows + 1) * 1000} | changed
    np.savez(path, allow_pickle=False, **{name: array for name, array in arrays.items() if array is not None})
    return events


def test_pictures_are_those_of_the_folders(see: SeeFolder, rows: list[Row], tmp_path: Path) -> None:
    table = write(see.root / "clips.csv", rows[::-1])
    clips = read_clips(ManifestReader(table), TERNARY, size=SIZE, cache=tmp_path / "cache")
    direct = open_clips(see.root, size=SIZE, cache=tmp_path / "cache")
    known = {record.name: index for index, record in enumerate(direct.records)}
    assert [record.name for record in clips.records] == sorted(known, key=lambda name: (name.split("_")[1], name))
    for index, record in enumerate(clips.records):
        other = direct.records[known[record.name]]
        assert record.session == "1" and other.session == ""
        assert (record.lighting, record.emotion, record.split) == (other.lighting, other.emotion, other.split)
        for one, wanted in zip(clips.pictures(index), direct.pictures(known[record.name]), strict=True):
            np.testing.assert_array_equal(one, wanted)
    ordered = read_clips(ManifestReader(write(table, rows)), TERNARY, size=SIZE, cache=tmp_path / "cache")
    assert ordered.sha256 == clips.sha256 and ordered.path != clips.path


def test_performances_are_numbered_within_a_session(see: SeeFolder, rows: list[Row]) -> None:
    table = write(see.root / "clips.csv", [rows[0] | {"clip": f"c{i}", "session": f"{i // 3}"} for i in range(5)])
    assert [(r.session, r.take) for r in ManifestReader(table).index().records] == [
        ("0", 0), ("0", 1), ("0", 2), ("1", 0), ("1", 1)
    ]  # fmt: skip


def test_lighting_and_split_may_be_left_out(see: SeeFolder, rows: list[Row]) -> None:
    table = write(see.root / "clips.csv", rows, REQUIRED)
    records = ManifestReader(table).index().records
    assert {(record.lighting, record.split) for record in records} == {("normal", "training")}


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_events_are_shown_as_asked(see: SeeFolder, rows: list[Row], tmp_path: Path, name: str) -> None:
    events = write_events(see.root / "one.npz", 6)
    table = write(see.root / "clips.csv", [rows[0] | {"events": "one.npz"}])
    made = REPRESENTATIONS[name]
    clips = read_clips(ManifestReader(table), made, size=20, cache=tmp_path / "cache")
    frames, shown = clips.pictures(0)
    assert (clips.representation, clips.channels, clips.background) == (name, made.channels, made.background)
    assert frames.shape == (6, 20, 20)
    for window in range(6):
        start, end = 1000 * window, 1000 * window + 1000
        inside = events[(events["timestamp"] > start) & (events["timestamp"] <= end)]
        wanted = made.draw(inside, start, end, (20, 20))
        np.testing.assert_array_equal(shown[window].reshape(wanted.shape), wanted)
    clips.verify()


@pytest.mark.parametrize("name", ["two-channel-counts", "voxel-grid"])
def test_models_see_every_channel(see: SeeFolder, rows: list[Row], tmp_path: Path, name: str) -> None:
    """Features of whole clips, and of windows that may be augmented, are of the same pictures."""
    write_events(see.root / "one.npz", 6)
    table = write(see.root / "clips.csv", [rows[0] | {"events": "one.npz"}])
    clips = read_clips(ManifestReader(table), REPRESENTATIONS[name], size=32, cache=tmp_path / "cache")
    model, constants = build("mcoe-tiny", seed=0).eval(), Normalisation(0.3, 0.2, 0.1, 0.2)
    window = np.array([[0, 1, 2, 5]])
    one = PictureSamples(clips, (0,), constants).head_inputs(model, [0], window, None)
    other = encode_clips(model, clips, [0], constants).head_inputs(model, [0], window, None)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a.detach(), b, atol=1e-4)
    black = clips.pictures(0)[1].copy()
    black[:, -1] = 255 - black[:, -1]
    clips.pictures = lambda clip: (type(clips).pictures(clips, clip)[0], black)  # type: ignore[method-assign]
    changed = PictureSamples(clips, (0,), constants).head_inputs(model, [0], window, None)
    assert not np.allclose(one[2].detach(), changed[2].detach()) and PRESETS["mcoe-tiny"].sampling.events == (0, -1)


def test_pictures_are_no_events(see: SeeFolder, rows: list[Row], tmp_path: Path) -> None:
    reader = ManifestReader(write(see.root / "clips.csv", rows))
    with pytest.raises(SettingsError, match=r"voxel-grid needs events, and .*clips.csv holds event pictures") as one:
        read_clips(reader, REPRESENTATIONS["voxel-grid"], size=SIZE, cache=tmp_path / "cache")
    assert one.value.exit_code == ExitCode.USAGE and "\n" not in str(one.value)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


BAD: dict[str, Callable[[Row], Row]] = {
    "unknown emotion 'joy'": lambda row: row | {"label": "joy"},
    "no subject": lambda row: row | {"subject": ""},
    "cannot name a file": lambda row: row | {"clip": "../up"},
    "unknown lighting 'dim'": lambda row: row | {"lighting": "dim"},
    "neither training nor testing": lambda row: row | {"split": "both"},
    "there is no nowhere": lambda row: row | {"events": "nowhere"},
    "no folder of frames": lambda row: row | {"frames": "nowhere"},
    "no pictures in frame": lambda row: row | {"frames": "frame"},
    "is neither a folder of pictures nor a file": lambda row: row | {"events": "emotion.json"},
    "is there twice": lambda row: row | {"clip": "11_003_man_22_Doctor_Low_surprise_6_take002"},
}


@pytest.mark.parametrize("says", BAD)
def test_a_bad_row_is_named_with_its_line(see: SeeFolder, rows: list[Row], says: str) -> None:
    rows[4] = BAD[says](rows[4])
    with pytest.raises(DataInvalid, match=rf"clips.csv: 1 of 5 rows cannot be used: line 6: .*{says}") as told:
        ManifestReader(write(see.root / "clips.csv", rows)).index()
    assert told.value.exit_code == ExitCode.DATA_INVALID and "\n" not in str(told.value)


def test_bad_rows_are_counted(see: SeeFolder, rows: list[Row]) -> None:
    bad = [row | {"label": "joy"} for row in rows * 2]
    with pytest.raises(DataInvalid, match=r"10 of 10 rows cannot be used: line 2: .*line 6: .*; \.\.\.; mend"):
        ManifestReader(write(see.root / "clips.csv", bad)).index()


@pytest.mark.parametrize("content", [b"clip,subject\n1,2\n", b"\xff\xfe", b'clip,"', b""])
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clips.csv").write_bytes(content)
    with pytest.raises(DataInvalid, match="is not a table of clips"):
        ManifestReader(tmp_path / "clips.csv").index()
    with pytest.raises(DataMissing, match="no table"):
        ManifestReader(tmp_path / "other.csv").index()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"x": np.full(300, 20)}, "beyond the frames of 20 x 20"),
        ({"x": np.full(300, -1)}, "beyond the frames"),
        ({"x": np.full(300, 0.5)}, "no whole pixels"),
        ({"timestamp": np.arange(300)[::-1]}, "not in the order of their times"),
        ({"edges": np.arange(5)}, "6 windows need 7 ascending edges"),
        ({"edges": np.zeros(7)}, "ascending edges"),
        ({"polarity": np.ones(7)}, "differ in length"),
        ({"polarity": None}, "no events that can be read"),
    ],
)
def test_events_that_do_not_fit_take_their_clip_out(
    see: SeeFolder, rows: list[Row], tmp_path: Path, changed: dict[str, object], says: str
) -> None:
    write_events(see.root / "bad.npz", 6, **changed)
    write_events(see.root / "good.npz", 5)
    table = write(see.root / "clips.csv", [rows[0] | {"events": "bad.npz"}, rows[1] | {"events": "good.npz"}])
    clips = read_clips(ManifestReader(table), TERNARY, size=SIZE, cache=tmp_path / "cache")
    assert [record.name for record in clips.records] == [rows[1]["clip"]]
    (skipped,) = clips.skipped
    assert skipped.name == rows[0]["clip"] and says in skipped.reason


def test_a_torn_file_takes_its_clip_out(see: SeeFolder, rows: list[Row], tmp_path: Path) -> None:
    write_events(see.root / "torn.npz", 6)
    (see.root / "torn.npz").write_bytes((see.root / "torn.npz").read_bytes()[:900])
    table = write(see.root / "clips.csv", [rows[0] | {"events": "torn.npz"}, rows[1]])
    clips = read_clips(ManifestReader(table), TERNARY, size=SIZE, cache=tmp_path / "cache")
    assert [skipped.name for skipped in clips.skipped] == [rows[0]["clip"]]


def test_whole_clips_are_opened_by_their_ending(see: SeeFolder, rows: list[Row], tmp_path: Path) -> None:
    (see.root / "one.rec").write_bytes(b"")
    asked: list[tuple[str, str]] = []

    def opened(path: Path, row: object) -> RecordedClip:
        asked.append((path.name, dict(row)["side"]))  # type: ignore[call-overload]
        return RecordedClip([np.zeros((8, 8), np.uint8)] * 2, RawEvents(np.empty(0, EVENT), np.arange(3)))

    row = rows[0] | {"frames": "", "events": "one.rec", "side": "240"}
    table = write(see.root / "clips.csv", [row], (*REQUIRED, "side"))
    clips = read_clips(ManifestReader(table, {".rec": opened}), TERNARY, size=8, cache=tmp_path / "cache")
    assert asked == [("one.rec", "240")] and clips.n_frames(0) == 2
    write(table, [row | {"frames": rows[0]["frames"]}])
    with pytest.raises(DataInvalid, match="holds the frames too"):
        ManifestReader(table, {".rec": opened}).index()
