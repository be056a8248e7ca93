"""The wearable's program 0.1.0 as a server hears and answers it, frozen: nothing of the project is imported here.

What it sends is written down as it sent it. What it reads has exactly these fields of these kinds: it takes no others.
When the protocol changes, this stays, and the tests say what becomes of such a wearable.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from safetensors.numpy import load, save

PROTOCOL = 1
CLIENT = "w0123abcd"
CHECK_IN = {
    "client_id": CLIENT, "examples": 12, "outbox": [], "runs": "a" * 64, "refused": "b" * 64, "refusal": "worse",
    "preset": "mcoe-edge", "capabilities": ["train-head", "evaluate", "run-models"], "protocol_version": PROTOCOL,
    "client_version": "0.1.0",
}  # fmt: skip
HEALTH = {
    "version": "0.1.0", "free_gb": 31, "battery_percent": 80, "celsius": 41, "throttled": 0, "camera_seen": 1,
    "clock_set": 1, "minutes": 125, "labelled": 30, "skipped": 4, "expired": 2, "oldest_day": 20400, "error": 0,
}  # fmt: skip
EVALUATE_REPORT = {
    "client_id": CLIENT, "model_sha256": "a" * 64, "examples": 12, "correct": 9, "parent_correct": 8,
    "protocol_version": PROTOCOL,
}  # fmt: skip
CONSENTS = [{"kind": "updates", "version": "1", "given": "2026-11-20T09:30:00+00:00"}]
#: A packed update of one tensor, "a" = [1, 2], as it travels.
PACKED = bytes.fromhex(
    "38000000000000007b2261223a7b226474797065223a22463332222c227368617065223a5b325d2c22646174615f6f666673657473223a5b302c38"
    "5d7d7d20200000803f00000040"
)
#: The headers of a request to withdraw, POST without a body, that it signed at `SIGNED_AT`.
SIGNED_AT = "2026-11-22T01:41:19.875704+00:00"
SIGNED = {
    "mcoe-time": SIGNED_AT,
    "mcoe-once": "0120d14419c0c804ee100a452b381a84",
    "mcoe-key": (
        "LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0KTUhZd0VBWUhLb1pJemowQ0FRWUZLNEVFQUNJRFlnQUVmajVjeFZ3OWUvU0Q0dHpE"
        "Rk1ma2JHTHg3WW8xZUxOKwpqRXVVcW03Nzk4YnVJN2N1c2QrMmxqRWg4dUVKblZMTXVyMjNieDBoMXQ5bE04cDRkZndnb3BScXZW"
        "STNYalBzCkJiME9hdkhpc25ISWV2cDVMYU1XbXEwUi9QM3VaSGhZCi0tLS0tRU5EIFBVQkxJQyBLRVktLS0tLQo="
    ),
    "mcoe-signature": (
        "MGQCMG/GNvcSJNrq/FMaZU/bwfD5hK4u5o5c5ghnkKnRgZKn2Y/z/LJutzMZrm+dZOc07AIwKNOhqXOZXsCBOgQ6fOrT3iuHWNQz"
        "gl0d1cJCNbictBQ+kLSvmFsGQ/cc0B4i+IkO"
    ),
}
INVITATION = f"mcoe-invitation:fleet.example.org:8443/{'f' * 64}/{'t' * 32}/{CLIENT}"

#: How it finds the certificates in the answer to its first question.
CERTIFICATE = "-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\\s]{1,20000}?-----END CERTIFICATE-----\n?"

_TRAINING = {
    "epochs": int, "batch_size": int, "learning_rate": float, "weight_decay": float, "schedule": str,
    "batch_norm": str, "balance": float, "augment": bool,
}  # fmt: skip
#: The fields of every record that it reads, and their kinds; a list's kind is that of what it holds.
READS: dict[str, dict[str, Any]] = {
    "news": {"accepted": [str], "dropped": [str], "standing": str, "next_check_in_s": float},
    "offer": {"sha256": str, "canary": bool},
    "task": {
        "round_number": int, "base_sha256": str, "payload_sha256": str, "generation": str, "train_mode": str,
        "seed": int, "expert_load": [float], "all_experts": bool, "welcome": [str], "protocol_version": int,
    } | {f"fine_tune.{name}": kind for name, kind in _TRAINING.items()},
    "evaluate task": {
        "model_sha256": str, "payload_sha256": str, "parent_payload_sha256": str, "generation": str,
        "train_mode": str, "protocol_version": int,
    },
}  # fmt: skip
#: The words that it knows in them.
WORDS = {
    "standing": {"", "ok", "update-advised", "too-old"},
    "train_mode": {"head", "full"},
    "fine_tune.schedule": {"constant", "step", "cosine"},
    "fine_tune.batch_norm": {"frozen", "running"},
}
#: What it reads of an answer to each of its requests; more may be there.
ANSWERS = {
    "enrol": {"client_id"}, "model": {"sha256"}, "withdraw": {"client_id", "state"}, "refusal": {"error"},
    "forget": {
        "client_id", "time", "deleted", "descendants", "choice", "released_again", "rounds_without_it",
        "round_abandoned",
    },
}  # fmt: skip


def read(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as it reads it, which fails as it does."""
    rules = READS[name]
    assert record.keys() == rules.keys(), f"{name}: {record.keys() ^ rules.keys()}"
    for field, kind in rules.items():
        value = record[field]
        if isinstance(kind, list):
            assert isinstance(value, list | tuple) and all(type(item) in (kind[0], int) for item in value), field
        else:
            assert type(value) is kind or (kind is float and type(value) is int), field
        assert field not in WORDS or value in WORDS[field], field
    assert record.get("protocol_version", PROTOCOL) == PROTOCOL
    return dict(record)


def update_id(base_sha256: str) -> str:
    """The id that it gives its update of one clip from this base."""
    text = "\x1f".join([CLIENT, base_sha256, "1-1"])
    return (hashlib.sha256(CLIENT.encode()).hexdigest()[:12] + hashlib.sha256(text.encode()).hexdigest())[:32]


app = ClientApp()
#: What it was asked, in order.
heard: list[str] = []


@app.query()
def query(message: Message, context: Context) -> Message:
    heard.append("query")
    for name in set(message.content) & {"news", "offer"}:
        heard.append(name)
        read(name, dict(message.content[name]))
    records = {"check-in": ConfigRecord(CHECK_IN), "health": ConfigRecord(HEALTH)}  # type: ignore[arg-type]
    return Message(RecordDict(records), reply_to=message)  # type: ignore[arg-type]


@app.train()
def train(message: Message, context: Context) -> Message:
    heard.append("train")
    read("news", dict(message.content["news"]))
    task = read("task", dict(message.content["task"]))
    sent = message.content["model"]["tensors"]  # type: ignore[index]
    assert sent.stype == "safetensors" and sent.dtype == "uint8"
    update = {}
    for name, value in load(sent.data).items():
        unused = name.startswith("moe.experts.") and not name.startswith("moe.experts.1.")
        if value.dtype == np.float32 and not name.startswith("backbones.") and not unused:
            update[name] = np.full_like(value, 0.001)
    packed = save(update)
    meta = {
        "update_id": update_id(task["base_sha256"]), "client_id": CLIENT, "round_number": task["round_number"],
        "base_sha256": task["base_sha256"], "generation": task["generation"], "train_mode": task["train_mode"],
        "experts_sent": [1], "encoding": "delta-f32", "client_version": "0.1.0", "protocol_version": PROTOCOL,
    }  # fmt: skip
    report = {
        "examples": 12, "loss_before": 1.9, "loss_after": 1.4, "seconds": 3.5, "router-examples": 12,
        "router-top-k": 2, "router-routed": [6, 12, 6, 0], "router-gate-mass": [3.0, 6.0, 2.0, 1.0],
    }  # fmt: skip
    tensors = Array(dtype="uint8", shape=(len(packed),), stype="safetensors", data=packed)
    content = {
        "update": ArrayRecord({"tensors": tensors}),
        "meta": ConfigRecord(json.loads(json.dumps(meta))),
        "report": MetricRecord(json.loads(json.dumps(report))),
    }
    return Message(RecordDict(content), reply_to=message)  # type: ignore[arg-type]


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    heard.append("evaluate")
    read("news", dict(message.content["news"]))
    task = read("evaluate task", dict(message.content["task"]))
    for name in ("model", "parent"):
        sent = message.content[name]["tensors"]  # type: ignore[index]
        assert sent.stype == "safetensors" and load(sent.data)
    report = EVALUATE_REPORT | {"model_sha256": task["model_sha256"]}
    return Message(RecordDict({"report": ConfigRecord(report)}), reply_to=message)  # type: ignore[arg-type]
