"""What a person sees of a run: one line per phase with its progress, on the terminal and nowhere else."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mcoe_model.progress import Progress as Report
from mcoe_model.workers import spawn_pool

_QUEUE: Any = None


class Display:
    """Phases with progress bars. ``quiet`` shows nothing: for `--json` and for logs."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓[/green]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("[dim]{task.fields[note]}[/dim]"),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, Any] = {}
        self._within = ""

    @contextmanager
    def live(self) -> Iterator[None]:
        """Draw until the block ends."""
        with self._bars:
            yield

    @contextmanager
    def within(self, name: str) -> Iterator[None]:
        """Phases that begin in this block have the name before theirs."""
        self._within = f"{name} "
        try:
            yield
        finally:
            self._within = ""

    def phase(self, name: str) -> Report:
        """A progress report that draws this phase's line."""
        name = self._within + name

        def report(done: int, total: int, note: str = "") -> None:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=total, note=note)
            self._bars.update(self._tasks[name], completed=done, total=total, note=note)

        return report

    def say(self, text: str) -> None:
        """One line above the bars, which an address can be copied from."""
        self._bars.console.print(text, soft_wrap=True)


class Crew:
    """Worker processes whose jobs, functions of (folder, ..., progress), report progress to the display."""

    def __init__(self, workers: int, display: Display) -> None:
        context = multiprocessing.get_context("spawn")
        self._queue = context.Queue()
        self._display = display
        self.pool: ProcessPoolExecutor = spawn_pool(workers, _keep_queue, self._queue)
        self._reports: dict[str, Report] = {}
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def start(self, phase: str, job: Callable[..., None], folder: Path, *arguments: Any) -> Future[None]:
        """Run a job in a worker; its progress shows as ``phase``."""
        self._reports[phase] = self._display.phase(phase)
        return self.pool.submit(_run, phase, job, folder, *arguments)

    def start_each(self, phase: str, jobs: list[tuple[Any, ...]], folder: Path) -> list[Future[None]]:
        """Run many short jobs (function, arguments ...); ``phase`` counts how many are done."""
        report, done = self._display.phase(phase), iter(range(1, len(jobs) + 1))
        report(0, len(jobs), "")
        futures = [self.pool.submit(job, folder, *arguments) for job, *arguments in jobs]
        for future in futures:
            future.add_done_callback(lambda _: report(next(done), len(jobs), ""))
        return futures

    def close(self) -> None:
        """End the workers; jobs that wait are dropped."""
        self.pool.shutdown(wait=True, cancel_futures=True)
        self._queue.put(None)
        self._listener.join()
        self._queue.close()

    def _listen(self) -> None:
        while (message := self._queue.get()) is not None:
            phase, done, total, note = message
            self._reports[phase](done, total, note)


def _keep_queue(queue: Any) -> None:
    global _QUEUE
    _QUEUE = queue


def _run(phase: str, job: Callable[..., None], folder: Path, *arguments: Any) -> None:
    def report(done: int, total: int, note: str) -> None:
        _QUEUE.put((phase, done, total, note))

    job(folder, *arguments, progress=report)
