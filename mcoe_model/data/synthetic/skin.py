"""The skin around the eye: relief, texture, and the folds that action units press into it.

Every fold is a dark soft line whose depth grows with its action unit; letters as in `geometry.py`.
"""

from __future__ import annotations

import numpy as np

from mcoe_model.data.synthetic.face import Face
from mcoe_model.data.synthetic.geometry import Array, Curves, F, ridge

#: Skin folds only when a unit contracts by more than this.
SLACK = 0.15


def skin(face: Face, c: Curves) -> Array:
    """Reflectance of the skin (T, H, W), before eyeball, lashes and brow are laid over it."""
    light = texture(face, c)  # (T, H, W) relative lightness
    relief(face, c, light)
    for fold in (forehead, glabella, crows_feet, under_eye, nose_root, lid_crease):
        fold(face, c, light)
    light += F(1)
    np.clip(light, 0.10, 2.0, out=light)
    light *= F(face.skin)
    return light


def folded(unit: Array) -> Array:
    """How deep a unit's folds are."""
    depth: Array = np.clip(unit - F(SLACK), 0, None) * F(1 / (1 - SLACK))
    return depth


def texture(face: Face, c: Curves) -> Array:
    """Blotches and pores (T, H, W), riding with the brow and with the raised cheek: waves bent by slower waves."""
    drag = c.brow_shift * np.exp(-np.abs(c.from_brow) * F(1.6))
    drag -= (0.10 * c.au["AU6"] + 0.07 * c.au["AU9"]) * 2 * np.clip(c.y - c.lower, 0, 0.5)
    v = np.subtract(c.y, drag, out=drag)
    bend = np.zeros_like(v)
    total = np.zeros_like(v)
    for i, (kx, ky, phase) in enumerate(face.texture_waves):
        wave = ky * v
        wave += kx * c.x + phase
        if i < 2:
            bend += np.sin(wave, out=wave)
        else:
            wave += F(1.5) * bend
            total += np.sin(wave, out=wave)
    total *= F(face.texture)
    return total


def relief(face: Face, c: Curves, light: Array) -> None:
    """Brow bone, eye socket, cheek and the nose's flank."""
    au4, au6, au9 = c.au["AU4"], c.au["AU6"], c.au["AU9"]
    socket = ridge(c.y - (c.open_lid - F(0.13)), 0.13)
    socket *= F(face.socket) * np.clip(1.1 - np.abs(c.x - 0.1), 0, 1) * (1 + 0.5 * au4 * c.medial)
    light -= socket
    bone = ridge(c.from_brow - F(0.17) + 0.03 * au4, 0.10)
    bone *= 0.15 * (1 - 0.4 * au4) * c.lateral
    light += bone
    cheek = ridge(c.y - (c.lower + F(0.40) - 0.15 * au6 - 0.06 * au9), 0.17)
    cheek *= (0.07 + 0.20 * au6 + 0.12 * au9) * np.clip(1 - 0.6 * c.x * c.x, 0, 1)
    light += cheek
    light -= F(face.nose) * np.clip(c.x - 0.45, 0, 1) + 0.22 * np.clip(-c.x - 0.70, 0, 1)


def forehead(face: Face, c: Curves, light: Array) -> None:
    """Level furrows above a raised brow (AU1 inner half, AU2 outer half)."""
    raised = folded(np.minimum(c.au["AU1"] * c.medial + c.au["AU2"] * c.lateral, 1.2))
    if not raised.any():
        return
    top = slice(0, light.shape[1] // 2)
    for above, depth in ((0.20, 0.46), (0.33, 0.40), (0.46, 0.30)):
        fold = ridge(c.from_brow[:, top] + F(above) + 0.02 * np.sin(3 * c.x + above * 9), 0.032)
        fold *= F(face.wrinkles * depth) * raised
        light[:, top] -= fold


def glabella(face: Face, c: Curves, light: Array) -> None:
    """Upright furrows beside the nose's root and the fold under a lowered brow (AU4)."""
    frown = folded(c.au["AU4"])
    if not frown.any():
        return
    inner = slice(int(0.74 * light.shape[2]), None)
    x, from_brow = c.x[:, :, inner], c.from_brow[:, :, inner]
    window = ridge(from_brow - F(0.04), 0.19)
    for place, slant, depth in ((0.74, 0.16, 0.46), (0.87, -0.06, 0.42)):
        fold = ridge(x - F(place) + 0.05 * frown + F(slant) * from_brow, 0.048)
        fold *= F(face.wrinkles * depth) * frown * window
        light[:, :, inner] -= fold
    under = ridge(c.y - (c.brow + c.brow_half + F(0.03)), 0.038)
    under *= F(face.wrinkles * 0.36) * frown * c.medial
    light -= under


def crows_feet(face: Face, c: Curves, light: Array) -> None:
    """Rays from the outer corner (AU6)."""
    raised = folded(c.au["AU6"])
    beyond = np.clip(-c.across - 0.98, 0, 1)
    columns = int(np.count_nonzero(beyond.max(axis=(0, 1)) > 0))
    if columns == 0 or not raised.any():
        return
    outer = slice(0, columns)
    beyond, y = beyond[:, :, outer], c.y[:, :, outer] - c.corner_line[:, :, outer]
    fade = np.clip(beyond * 8, 0, 1) * np.clip(1.6 - 2.4 * beyond, 0, 1)
    for slope, start in ((-0.55, -0.03), (0.05, 0.02), (0.60, 0.07)):
        fold = ridge(y - F(start) - F(slope * face.half_width) * beyond, 0.030)
        fold *= F(face.wrinkles * 0.52) * raised * fade
        light[:, :, outer] -= fold


def under_eye(face: Face, c: Curves, light: Array) -> None:
    """The furrow under the lower lid: deep with a raised cheek (AU6) or a tightened lid (AU7)."""
    au6, au7 = c.au["AU6"], c.au["AU7"]
    depth = F(face.bag * 0.4) + F(face.wrinkles) * (0.04 + 0.36 * au6 + 0.24 * au7)
    fold = ridge(c.y - (c.lower + F(0.10) + 0.02 * c.across - 0.02 * au6), 0.030)
    fold *= depth * np.clip(1.25 - c.across * c.across, 0, 1)
    light -= fold


def nose_root(face: Face, c: Curves, light: Array) -> None:
    """Slanting folds on the nose's root and the start of the cheek's fold (AU9)."""
    wrinkled = folded(c.au["AU9"])
    if not wrinkled.any():
        return
    inner = slice(int(0.70 * light.shape[2]), None)
    x, y = c.x[:, :, inner], c.y[:, :, inner]
    fade = np.clip((x - 0.52) * 6, 0, 1)
    for height in (-0.22, -0.08, 0.07):
        fold = ridge(y - F(height) + 0.55 * (x - 0.85) + 0.04 * np.sin(9 * x + 7 * height), 0.045)
        fold *= F(face.wrinkles * 0.42) * wrinkled * fade
        light[:, :, inner] -= fold
    cheek = ridge(c.y - (c.lower + F(0.22) + 0.30 * c.x * c.x), 0.045)
    cheek *= F(face.wrinkles * 0.34) * wrinkled * np.clip((c.x + 0.1) * 3, 0, 1)
    light -= cheek


def lid_crease(face: Face, c: Curves, light: Array) -> None:
    """The upper lid's crease: hidden when the brow comes down."""
    au4, au5, au7, au9, au43 = (c.au[name] for name in ("AU4", "AU5", "AU7", "AU9", "AU43"))
    depth = F(face.crease * 0.45) * np.clip(1 - 0.60 * au4 - 0.35 * au9 - 0.30 * au7, 0.05, 1)
    above = F(face.crease_height) * (1 + 0.35 * au5 - 0.35 * au4 + 0.5 * au43) + 0.05 * c.closure
    arch = np.clip(1.25 - c.across * c.across, 0, 1)
    fold = ridge(c.y - (c.open_lid + 0.25 * (c.upper - c.open_lid) - above * arch), 0.020)
    fold *= depth * np.clip(1.35 - 1.1 * c.across * c.across, 0, 1)
    light -= fold
