"""Worker processes: started fresh (spawn), with one torch thread each, and never outliving their parent."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

#: Names, in a child's environment, the process that started it.
_PARENT = "MCOE_PARENT"


def spawn_pool(workers: int, initializer: Callable[..., None] | None = None, *arguments: Any) -> ProcessPoolExecutor:
    """A pool whose workers call ``initializer(*arguments)`` first."""
    return ProcessPoolExecutor(
        max_workers=workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(initializer, arguments),
    )


def one_thread() -> None:
    """Let torch and NumPy's libraries use one thread in this process: sums then have one order."""
    for library in ("OMP", "MKL", "OPENBLAS"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def child_environment() -> dict[str, str]:
    """The environment of a child that calls `end_with_parent` and hears nothing else of this process's end."""
    return os.environ | {_PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """End this process when the one that started it has ended, however it did: nobody else would.

    It may have ended before this one came so far; then only `child_environment` knows who it was.
    """
    parent = int(os.environ.pop(_PARENT, os.getppid()))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _begin(initializer: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    one_thread()
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    if initializer is not None:
        initializer(*arguments)


def _end_with_parent() -> None:
    """End when the parent is killed: nothing else would wake a worker that waits for work."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()
