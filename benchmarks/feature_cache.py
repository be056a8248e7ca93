"""What cached features save: the second local epoch of head training against the first, which computes the features.

    python benchmarks/feature_cache.py [--model mcoe-tiny] [--epochs 5] [--json]

The first epoch encodes every picture of a client's clips once per role and trains the head; every later one trains
the head on what was kept, with new random windows. Temporal sampling stays random, so the features of all pictures
are kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from mcoe_model.data.cache import open_clips
from mcoe_model.data.synthetic.settings import SyntheticSettings
from mcoe_model.data.synthetic.writer import write_see
from mcoe_model.learning.features import cached_features
from mcoe_model.learning.fine_tune import fine_tune
from mcoe_model.learning.samples import measure_normalisation
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation
from mcoe_model.networks import build
from mcoe_model.networks.presets import MCOE_PRESETS
from mcoe_model.workers import one_thread


def main() -> None:
    """Print seconds of the first and of later epochs, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mcoe-tiny", choices=MCOE_PRESETS)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    one_thread()
    settings = FineTuneSettings(epochs=1, batch_size=8)
    with tempfile.TemporaryDirectory() as scratch:
        folder, size = Path(scratch), MCOE_PRESETS[asked.model].input_size
        write_see(folder / "see", SyntheticSettings(subjects=4, size=size, seed=1))
        clips = open_clips(folder / "see", size=size, cache=folder / "clips")
        of_one = max(clips.by_subject().values(), key=len)
        model = build(asked.model, seed=0).eval()
        normalisation = measure_normalisation(clips, of_one)
        generation = Generation(asked.model, backbone_sha256(tensors_of(model)), size, normalisation)
        seconds = []
        for epoch in range(asked.epochs):
            started = time.perf_counter()
            samples = cached_features(model, generation, clips, of_one, folder / "features")
            fine_tune(model, samples, settings, train_mode="head", keys=(0, epoch))
            seconds.append(time.perf_counter() - started)
    later = statistics.median(seconds[1:])
    found = {"clips": len(of_one), "first_epoch_s": seconds[0], "later_epoch_s": later, "ratio": later / seconds[0]}
    print(json.dumps(found) if asked.json else "\n".join(f"{name:16} {value:10.4f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
