"""Five hundred rounds in one process: memory and open files stay where they were."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from toy_fleet import toy_engine

from mcoe_model.workers import spawn_pool
from server.app import Coordinator, Event, Policy, RoundEnded
from server.presence import Presence
from simulations.local_grid import LOCAL_POLL, LocalGrid

ROUNDS, WARM_UP = 500, 100
CLIENTS = [{"client": f"honest {index}", "behaviour": "honest"} for index in range(3)]


def resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_five_hundred_rounds_leave_memory_and_open_files_as_they_were(tmp_path: Path) -> None:
    engine = toy_engine(tmp_path)
    seen: dict[int, tuple[float, int]] = {}

    def watch(event: Event) -> None:
        if isinstance(event, RoundEnded) and event.number in (WARM_UP, ROUNDS):
            seen[event.number] = (resident_mb(), open_files())

    with spawn_pool(1) as pool, closing(LocalGrid("toy_clients:app", CLIENTS, {}, pool)) as grid:
        presence = Presence(grid, engine.registry.saw)
        Coordinator(presence, engine, Policy(ROUNDS, poll_s=LOCAL_POLL), 0, watch).run()
    assert engine.registry.last_published() == ROUNDS
    (before, files), (after, files_after) = seen[WARM_UP], seen[ROUNDS]
    assert after - before < 50
    assert files_after == files
    assert not list((tmp_path / "spool").iterdir())
