"""Small charts as inline SVG. Colours are classes of the style sheet, so that they follow light and dark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup, escape

#: Drawing area in SVG units, with room for the labels left of it and below.
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 640, 200, 64, 24, 12, 8
_MOST_LABELS = 10


def lines(
    points: Mapping[str, Sequence[float | None]],
    labels: Sequence[str],
    *,
    low: float,
    high: float,
    says: str,
    percent: bool = False,
) -> Markup:
    """One line for each named series over the labels, of which there is at least one; a gap where a value is None.

    The n-th series has the class ``line-n``. ``says`` is what a reader who cannot see the chart is told.
    """
    step = (_WIDTH - _LEFT - _RIGHT) / max(1, len(labels) - 1)

    def x(index: int) -> float:
        return _LEFT + (step * index if len(labels) > 1 else (_WIDTH - _LEFT - _RIGHT) / 2)

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_axis(low, high, y, percent)]
    every = -(-len(labels) // _MOST_LABELS)
    for index in range((len(labels) - 1) % every, len(labels), every):
        anchor = "middle" if 0 < index < len(labels) - 1 or len(labels) == 1 else "end" if index else "start"
        parts.append(f'<text class="tick" x="{x(index):.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">'
                     f"{escape(labels[index])}</text>")
    radius = 3 if step > 12 else 1.5
    for number, (name, values) in enumerate(points.items()):
        known = [(x(index), y(value)) if value is not None else None for index, value in enumerate(values)]
        path, joined = [], False
        for point in known:
            if point is not None:
                path.append(f"{'L' if joined else 'M'}{point[0]:.1f} {point[1]:.1f}")
            joined = point is not None
        parts.append(f'<path class="line line-{number}" d="{"".join(path)}"/>')
        for index, point in enumerate(known):
            if point is not None:
                value = _text(values[index] or 0.0, percent)
                parts.append(f'<circle class="dot line-{number}" cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="{radius}">'
                             f"<title>{escape(name)}, {escape(labels[index])}: {value}</title></circle>")
    return _svg(parts, says)


def bars(values: Sequence[float], labels: Sequence[str], *, even: float, says: str) -> Markup:
    """Shares as bars, with a dashed line at ``even``, the share that each would have if all were alike."""
    high = max([*values, even]) * 1.1 or 1.0
    width = (_WIDTH - _LEFT - _RIGHT) / max(1, len(values))

    def y(value: float) -> float:
        return _TOP + (high - value) / high * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_axis(0.0, high, y, True)]
    for index, value in enumerate(values):
        left = _LEFT + index * width + width * 0.15
        says_value = f"{escape(labels[index])}: {_text(value, True)}"
        parts.append(f'<rect class="bar" x="{left:.1f}" y="{y(value):.1f}" width="{width * 0.7:.1f}" '
                     f'height="{y(0) - y(value):.1f}"><title>{says_value}</title></rect>'
                     f'<text class="tick" x="{left + width * 0.35:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">'
                     f"{escape(labels[index])}</text>")
    parts.append(f'<path class="even" d="M{_LEFT} {y(even):.1f}H{_WIDTH - _RIGHT}"/>')
    return _svg(parts, says)


def _axis(low: float, high: float, y: Callable[[float], float], percent: bool) -> str:
    parts = []
    for share in (0.0, 0.5, 1.0):
        value = low + share * (high - low)
        parts.append(f'<path class="rule" d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}"/>'
                     f'<text class="tick" x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">'
                     f"{_text(value, percent)}</text>")
    return "".join(parts)


def _text(value: float, percent: bool) -> str:
    return f"{100 * value:.0f} %" if percent else f"{value:.2f}".rstrip("0").rstrip(".")


def _svg(parts: Sequence[str], says: str) -> Markup:
    drawn = "".join(parts)
    return Markup(f'<svg role="img" aria-label="{escape(says)}" viewBox="0 0 {_WIDTH} {_HEIGHT}">{drawn}</svg>')
