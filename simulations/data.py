"""The clips of a run: which reader its data need, and what it shows of events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mcoe_model.data.cache import Clips, read_clips
from mcoe_model.data.manifest import ManifestReader
from mcoe_model.data.reader import DataReader
from mcoe_model.data.representations import REPRESENTATIONS, TERNARY, Drawn, Representation
from mcoe_model.data.see import SeeReader
from mcoe_model.data.synthetic.raw import write_raw_events
from simulations.console import Display
from simulations.exported_spans import OPENERS, SPANS, SpansReader
from simulations.own import Own, make
from simulations.scene import cache_folder, synthetic_root
from simulations.settings import SimulationSettings


def data_root(settings: SimulationSettings, display: Display) -> Path:
    """Where the data of a run are. Synthetic data are made once and kept in the cache, with the events themselves for
    a representation that needs these."""
    if settings.synthetic is None:
        return Path(settings.data)
    workers = settings.processes
    root = synthetic_root(settings.synthetic, workers, display.phase("synthetic data"))
    if settings.representation == TERNARY.name:
        return root
    return write_raw_events(root, settings.synthetic, workers=workers, progress=display.phase("synthetic events"))


def reader_of(root: Path) -> DataReader:
    """What reads the data at a place: a table of clips, spans that wearables exported, or else SEE."""
    if root.suffix.lower() == ".csv":
        return ManifestReader(root, OPENERS)
    if (root / SPANS).is_file() or any(root.glob(f"*/{SPANS}")):
        return SpansReader(root)
    return SeeReader(root)


def run_clips(settings: SimulationSettings, root: Path, own: Mapping[str, Own], display: Display) -> Clips:
    """The decoded clips of a run. Raises as `read_clips`, and as `make` for code of one's own."""
    reader: DataReader = make(own["data-reader"], root) if "data-reader" in own else reader_of(root)
    return read_clips(
        reader,
        _representation(settings, own),
        size=settings.picture_size,
        cache=cache_folder() / "clips",
        version=own["data-reader"].sha256 if "data-reader" in own else "",
        progress=display.phase("decode pictures"),
        workers=settings.processes,
    )


def representation_name(settings: SimulationSettings, own: Mapping[str, Own]) -> str:
    """What model cards call the representation of a run: one's own by its code, so that no other is taken for it."""
    return own["representation"].label if "representation" in own else settings.representation


def _representation(settings: SimulationSettings, own: Mapping[str, Own]) -> Representation:
    if "representation" not in own:
        return REPRESENTATIONS[settings.representation]
    made: Representation = make(own["representation"])
    return Drawn(representation_name(settings, own), made.channels, made.background, made.draw)
