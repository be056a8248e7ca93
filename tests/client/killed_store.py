"""A store in a process that is killed at a named moment. For `test_session_recovery.py`."""

from __future__ import annotations

import faulthandler
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from session_times import agree, opened, record

from client.sessions import recordings, retention
from client.sessions.recordings import RecordingStore

#: More than one piece of a sealed file, so that a file can be left half-written.
FIRST, SECOND = b"first eye " * 10_000, b"second eye " * 40_000


def live_until(folder: Path, moment: str, number: int) -> None:
    """Record one segment, and be ended by the signal while the second is kept, or while the session is deleted."""

    def die(*_: Any, **__: Any) -> Any:
        faulthandler.disable()  # pytest's would report a test that crashed
        os.kill(os.getpid(), number)

    def half(path: Path) -> Iterator[bytes]:
        content = path.read_bytes()
        yield content[: len(content) // 2]
        die()

    with ExitStack() as stack:
        store = stack.enter_context(opened(folder))
        agree(store)
        session = record(store, folder / "memory", FIRST, end=False)
        plain = folder / "memory" / "1.aedat4"
        plain.write_bytes(SECOND)
        real_seal = recordings.write_sealed
        match moment:
            case "before the row":
                die()
            case "between row and sealing":
                recordings.write_sealed = die
            case "while sealing":
                recordings.write_sealed = lambda path, key, context, _: real_seal(path, key, context, half(plain))
            case "between sealing and row":
                RecordingStore._count = die
            case "between row and unlink":
                Path.unlink = die
            case "after it":
                pass
            case _:
                store.end_session(session)
                if moment == "between key and files":
                    retention.shutil.rmtree = die
                elif moment == "among the files":
                    real_tree = shutil.rmtree
                    retention.shutil.rmtree = lambda tree, **_: (next(tree.iterdir()).unlink(), die(), real_tree)
                store.delete_raw(session)
        store.add_segment(session, 1, plain, 10_000_000, 20_000_000, events=7, frames=3)
        die()
