"""The procedural eye: what fraction of even light each point of one eye region reflects, for many instants at once.

Source: own; the shapes follow photographs of the eye region under the action units of `expression.py`.

Glossary
    T        instants (three per picture)
    H, W     rows and columns of the picture
    x, y     position on the face: picture half-width = 1, x towards the nose, y down, origin at the eye's centre
    r        distance from the iris' centre
"""

from __future__ import annotations

import numpy as np

from mcoe_model.data.synthetic.face import Face
from mcoe_model.data.synthetic.geometry import Array, Curves, F, curves, ramp, ridge
from mcoe_model.data.synthetic.performance import Performance
from mcoe_model.data.synthetic.skin import skin

#: Instants drawn together: a chunk's arrays should stay in the processor's second-level cache.
CHUNK = 6


def render(face: Face, play: Performance, size: int) -> Array:
    """Reflectance of every instant of ``play``: (T, size, size) float32 in about [0, 1.3] (the glint is above 1)."""
    pictures = np.empty((play.instants, size, size), F)
    for start in range(0, play.instants, CHUNK):
        chunk = slice(start, min(start + CHUNK, play.instants))
        c = curves(face, play, chunk, size)
        image = skin(face, c)
        eyeball(face, c, image)
        lashes(face, c, image)
        brow(face, c, image)
        if face.glasses:
            glasses(c, image)
        pictures[chunk] = image
    return pictures


def eyeball(face: Face, c: Curves, image: Array) -> None:
    """Sclera, iris, pupil and glint, seen through the opening between the lids."""
    touched = (c.y > (c.upper - 0.06).min()) & (c.y < (c.lower + 0.06).max())
    rows = np.flatnonzero(touched.any(axis=(0, 2)))
    if rows.size == 0:
        return
    band = slice(rows[0], rows[-1] + 1)
    y, x, across = c.y[:, band], c.x, c.across
    seen = ramp(np.minimum(y - c.upper, c.lower - y), c.pixel * 1.3)  # (T, H', W) share of the pixel between the lids
    seen *= np.clip((1.02 - np.abs(across)) * 20, 0, 1)

    white = F(face.sclera_tone) * (1 - 0.38 * across * across) * (1 - 0.30 * np.clip((across - 0.80) * 8, 0, 1))
    shadow = np.exp(-np.clip(y - c.upper, 0, 1) * F(1 / 0.05))  # the upper lid's
    shadow *= F(-0.55)
    shadow += 1
    eye = shadow * white

    from_x = x - 0.14 * c.gaze_x
    from_y = y - (F(-0.035) + 0.10 * c.gaze_y)
    r = np.sqrt(from_x * from_x + from_y * from_y)
    iris = F(face.iris_tone) * (1 + 0.5 * np.clip(4 * r - 0.3, 0, 1))
    iris *= 1 - 0.6 * ridge(r - F(face.iris_radius), 0.03)  # the dark ring at its rim
    iris *= 0.55 + 0.45 * shadow
    eye += (iris - eye) * ramp(F(face.iris_radius) - r, c.pixel * 1.6)
    eye *= 1 - 0.93 * ramp(F(face.iris_radius) * c.pupil - r, c.pixel * 1.4)
    gx, gy = face.glint  # a reflection: it moves only half as far as the eye
    glint = ridge(0.6 * from_x + 0.4 * x - F(gx), 0.035) * ridge(0.6 * from_y + 0.4 * y - F(gy), 0.035)
    eye += 0.9 * glint
    image[:, band] += (eye - image[:, band]) * seen


def lashes(face: Face, c: Curves, image: Array) -> None:
    """Dark lines along both lids; the upper one is broken up into lashes."""
    ends = np.clip((1.08 - np.abs(c.across)) * 6, 0, 1)
    upper = ridge(c.y - c.upper + F(0.010), 0.026)
    upper *= F(face.lashes) * ends * (1 + 0.15 * np.sin(60 * c.x + 2 * np.sin(7 * c.x)))
    np.clip(upper, 0, 0.95, out=upper)
    np.subtract(1, upper, out=upper)
    image *= upper
    lower = ridge(c.y - c.lower, 0.018)
    lower *= F(-0.28 * face.lashes) * ends
    lower += 1
    image *= lower


def brow(face: Face, c: Curves, image: Array) -> None:
    """A tapered band of hair that leans towards the temple."""
    rows = slice(0, int(0.62 * image.shape[1]))
    d = c.from_brow[:, rows]
    cover = ramp(c.brow_half - np.abs(d), 0.05)
    length = c.x / F(face.brow_length)
    cover *= np.clip((length + 0.74) * 7, 0, 1) * np.clip((0.71 + 0.06 * c.au["AU4"] - length) * 6, 0, 1)
    pitch = face.hair_pitch
    lean = 1.0 - 1.6 * c.along_brow  # hairs stand upright at the head and lie down towards the tail
    tousled = np.sin(9 * c.x + 14 * d)
    hair = np.sin(F(pitch) * (c.x + lean * d) + 1.4 * tousled)
    hair += np.sin(F(1.9 * pitch) * (0.8 * c.x - d) + 2.1 * tousled)
    hair *= F(0.5 * face.hair_contrast)
    hair += 1
    cover *= hair
    cover *= F(-face.brow_density)
    np.clip(cover, -0.95, 0, out=cover)
    cover += 1
    image[:, rows] *= cover


def glasses(c: Curves, image: Array) -> None:
    """The rim of a lens around the eye and one streak of reflected light."""
    rim = np.sqrt((c.x / 0.98) ** 2 + ((c.y - 0.10) / 0.72) ** 2)
    image *= 1 - 0.8 * ridge(rim - 1, 0.05)
    image += 0.22 * ridge(c.x + 0.5, 0.125) * ridge(c.y + 0.2 - 0.6 * c.x, 0.10)
