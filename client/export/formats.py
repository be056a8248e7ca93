"""The formats that a study can ask for, and what writes each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from client.export import aedat4, events_csv, see
from client.export.everything import ExportFile
from client.export.study_spans import StudySpan
from client.sessions import Store
from mcoe_model.progress import Progress

StudyFormat = Literal["see", "aedat4", "csv"]
STUDY_FORMATS: tuple[StudyFormat, ...] = get_args(StudyFormat)


@dataclass(frozen=True)
class Format:
    """``fit``: the spans that it can hold; ``files``: what they become, progress in spans; ``needs``: bytes of one."""

    fit: Callable[[Sequence[StudySpan]], list[StudySpan]]
    files: Callable[[Store, Sequence[StudySpan], Progress], Iterator[ExportFile]]
    needs: Callable[[StudySpan], int]


FORMATS: dict[StudyFormat, Format] = {
    "see": Format(see.fit, see.files, see.needs),
    "aedat4": Format(list, aedat4.files, aedat4.needs),
    "csv": Format(list, events_csv.files, events_csv.needs),
}
