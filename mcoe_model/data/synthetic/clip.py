"""One sequence, drawn: person, performance, lighting and sensors put together.

Every random draw is keyed by seed, person and take, never by order, so each sequence has the same bits wherever and
whenever it is drawn. The performance does not depend on the lighting: `crossed` relights one performance.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mcoe_model.data.events import event_pictures
from mcoe_model.data.reader import RawEvents
from mcoe_model.data.synthetic.design import Clip
from mcoe_model.data.synthetic.eye import render
from mcoe_model.data.synthetic.face import Face, draw_face
from mcoe_model.data.synthetic.lighting import Light, draw_light, flicker, illumination
from mcoe_model.data.synthetic.performance import Mount, Performance, perform
from mcoe_model.data.synthetic.sensors import Camera, draw_camera, event_counts, intensity_pictures, raw_events
from mcoe_model.data.synthetic.settings import SyntheticSettings
from mcoe_model.streams import stream

cached_face = lru_cache(maxsize=256)(draw_face)


def draw_clip(clip: Clip, settings: SyntheticSettings) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Intensity and event pictures of ``clip``: two (length, size, size) uint8 arrays."""
    seen = _irradiance(clip, settings)
    frames = intensity_pictures(*seen)
    return frames, event_pictures(event_counts(*seen))


def draw_raw_events(clip: Clip, settings: SyntheticSettings) -> RawEvents:
    """The events of ``clip`` themselves; `draw_clip` shows which of them prevail."""
    seen = _irradiance(clip, settings)
    intensity_pictures(*seen)  # whose noise comes from the same stream, before the events'
    return raw_events(*seen)


def _irradiance(
    clip: Clip, settings: SyntheticSettings
) -> tuple[NDArray[np.float32], Light, Camera, np.random.Generator]:
    """What the sensors see of ``clip``, and with what: (T, size, size) [full scales], the light, camera and noise."""
    face = cached_face(settings.seed, clip.subject, settings.difficulty)
    irradiance = render(face, play(clip, face, settings), settings.size)
    light = sitting_light(clip, face, settings.seed)
    irradiance *= illumination(light, settings.size) * np.float32(light.exposure)
    noise = stream(settings.seed, "sensors", clip.subject, clip.emotion, clip.take, clip.lighting)
    camera = draw_camera(settings.seed, clip.subject if clip.session else 0, settings.size)  # wearers have their own
    return irradiance, light, camera, noise


def play(clip: Clip, face: Face, settings: SyntheticSettings) -> Performance:
    """What the person does in ``clip``."""
    g = stream(settings.seed, "performance", clip.subject, clip.emotion, clip.take)
    return perform(g, face, clip.emotion, clip.length, settings.difficulty, session_mount(clip, settings.seed))


def session_mount(clip: Clip, seed: int) -> Mount:
    """How the headset sits in the clip's session: it drifts from one session to the next."""
    if clip.session == 0:
        return Mount()
    walk = stream(seed, "mount", clip.subject).normal(size=(clip.session, 5)).sum(axis=0)
    x, y, roll, scale, slip = (float(step) for step in walk)
    return Mount(0.035 * x, 0.030 * y, 0.025 * roll, float(np.exp(0.02 * scale)), float(np.exp(0.20 * slip)))


def sitting_light(clip: Clip, face: Face, seed: int) -> Light:
    """The lighting of the clip's sitting, a little different in every take."""
    g = stream(seed, "flicker", clip.subject, clip.emotion, clip.take, clip.lighting)
    return flicker(draw_light(seed, clip.subject, clip.session, clip.lighting, face.skin), g)
