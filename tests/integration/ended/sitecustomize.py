"""Makes a SuperNode confirm its first message only once that message's run has ended. For `test_client_node.py`.

Python imports this at the start of every process that has this folder in its path.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

if "client.supernode" in sys.orig_argv:
    from flwr.supernode.fleet_http_client import FleetHttpClient

    confirm, folder = FleetHttpClient.ConfirmMessageReceived, Path(os.environ["MCOE_RUN_ENDED"])

    def dawdle(client: FleetHttpClient, request: Any) -> Any:
        if not (folder / "confirms").exists():
            (folder / "confirms").touch()
            while not (folder / "ended").exists():
                time.sleep(0.1)
        return confirm(client, request)

    FleetHttpClient.ConfirmMessageReceived = dawdle  # type: ignore[method-assign]
