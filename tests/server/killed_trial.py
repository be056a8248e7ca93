"""A new model's trial in a process that is killed at a named moment. For `test_killed_trials.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from killed_round import die_after, die_before_statement
from toy_judges import Town, judges

from server.registry import Registry
from server.trials import Trials

#: Every moment at which the process may die, by name. Three clients report, two check-ins make a canary a release.
MOMENTS: dict[str, Callable[[], None]] = {
    "published as a candidate": lambda: die_after(Registry, "publish_round"),
    "asked": lambda: die_after(Trials, "_send"),
    "heard one report": lambda: die_after(Registry, "record_report"),
    "while storing a report": lambda: die_before_statement("INSERT INTO client_evaluations"),
    "heard all reports": lambda: die_after(Registry, "record_report", 3),
    "while the canary begins": lambda: die_before_statement("INSERT INTO canary_clients"),
    "the canary has begun": lambda: die_after(Registry, "begin_canary"),
    "while a check-in is counted": lambda: die_before_statement("UPDATE canary_clients SET check_ins"),
    "while it is decided": lambda: die_before_statement("UPDATE models SET state"),
    "decided": lambda: die_after(Registry, "decide"),
}


def play(folder: Path, moment: str | None, finds: str) -> None:
    """Make a candidate unless there is one, and take it to its end; say in a file what became of it."""
    town = Town(folder, judges(*"abcde", finds=finds), evaluation_clients=3, canary_share=0.4, canary_check_ins=2)
    if moment is not None:
        MOMENTS[moment]()
    if not town.registry.last_published():
        town.candidate("ab")
    while town.steps():
        pass
    lines = [f"{model.version} {model.sha256} {model.state}" for model in town.registry.models()]
    lines += [f"{event.kind} {event.detail}" for event in town.registry.events(50) if event.kind.startswith("model")]
    (folder / "result").write_text("\n".join(lines))
