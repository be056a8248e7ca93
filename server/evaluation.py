"""Whether a new model is as good as its parent, on clips that the operator has: the gate before a release.

The server does not load torch; a model is scored by a process of its own. Scores are kept in the registry, from where
the dashboard shows them over versions, by emotion and by lighting. They belong to what was in the folder then: clips
that have changed, or other ones in a folder of the same name, are another evaluation set.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcoe_model.data.see import read_see
from mcoe_model.errors import McoeError
from server.registry import Registry
from server.registry.artifacts import Artifacts

log = logging.getLogger("mcoe")


@dataclass(frozen=True)
class EvaluationGate:
    """Holds back a model whose WAR on the clips in ``data`` is more than ``margin`` below its parent's.

    A model that cannot be scored is held back too: nobody knows what it is worth.
    """

    registry: Registry
    artifacts: Artifacts
    data: Path
    cache: Path
    margin: float

    def __call__(self, sha256: str, parent: str) -> str | None:
        """Why the model must not be released in place of its parent, or None."""
        try:
            evaluation_set = self._evaluation_set()
            new, old = self._scores(sha256, evaluation_set), self._scores(parent, evaluation_set)
        except McoeError as fault:
            return f"it could not be scored on {self.data.name}: {fault}"
        log.info("model %s: WAR %.3f on %s, its parent %.3f", sha256[:12], new["war"], self.data.name, old["war"])
        if new["war"] >= old["war"] - self.margin:
            return None
        scores = f"WAR {new['war']:.3f} on {self.data.name}, its parent {old['war']:.3f}"
        return f"{scores}; at most {self.margin} less is released"

    def _evaluation_set(self) -> str:
        """The name of the clips as they are now. Raises DataMissing, DataInvalid."""
        return f"{self.data.name} {read_see(self.data).fingerprint[:12]}"

    def _scores(self, sha256: str, evaluation_set: str) -> dict[str, Any]:
        """What a model scores, computed once. Raises McoeError when its process fails or the clips change."""
        known = self.registry.evaluation(sha256, evaluation_set)
        if known is not None:
            return known
        command = [sys.executable, "-m", "mcoe_model.learning.score_model", str(self.artifacts.path(sha256))]
        done = subprocess.run([*command, str(self.data), str(self.cache)], capture_output=True, text=True)
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()
            raise McoeError(said[-1] if said else f"scoring ended with code {done.returncode}")
        if self._evaluation_set() != evaluation_set:
            raise McoeError("its clips were changed while they were read")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        self.registry.record_evaluation(sha256, evaluation_set, found)
        return found
