"""Makes a SuperNode dawdle between a task and the task's message. For `test_client_node.py`.

Python imports this at the start of every process that has this folder in its path.
"""

from __future__ import annotations

import sys
import time
from typing import Any

if "client.supernode" in sys.orig_argv:
    from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

    store = InMemoryNodeState.store_message

    def dawdle(state: InMemoryNodeState, message: Any) -> str | None:
        if not message.metadata.reply_to_message_id:
            time.sleep(1.0)
        return store(state, message)

    InMemoryNodeState.store_message = dawdle  # type: ignore[method-assign]
