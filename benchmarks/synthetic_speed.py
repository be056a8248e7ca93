"""How fast synthetic sequences are drawn and written by one core: pairs of pictures per processor second.

Processor time of this one process, so other work on the machine disturbs it little. JPEG coding and writing included.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from mcoe_model.data.synthetic import SyntheticSettings, write_see
from mcoe_model.data.synthetic.clip import draw_clip
from mcoe_model.data.synthetic.design import plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[90, 64], help="sides of a picture [90 64]")
    parser.add_argument("--subjects", type=int, default=8, help="people to draw seven sequences of [8]")
    arguments = parser.parse_args()
    print("size  pairs  drawn/s  drawn and written/s")
    for size in arguments.size:
        settings = SyntheticSettings(subjects=arguments.subjects, sequences=7, size=size)
        clips = plan(settings)
        pairs = sum(clip.length for clip in clips)
        draw_clip(clips[0], settings)  # warm up
        start = time.process_time()
        for clip in clips:
            draw_clip(clip, settings)
        drawn = time.process_time() - start
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            write_see(Path(folder) / "see", settings, workers=1)
            written = time.process_time() - start
        print(f"{size:4d}  {pairs:5d}  {pairs / drawn:7.0f}  {pairs / written:19.0f}")


if __name__ == "__main__":
    main()
