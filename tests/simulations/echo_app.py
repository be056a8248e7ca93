"""A ClientApp that answers with what it was given and where it ran. For `test_local_grid.py`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from mcoe_model.streams import stream

app = ClientApp()
no_app = "a text"


@app.query()
def query(message: Message, context: Context) -> Message:
    facts = {"node": context.node_id, "pid": os.getpid(), **context.node_config, **context.run_config}
    return Message(RecordDict({"facts": ConfigRecord(facts)}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Does something that depends on the arrays, the configuration and the node.

    With ``begun``, a folder, it leaves a file there and takes half a second; with ``gate``, it waits for that file.
    """
    name = str(context.node_config["name"])
    if name == "raises":
        raise RuntimeError("this client broke")
    if name == "exits":
        raise SystemExit(3)
    if "begun" in context.run_config:
        Path(str(context.run_config["begun"]), name).touch()
        time.sleep(0.5)
    while "gate" in context.run_config and not Path(str(context.run_config["gate"])).exists():
        time.sleep(0.01)
    factor = float(message.content.config_records["task"]["factor"])  # type: ignore[arg-type]
    arrays = {}
    for key, array in message.content.array_records["model"].items():
        noise = stream(name, key).normal(size=array.shape)
        arrays[key] = Array((array.numpy() * np.float32(factor) + noise).astype(np.float32))
    return Message(RecordDict({"model": ArrayRecord(arrays)}), reply_to=message)
