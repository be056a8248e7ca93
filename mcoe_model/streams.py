"""Random streams keyed by what they are for, so that results never depend on order, worker or what ran before.

Every stream is ``stream(seed, round, client, purpose)`` or the like: the keys are hashed, the hash seeds a generator.
"""

from __future__ import annotations

import hashlib

import numpy as np

Key = str | int


def stream_seed(*keys: Key) -> int:
    """A 63-bit seed that depends on the keys alone (SHA-256 of their text)."""
    text = "\x1f".join(f"{type(key).__name__}:{key}" for key in keys)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(*keys: Key) -> np.random.Generator:
    """An independent generator for these keys (Philox, the same numbers on every machine)."""
    return np.random.Generator(np.random.Philox(key=stream_seed(*keys)))
