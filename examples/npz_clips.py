"""A reader of one's own: a folder of ``subject_session_emotion_take.npz`` files with frames and events.

Each holds ``frames`` (n, H, W) uint8 and ``events`` (n, H, W) uint8, which look as SEE's event pictures; or, in place
of ``events``, ``timestamp``, ``x``, ``y``, ``polarity`` and ``edges`` (`mcoe_model.data.manifest.read_events`).

    python simulations/conformance.py data-reader examples/npz_clips.py:NpzClips --data my/clips
    python simulations/see_by_subject.py --data my/clips --data-reader examples/npz_clips.py:NpzClips
"""

import hashlib
from pathlib import Path

from mcoe_model.data.manifest import read_arrays, read_events
from mcoe_model.data.reader import ClipRecord, DataIndex, RecordedClip, Unusable
from mcoe_model.errors import DataMissing
from mcoe_model.names import parse_emotion


class NpzClips:
    """A data set (`mcoe_model.data.reader.DataReader`)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.place = str(root)

    def index(self) -> DataIndex:
        files = sorted(self.root.glob("*_*_*_*.npz"))
        if not files:
            raise DataMissing(f"{self.root} holds no file subject_session_emotion_take.npz")
        fingerprint = hashlib.sha256()
        records = []
        for file in files:
            status = file.stat()
            fingerprint.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
            subject, session, emotion, _ = file.stem.split("_", 3)
            records.append(ClipRecord(file.stem, subject, session, "normal", parse_emotion(emotion), "training", 0))
        return DataIndex(tuple(records), (), fingerprint.hexdigest())

    def clip(self, record: ClipRecord) -> RecordedClip:
        path = self.root / f"{record.name}.npz"
        try:
            stored = read_arrays(path)  # clips are opened in several threads
            events = list(stored["events"]) if "events" in stored else read_events(path)
            return RecordedClip(list(stored["frames"]), events)
        except (OSError, ValueError, KeyError) as fault:
            raise Unusable(f"{path.name} cannot be read: {fault}") from fault
