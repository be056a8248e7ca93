"""Which model this wearable runs, kept in a small file that survives a power cut.

A model that runs is what live recognition serves and what the server is told of; training goes on from whatever base a
round names. Two processes write the file, the one that hears the server's offers and the one that the wearer talks to,
so every change is made under a lock.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from client.comparison import Comparison, stored_comparison
from mcoe_model.errors import DecisionNeeded
from mcoe_model.files import read_json, write_json
from mcoe_model.protocol import Refusal


@dataclass(frozen=True)
class RunningModel:
    """SHA-256 of models; empty where there is none.

    - ``runs``: the one that runs, and ``before``, the one that ran before it, to which the wearer can go back.
    - ``refused``: the last offered one that may not run, and why, ``refusal``.
    - ``newer``: one that does not run because it is worse, or because the wearer went back; however often it is
      offered, it is not run unless the wearer takes it.
    - ``trial``: what was found when the last one was tried beside the one that ran.
    - ``own_damaged``: since the last change one that was learned here was found damaged, and is gone.
    - ``resident``: the fleet's, of whose generation its tasks are, whichever runs; of a member of a fleet alone.
    """

    runs: str = ""
    refused: str = ""
    refusal: str = ""
    before: str = ""
    newer: str = ""
    trial: Comparison | None = None
    own_damaged: bool = False
    resident: str = ""

    @property
    def wanted(self) -> frozenset[str]:
        """Those whose files are needed."""
        return frozenset({self.runs, self.before, self.newer, self.resident} - {""})


#: Before the first model, and in a simulation.
NOTHING_RUNS = RunningModel()


class Running:
    """The file that says which model runs. One that cannot be read says nothing: the server offers a model again."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> RunningModel:
        """What is known now."""
        try:
            stored = read_json(self._file)
            trial, own_damaged = stored_comparison(stored.pop("trial", None)), stored.pop("own_damaged", False) is True
            models = {name: str(value) for name, value in stored.items()}
            return RunningModel(**models, trial=trial, own_damaged=own_damaged)
        except (FileNotFoundError, ValueError, TypeError):
            return NOTHING_RUNS

    def adopt(self, sha256: str, trial: Comparison | None = None) -> None:
        """From now on this model runs. Raises DiskFull."""
        with self._changing() as now:
            self._write(_running(now, sha256, trial))

    def refuse(self, sha256: str, why: Refusal, trial: Comparison | None = None) -> None:
        """The model that runs stays. Raises DiskFull."""
        with self._changing() as now:
            self._write(_refused(now, sha256, why, trial))

    def take_lesson(self, sha256: str, base: str, *, worse: bool, trial: Comparison | None) -> bool:
        """A model was learned here from ``base``: it runs, or is refused if it is ``worse``. Raises DiskFull.

        False, and nothing is changed, when another model than ``base`` runs by now. Said again, it is taken already.
        """
        with self._changing() as now:
            if sha256 in now.wanted:
                return True
            if now.runs != base:
                return False
            self._write(_refused(now, sha256, "worse", trial) if worse else _running(now, sha256, trial))
            return True

    def keep(self) -> RunningModel:
        """The wearer's "keep my model": go back to the one before the newest, if that one runs.

        Raises DecisionNeeded when there is no other one, DiskFull.
        """
        with self._changing() as now:
            if not now.newer and not now.before:
                raise DecisionNeeded("there is one model only, and it stays; import another or wait for the fleet's")
            return now if now.newer else self._write(replace(now, runs=now.before, before="", newer=now.runs))

    def take(self) -> RunningModel:
        """The wearer's "take the new one": run the newer one all the same.

        Raises DecisionNeeded when the newest one runs already, DiskFull.
        """
        with self._changing() as now:
            if not now.newer:
                raise DecisionNeeded("the newest model runs already; nothing was changed")
            return self._write(_running(now, now.newer, now.trial))

    def work_with(self, resident: str) -> None:
        """The fleet's tasks are of this model's generation from now on. Raises DiskFull."""
        with self._changing() as now:
            if now.resident != resident:
                self._write(replace(now, resident=resident))

    def drop(self, sha256: str, instead: str) -> None:
        """The file of a model that was learned here is damaged: the other one runs in its place, and nobody can go
        back to it. Raises DiskFull.
        """
        with self._changing() as now:
            runs = instead if now.runs == sha256 else now.runs
            others = {name: getattr(now, name) for name in ("before", "newer")}
            left = {name: "" if other in (sha256, runs) else other for name, other in others.items()}
            self._write(replace(now, runs=runs, trial=None, own_damaged=True, **left))

    @contextmanager
    def _changing(self) -> Iterator[RunningModel]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.read()

    def _write(self, state: RunningModel) -> RunningModel:
        write_json(self._file, asdict(state))
        return state


def _refused(now: RunningModel, sha256: str, why: Refusal, trial: Comparison | None) -> RunningModel:
    """The state in which this model does not run."""
    newer = sha256 if why == "worse" else now.newer
    return replace(now, refused=sha256, refusal=why, newer=newer, trial=trial or now.trial)


def _running(now: RunningModel, sha256: str, trial: Comparison | None) -> RunningModel:
    """The state in which this model runs, and no newer one waits."""
    before = now.before if now.runs == sha256 else now.runs
    chosen = RunningModel(runs=sha256, before=before, trial=trial, resident=now.resident)
    return chosen if now.refused == sha256 else replace(chosen, refused=now.refused, refusal=now.refusal)
