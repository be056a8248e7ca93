"""Everything about a wearer, for the wearer: JSON for people and programs, recordings as AEDAT4 (GDPR Art. 15 and 20).

    README.txt                      what is what
    wearer.json                     code, when this was made, what could not be read
    consents.json, consent_texts/   every answer and withdrawal, and the texts that they are about
    sessions.json                   sessions with their clocks, markers, spans, label versions, predictions
    markers.json                    what was marked outside of sessions
    prompts.json, training.json     questions and their times; what was learned and when
    fleet.json                      membership without its key, and what became of leaving
    fit.json, health.json, ...      the small files of the wearer's folder, as they are
    models/SHA256.safetensors       models that were learned here, opened
    recordings/SESSION/000000.aedat4

README.txt says what is not in it, and why. A recording's header names the model of its camera, never a serial
(`client.recorder`). Times are UTC microseconds, or the camera's where they say so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from client.enrolment import ClientPaths, read_membership
from client.keys import DeviceKey
from client.leaving import Leaving, key_id
from client.own_models import PLAIN, SEALED, plain_file
from client.sessions import Recording, Store, now
from mcoe_model.errors import DataInvalid, DataMissing

#: A file of an export: its name within, and its content.
ExportFile = tuple[str, bytes]

_README = """This is what your wearable knows about you. It is not encrypted: whoever has it can read it.

wearer.json     your code, when this was made, and what could not be read
consents.json   what you agreed to and withdrew, and when; the texts are in consent_texts
sessions.json   your recordings, the spans you labelled (every version of every label), and what the model took them for
markers.json    what was marked outside of recordings
prompts.json    the questions you were asked, and when you saw and answered them
training.json   when the model learned from you, and how well it did
fleet.json      the fleet that you belong to, under which name, and what its server was told and said if you left it
fit.json        where your eye is in the camera's picture
health.json     how the wearable is, as the fleet is told
running.json    which model recognises
told.json       what the fleet's server said of this program, and when it will be asked again
traffic.json    how many bytes went to and from the fleet
models          models that were learned from you here, as safetensors files
recordings      pictures and events as AEDAT4 files (read by dv-processing, aedat and others), ten seconds each

Times that end in _us are microseconds: start_us, end_us, starts_us, ends_us and camera_us of the camera's clock, all
others since 1970 in UTC.

Not in it, though it lies in the wearable:
lessons         what the model learns from: numbers that were computed from your recordings, also from deleted ones, and
                that only the program can make anything of
outbox          updates that wait for the fleet's server: what training changed in the model, computed from the same
device.key      opens all of it; and node, which speaks for the wearable to the fleet: no copy of a key is handed out
The fleet's models and certificate (ca.crt) say nothing of you: others have them, too.
"""


def needed_bytes(store: Store, paths: ClientPaths) -> int:
    """About how much room it takes."""
    return store.used_bytes() + sum(map(_size, _own_models(paths))) + (8 << 20)


def everything(store: Store, key: DeviceKey, paths: ClientPaths, folder: Path) -> Iterator[ExportFile]:
    """The files, one after the other; a recording's segment is in memory while it is handed out.

    ``paths`` are the wearer's files, ``folder`` is the wearable's. Nothing is changed. What cannot be read, or was
    deleted meanwhile, is named in wearer.json, the last file. Raises Locked.
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
    yield "fleet.json", _json(_fleet(paths, folder))
    for file in (paths.folder / "fit.json", paths.health, paths.running, paths.told, paths.traffic):
        with suppress(FileNotFoundError):
            yield file.name, file.read_bytes()
    unreadable: list[str] = []
    for path in _own_models(paths):
        name = f"models/{path.stem}{PLAIN}"
        try:
            yield name, plain_file(path, key.derive("lessons"))
        except (DataInvalid, DataMissing):
            unreadable.append(name)
    for session in sessions:
        yield from _recordings(store, session.id, unreadable)
    about = {"wearer": paths.folder.name, "made_us": now().utc_us, "program": f"mcoe {version('mcoe')}"}
    yield "wearer.json", _json(about | {"unreadable": unreadable})


def _fleet(paths: ClientPaths, folder: Path) -> dict[str, Any]:
    """What ties the wearer to a fleet, and what became of leaving it; None for what there is not."""
    membership = None
    with suppress(DataMissing, DataInvalid):
        membership = asdict(read_membership(paths))
    left = Leaving(folder).of(key_id(paths))
    return {"membership": membership, "leaving": asdict(left) if left else None}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # learned anew meanwhile
        return 0


def _own_models(paths: ClientPaths) -> list[Path]:
    return sorted(paths.models.glob(f"*{SEALED}"))


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
