"""How well the lighting of synthetic clips is told from their frames (`mcoe_model.data.lighting`).

    python benchmarks/lighting.py [--seed 9101] [--subjects 60] [--json]

Each person is drawn once under each of the four lightings. Printed are, for the lighting that was drawn, what it was
taken for, and the range of the three numbers that decide: the thresholds were chosen on seed 9100.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import Any

from mcoe_model.data.lighting import BRIGHT, CONTRAST, DARK, grey, lighting_of
from mcoe_model.data.synthetic.clip import draw_clip
from mcoe_model.data.synthetic.design import plan
from mcoe_model.data.synthetic.settings import SyntheticSettings
from mcoe_model.names import LIGHTINGS


def measure(seed: int, subjects: int) -> dict[str, dict[str, Any]]:
    """By the lighting that was drawn: what it was taken for, how often, and the ranges of what decides."""
    settings = SyntheticSettings(subjects=subjects, sequences=1, design="crossed", seed=seed)
    taken: dict[str, Counter[str]] = {name: Counter() for name in LIGHTINGS}
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in LIGHTINGS}
    for clip in plan(settings):
        frames, _ = draw_clip(clip, settings)
        mean, low, high, highest = grey(frames)
        taken[clip.lighting][lighting_of(frames)] += 1
        found[clip.lighting].append((highest, mean, high / max(low, 1)))
    names = ("p95", "mean", "p75/p25")
    ranges = {name: dict(zip(names, [(min(v), max(v)) for v in zip(*rows, strict=True)], strict=True))
              for name, rows in found.items()}  # fmt: skip
    return {name: {"taken for": dict(taken[name])} | ranges[name] for name in LIGHTINGS}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=9101)
    parser.add_argument("--subjects", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = measure(asked.seed, asked.subjects)
    if asked.json:
        print(json.dumps(found))
        return
    print(f"thresholds: p95 {DARK}, mean {BRIGHT}, p75/p25 {CONTRAST}")
    for name, row in found.items():
        taken = ", ".join(f"{count} {other}" for other, count in row.pop("taken for").items())
        print(f"  {name:12} {taken:24}" + "".join(f"  {key} {low:.2f}..{high:.2f}" for key, (low, high) in row.items()))


if __name__ == "__main__":
    main()
