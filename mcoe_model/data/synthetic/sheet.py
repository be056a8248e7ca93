"""A contact sheet: what a data set of these settings looks like, on one picture for the eye to judge.

Three panels: every emotion of eight people in even light; one take of every emotion over time, intensity above events,
in normal light; one take under the four lightings, as the two sensors give it.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mcoe_model.data.synthetic.clip import cached_face, draw_clip, play
from mcoe_model.data.synthetic.design import Clip, plan
from mcoe_model.data.synthetic.expression import TEMPLATES
from mcoe_model.data.synthetic.eye import render
from mcoe_model.data.synthetic.performance import INSTANTS, Performance
from mcoe_model.data.synthetic.settings import SyntheticSettings
from mcoe_model.files import write_bytes
from mcoe_model.names import EMOTIONS, LIGHTINGS

Picture = NDArray[np.uint8]
PEOPLE, MOMENTS = 8, 8
ZOOM, GAP, LABEL = 2, 2, 84


def write_sheet(path: Path, settings: SyntheticSettings) -> None:
    """Draw the sheet of ``settings`` to the PNG file ``path``. Takes some seconds."""
    clips = plan(replace(settings, design="see-like", sequences=None))
    panels = (_people(clips, settings), _time(clips, settings), _lightings(clips, settings))
    width = max(panel.width for panel in panels)
    sheet = Image.new("L", (width, sum(panel.height + 8 * GAP for panel in panels)), 24)
    top = 0
    for panel in panels:
        sheet.paste(panel, (0, top))
        top += panel.height + 8 * GAP
    png = io.BytesIO()
    sheet.save(png, "PNG")
    write_bytes(path, png.getvalue())


def _people(clips: tuple[Clip, ...], settings: SyntheticSettings) -> Image.Image:
    subjects = sorted({clip.subject for clip in clips})
    shown = [subjects[i] for i in np.linspace(0, len(subjects) - 1, min(PEOPLE, len(subjects))).astype(int)]
    rows = []
    for emotion in EMOTIONS:
        row = []
        for subject in shown:
            clip = _find(clips, subject, emotion)
            face = cached_face(settings.seed, subject, settings.difficulty)
            performance = play(clip, face, settings)
            best = _most_expressive(performance, emotion)
            row.append(_grey(render(face, performance, settings.size)[best] * (0.45 + 0.1 * face.skin) / face.skin))
        rows.append((emotion, row))
    return _panel(rows)


def _time(clips: tuple[Clip, ...], settings: SyntheticSettings) -> Image.Image:
    rows, person = [], _bare(clips, settings)
    for emotion in EMOTIONS:
        frames, events = draw_clip(replace(_find(clips, person, emotion), lighting="normal"), settings)
        moments = np.linspace(0, len(frames) - 1, MOMENTS).astype(int)
        rows.append((emotion, [frames[i] for i in moments]))
        rows.append(("", [events[i] for i in moments]))
    return _panel(rows)


def _lightings(clips: tuple[Clip, ...], settings: SyntheticSettings) -> Image.Image:
    rows, clip = [], _find(clips, _bare(clips, settings), "surprise")
    for lighting in LIGHTINGS:
        frames, events = draw_clip(replace(clip, lighting=lighting), settings)
        moments = np.linspace(0, len(frames) - 1, MOMENTS).astype(int)
        rows.append((lighting, [frames[i] for i in moments]))
        rows.append(("", [events[i] for i in moments]))
    return _panel(rows)


def _bare(clips: tuple[Clip, ...], settings: SyntheticSettings) -> int:
    """The first person without glasses, or the first one."""
    subjects = sorted({clip.subject for clip in clips})
    faces = ((subject, cached_face(settings.seed, subject, settings.difficulty)) for subject in subjects)
    return next((subject for subject, face in faces if not face.glasses), subjects[0])


def _find(clips: tuple[Clip, ...], subject: int, emotion: str) -> Clip:
    """The person's first take of the emotion, or somebody else's length where there is none."""
    own = [clip for clip in clips if clip.subject == subject and clip.emotion == emotion]
    return own[0] if own else replace(clips[0], subject=subject, emotion=emotion)


def _most_expressive(performance: Performance, emotion: str) -> int:
    wanted = TEMPLATES[emotion].units
    shown = sum(weight * units for weight, units in zip(wanted, performance.units.values(), strict=True))
    return int(np.argmax(shown - 2 * performance.closure)) // INSTANTS * INSTANTS


def _grey(reflectance: NDArray[np.float32]) -> Picture:
    return np.clip(255 * reflectance, 0, 255).astype(np.uint8)


def _panel(rows: list[tuple[str, list[Picture]]]) -> Image.Image:
    side = rows[0][1][0].shape[0] * ZOOM
    panel = Image.new("L", (LABEL + (side + GAP) * max(len(row) for _, row in rows), (side + GAP) * len(rows)), 24)
    draw = ImageDraw.Draw(panel)
    for r, (label, row) in enumerate(rows):
        draw.text((6, r * (side + GAP) + side // 2 - 6), label, fill=235)
        for c, picture in enumerate(row):
            tile = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
            panel.paste(tile, (LABEL + c * (side + GAP), r * (side + GAP)))
    return panel
