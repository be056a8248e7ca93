"""Everything about a wearer, for the wearer: JSON for people and programs, recordings as AEDAT4 (GDPR Art. 15 and 20).

    README.txt                      what is what
    wearer.json                     code, when this was made, what could not be read
    consents.json, consent_texts/   every answer and withdrawal, and the texts that they are about
    sessions.json                   sessions with their clocks, markers, spans, label versions, predictions
    markers.json                    what was marked outside of sessions
    prompts.json, training.json     questions and their times; what was learned and when
    recordings/SESSION/000000.aedat4

A recording's header names the model of its camera, never a serial (`client.recorder`). Times are UTC microseconds, or
the camera's where they say so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from client.sessions import Recording, Store, now
from mcoe_model.errors import DataInvalid, DataMissing

#: A file of an export: its name within, and its content.
ExportFile = tuple[str, bytes]

_README = """This is everything that your wearable knows about you. It is not encrypted: whoever has it can read it.

wearer.json     your code, when this was made, and recordings that could not be read
consents.json   what you agreed to and withdrew, and when; the texts are in consent_texts
sessions.json   your recordings, the spans you labelled (every version of every label), and what the model took them for
markers.json    what was marked outside of recordings
prompts.json    the questions you were asked, and when you saw and answered them
training.json   when the model learned from you, and how well it did
recordings      pictures and events as AEDAT4 files (read by dv-processing, aedat and others), ten seconds each

Times that end in _us are microseconds: start_us, end_us, starts_us, ends_us and camera_us of the camera's clock, all
others since 1970 in UTC.
"""


def needed_bytes(store: Store) -> int:
    """About how much room it takes."""
    return store.used_bytes() + (8 << 20)


def everything(store: Store, wearer: str) -> Iterator[ExportFile]:
    """The files, one after the other; a recording's segment is in memory while it is handed out.

    Segments that cannot be read, or were deleted meanwhile, are named in wearer.json, the last file. Raises Locked.
    """
    sessions = store.sessions()
    yield "README.txt", _README.encode()
    yield "consents.json", _json([asdict(answer) for answer in store.consent_history()])
    for sha256 in sorted({answer.text_sha256 for answer in store.consent_history()}):
        text = store.consent_text(sha256)
        if text is not None:
            yield f"consent_texts/{text.version}-{text.language}-{sha256[:12]}.txt", text.text.encode()
    yield "sessions.json", _json([_session(store, session) for session in sessions])
    yield "markers.json", _json([asdict(marker) for marker in store.markers() if marker.session is None])
    yield "prompts.json", _json([asdict(prompt) | {"delay_us": prompt.delay_us} for prompt in store.prompts()])
    yield "training.json", _json([asdict(training) for training in store.trainings()])
    unreadable: list[str] = []
    for session in sessions:
        yield from _recordings(store, session.id, unreadable)
    about = {"wearer": wearer, "made_us": now().utc_us, "program": f"mcoe {version('mcoe')}"}
    yield "wearer.json", _json(about | {"unreadable": unreadable})


def _recordings(store: Store, session: str, unreadable: list[str]) -> Iterator[ExportFile]:
    try:
        segments = store.segments(session)
    except DataMissing:  # discarded meanwhile
        segments = []
    for segment in segments:
        name = f"recordings/{session}/{segment.number:06d}.aedat4"
        try:
            yield name, b"".join(store.open_segment(segment))
        except (DataInvalid, DataMissing):
            unreadable.append(name)


def _session(store: Store, session: Recording) -> dict[str, Any]:
    predictions = store.predictions(session.id)
    spans = [
        asdict(span)
        | {
            "predicted": asdict(predictions[span.id]) if span.id in predictions else None,
            "label_versions": [asdict(one) for one in store.versions(span.id)],
        }
        for span in store.spans(session.id)
    ]
    return asdict(session) | {
        "clocks": [asdict(clock) for clock in store.clocks(session.id)],
        "markers": [asdict(marker) for marker in store.markers(session.id)],
        "spans": spans,
    }


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
