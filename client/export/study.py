"""A study's export: one file on a local medium that only the study can open. Only at the wearer's explicit command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from client.export.formats import FORMATS, StudyFormat
from client.export.place import check_file, check_place
from client.export.study_spans import require_agreement, study_spans
from client.keys import DeviceKey
from client.sessions import Store
from mcoe_model.errors import DataMissing
from mcoe_model.plain_tar import tar
from mcoe_model.progress import Progress, silent
from mcoe_model.study import StudyKey, write_for_study


@dataclass(frozen=True)
class Handed:
    """What is in the file: the wearer's pseudonym, how many spans, and how many more the format cannot hold."""

    wearer: str
    spans: int
    left_out: int


def export_for_study(
    store: Store,
    key: DeviceKey,
    study: StudyKey,
    form: StudyFormat,
    out: Path,
    wearable: Path,
    progress: Progress = silent,
) -> Handed:
    """Write the labelled spans of a wearer who agreed to it as ``out``; ``progress`` counts spans.

    Raises ConsentMissing, Locked, DataMissing, DataInvalid, and what `check_place` raises.
    """
    chosen = FORMATS[form]
    found = study_spans(store, key, study)
    spans = chosen.fit(found)
    if not spans:
        raise DataMissing(f"no labelled recording fits {form}; export another format")
    needed = sum(chosen.needs(one) for one in spans)
    check_file(check_place(out, wearable, needed), needed)
    require_agreement(store)
    write_for_study(out, study, tar(chosen.files(store, spans, progress)))
    return Handed(spans[0].wearer, len(spans), len(found) - len(spans))
