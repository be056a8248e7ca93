"""The server's own update, which a rule may compare the clients' with: trained on clean clips that the operator has.

The server does not load torch; a process of its own trains (`mcoe_model/learning/trusted_update.py`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mcoe_model.errors import McoeError
from mcoe_model.protocol import TrainTask
from server.registry.artifacts import Artifacts

#: What the server's own update is called in a round's spool, where clients' are named by 32 hex digits.
REFERENCE = "reference"


@dataclass(frozen=True)
class TrustedTrainer:
    """Trains a round's task on a folder of clean clips in SEE's layout. ``cache`` keeps what is decoded of them."""

    artifacts: Artifacts
    cache: Path

    def __call__(self, task: TrainTask, data: Path, target: Path) -> None:
        """Write the update durably unless it is there: the same bytes each time. Raises McoeError."""
        if target.exists():
            return
        files = map(str, (self.artifacts.path(task.base_sha256), data, self.cache, target))
        command = [sys.executable, "-m", "mcoe_model.learning.trusted_update", *files]
        done = subprocess.run(command, input=json.dumps(task.to_record()), capture_output=True, text=True)
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or [f"its process ended with code {done.returncode}"]
            raise McoeError(f"the server's own update could not be trained on {data}: {said[-1]}")
