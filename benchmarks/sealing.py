"""What sealing a recording costs: seconds of processor time for each recorded minute.

    python benchmarks/sealing.py [--megabytes-per-s 3.4] [--minutes 1] [--json]

Segments of 10 s of random bytes, as a compressed recording is, lie in memory and become sealed files on the disk. 3.4
MB/s is what a DAVIS346 before an eye gives: events, frames and motion, LZ4. Beside it stands what the parts cost in the
same run: AES-256-GCM over the same bytes in one piece, and writing them unsealed with one fsync for each file.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mcoe_model.files import write_bytes
from mcoe_model.sealed import read_sealed, write_sealed

SEGMENT_S = 10
PORTION = 1 << 20


def processor_s(work: Callable[[], object]) -> float:
    """Seconds of processor time of a call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def measure(megabytes_per_s: float, minutes: float) -> dict[str, float]:
    """Seconds of processor time by recorded minute, by what was done."""
    key, segments = os.urandom(32), max(1, round(60 * minutes / SEGMENT_S))
    segment = os.urandom(round(1e6 * megabytes_per_s * SEGMENT_S))
    portions = [segment[start : start + PORTION] for start in range(0, len(segment), PORTION)]
    cipher, used = AESGCM(key), {"sealing": 0.0, "opening": 0.0, "aes_gcm_alone": 0.0, "writing_alone": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(segments):
            path, plain = Path(folder, f"{number}.sealed"), Path(folder, "plain")
            used["sealing"] += processor_s(lambda: write_sealed(path, key, "segment", portions))  # noqa: B023
            used["opening"] += processor_s(lambda: all(read_sealed(path, key, "segment")))  # noqa: B023
            used["aes_gcm_alone"] += processor_s(lambda: cipher.encrypt(os.urandom(12), segment, b""))
            used["writing_alone"] += processor_s(lambda: write_bytes(plain, segment))  # noqa: B023
            path.unlink()
    recorded = segments * SEGMENT_S / 60
    found = {f"{name}_processor_s_per_minute": seconds / recorded for name, seconds in used.items()}
    return found | {"share_of_one_core": found["sealing_processor_s_per_minute"] / 60}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes-per-s", type=float, default=3.4)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = measure(asked.megabytes_per_s, asked.minutes)
    if asked.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"  {name:40} {value:10.4f}")


if __name__ == "__main__":
    main()
