"""A wearer with labelled sessions, for the tests of exports: a camera's file, through the real recorder."""

from __future__ import annotations

from pathlib import Path

from session_times import GEOMETRY
from toy_recordings import START_US, write_recording

from client import keys
from client.cameras.recording import Recording
from client.consent_text import ConsentText, read_consent_text
from client.keys import DeviceKey
from client.recorder import Recorder
from client.segment_files import PlainSegment
from client.sessions import Label, Prediction, Store
from client.settings import load_settings
from client.wearers import Wearers
from mcoe_model.consent import CONSENTS
from mcoe_model.names import EMOTIONS

#: What the camera's own file names, and what nothing that leaves may name.
SERIAL = "00000142"
SECOND = 1_000_000


class Wearer:
    """A wearable's folder, whose key needs no passphrase, and its open store."""

    def __init__(self, folder: Path, code: str = "Marianne", agreed: tuple[str, ...] = CONSENTS) -> None:
        folder.mkdir()
        self.folder = folder
        self.code = code
        self.paths = Wearers(folder).new(code)
        self.key: DeviceKey = keys.make_keyfile(self.paths.device_key)
        self.store = Store(self.paths.store, self.paths.recordings, load_settings(folder, {}).rules(), self.key)
        self.store.answer_consents({kind: kind in agreed for kind in CONSENTS}, self.text)
        self._memory = folder.with_name(f"{folder.name}-memory")
        self._memory.mkdir()

    @property
    def text(self) -> ConsentText:
        return read_consent_text(None, "en")

    def record(self, seconds: int = 1, per_packet: int = 20) -> str:
        """A session of what a camera's file holds; its id."""
        camera = self._memory / "camera.aedat4"
        write_recording(camera, seconds, per_packet)
        assert SERIAL.encode() in camera.read_bytes()
        session, made = self.store.begin_session("DAVIS346", GEOMETRY), list[PlainSegment]()
        recorder, recording = Recorder(self._memory, session, made.append), Recording(camera, pace=None)
        while (portion := recording.read()) is not None or not recording.ended:
            if portion is not None:
                recorder.add(portion)
        recorder.cut(last=True)
        for one in made:
            counts = {"events": one.events, "frames": one.frames, "imu": one.imu, "triggers": one.triggers}
            self.store.add_segment(session, one.number, one.path, one.starts_us, one.ends_us, **counts)
        self.store.end_session(session)
        return session

    def label(self, session: str, start_s: float, end_s: float, label: str) -> int:
        """Mark a part of a session and say what it was; the span."""
        bounds = START_US + round(start_s * SECOND), START_US + round(end_s * SECOND)
        predicted = Prediction((0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1), "c" * 64)
        span = self.store.add_span(session, *bounds, predicted=predicted).id
        self.store.label(span, Label(label, 3 if label in EMOTIONS else None))
        return span


def a_labelled_wearer(folder: Path) -> Wearer:
    """Two seconds: happiness, neutral, other, skipped, and one without a label."""
    made = Wearer(folder)
    session = made.record(seconds=2)
    for start_s, label in ((0.2, "happiness"), (0.8, "neutral"), (1.0, "other"), (1.2, "skip")):
        made.label(session, start_s, start_s + 0.6, label)
    made.store.add_span(session, START_US, START_US + SECOND)
    made.store.add_marker("wearer", "my boss Heinz came in", session_id=session, camera_us=START_US + 300_000)
    return made
