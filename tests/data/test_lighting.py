"""Which light a clip was recorded in, told from its frames: of synthetic people, and of what the camera would give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from client.cameras.synthetic_eye import INSTANTS_HZ, TURN_S, SyntheticEye
from mcoe_model.data.geometry import Geometry
from mcoe_model.data.lighting import BRIGHT, DARK, grey, lighting_of
from mcoe_model.data.synthetic import SyntheticSettings
from mcoe_model.data.synthetic.clip import draw_clip
from mcoe_model.data.synthetic.design import plan
from mcoe_model.names import LIGHTINGS


@pytest.mark.parametrize("lighting", LIGHTINGS)
def test_the_light_that_was_drawn_is_found(lighting: str) -> None:
    """On people of a seed that no threshold was chosen on; all sixty of another are in `benchmarks/lighting.py`."""
    settings = SyntheticSettings(subjects=6, sequences=1, design="crossed", seed=9102)
    clips = [replace(clip, length=4) for clip in plan(settings) if clip.lighting == lighting]
    assert [lighting_of(draw_clip(clip, settings)[0]) for clip in clips] == [lighting] * 6


@pytest.mark.parametrize(("seed", "lighting"), list(enumerate(LIGHTINGS)))
def test_and_in_what_the_whole_sensor_gives(seed: int, lighting: str) -> None:
    """Frames of 346 x 260, cut and reduced as a wearable does."""
    first = 1000 * TURN_S * INSTANTS_HZ
    eye = SyntheticEye(seed, first)
    frames = [eye.picture(first + 3 * number)[1].image for number in range(1, 4)]
    assert lighting_of(np.stack([Geometry().picture(frame) for frame in frames])) == lighting


def test_thresholds_are_those_that_are_written_down() -> None:
    def plain(level: int) -> str:
        return lighting_of(np.full((2, 4, 4), level, np.uint8))

    levels = (0, DARK - 1, DARK, BRIGHT, BRIGHT + 1, 255)
    assert [plain(level) for level in levels] == [*["low-light"] * 2, *["normal"] * 2, *["overexposed"] * 2]
    halves = np.full((1, 4, 4), 30, np.uint8)
    halves[:, :, 2:] = 60
    assert lighting_of(halves) == "normal"
    halves[:, :, 2:] = 61
    assert lighting_of(halves) == "hdr"


def test_percentiles_are_those_of_all_pixels() -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (3, 20, 20), np.uint8)
    expected = (pictures.mean(), *(np.percentile(pictures, q, method="inverted_cdf") for q in (25, 75, 95)))
    assert grey(pictures) == pytest.approx(expected)
