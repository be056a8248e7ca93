"""Spans in exactly SEE's layout (`mcoe_model.data.see`), for whatever reads SEE.

Sex, age and correction of sight are not known to a wearable: SEE's names say unknown, 0 and unknown. Nor is the light,
for which SEE has no word of that kind: they say normal.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence

from PIL import Image

from client.export.everything import ExportFile
from client.export.replayed import pictures
from client.export.study_spans import StudySpan
from client.sessions import Store
from mcoe_model.data.events import PERIOD_US
from mcoe_model.data.synthetic.design import emotion_folder
from mcoe_model.errors import DataInvalid
from mcoe_model.names import EMOTIONS
from mcoe_model.progress import Progress

_JPEG_QUALITY = 95
#: A pair of pictures takes about so much at most: those of a very noisy event camera.
_PAIR_BYTES = 16 << 10


def fit(spans: Sequence[StudySpan]) -> list[StudySpan]:
    """Those of the seven emotions, of recordings whose frames and events fit together."""
    return [one for one in spans if one.said in EMOTIONS and one.recording.flaw is None]


def needs(one: StudySpan) -> int:
    """About how many bytes a span takes."""
    return round(one.seconds * 1e6 / PERIOD_US) * _PAIR_BYTES


def files(store: Store, spans: Sequence[StudySpan], progress: Progress) -> Iterator[ExportFile]:
    """Pictures, then emotion.json. Raises DataInvalid for a span without any."""
    takes: Counter[str] = Counter()
    database = {}
    for done, one in enumerate(spans):
        progress(done, len(spans), "")
        pairs = pictures(store, one)
        if not pairs:
            raise DataInvalid(f"span {one.span.id} holds no pictures; discard it, then export again")
        folder = emotion_folder(one.said)
        name = f"{one.number}_{one.wearer}_unknown_0_unknown_normal_{one.said}_{len(pairs)}_take{takes[one.said]:03d}"
        takes[one.said] += 1
        for index, pair in enumerate(pairs):
            yield f"event/{folder}/{name}/{index:05d}.jpg", _jpeg(pair.event)
            yield f"frame/{folder}/{name}/{index:05d}.jpg", _jpeg(pair.frame)
        database[name] = {"subset": "training", "annotations": {"label": folder, "segment": [0, len(pairs)]}}
    progress(len(spans), len(spans), "")
    labels = [emotion_folder(emotion) for emotion in EMOTIONS]
    yield "emotion.json", json.dumps({"labels": labels, "database": database}, indent=2).encode() + b"\n"


def _jpeg(picture: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=_JPEG_QUALITY)  # type: ignore[arg-type]
    return file.getvalue()
