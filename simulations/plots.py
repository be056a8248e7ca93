"""The figures of a report: SVG inside the page, which takes the page's fonts and its light or dark colours.

Matplotlib draws each figure twice, for a laptop and for a phone, with text as text and with colours that stand for the
CSS variables of ``report.html.j2``. Equal inputs give equal bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Arm(NamedTuple):
    """How an arm is named and drawn, in every table and figure."""

    name: str
    detail: str
    marker: str


ARM_STYLES = {
    "base": Arm("Base", "the model that the rounds start from", "s"),
    "federated": Arm("Federated", "after the last round", "o"),
    "centralised": Arm("Centralised", "from the base on all clients' clips (upper line)", "^"),
    "local": Arm("Each alone", "from the base on one client's clips (mean)", "D"),
    "all_data": Arm("All data", "from scratch on base and clients' clips", "v"),
}

#: Colours that no figure uses otherwise -> the CSS variable each one becomes.
_VARIABLES = {
    f"#0{place:x}0b0c": name
    for place, name in enumerate(("ink", "muted", "line", "paper", "tint", "up", "down", *ARM_STYLES))
}
_COLOUR = {name: colour for colour, name in _VARIABLES.items()}

_WIDE, _NARROW = 880, 342  # pixels that a figure is drawn for; the page shows either at about its own size
_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": _COLOUR["line"],
    "axes.grid": True,
    "axes.labelcolor": _COLOUR["muted"],
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 13,
    "font.size": 12,
    "grid.color": _COLOUR["line"],
    "grid.linewidth": 0.7,
    "lines.linewidth": 2,
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.color": _COLOUR["ink"],
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "xtick.color": _COLOUR["line"],
    "xtick.labelcolor": _COLOUR["muted"],
    "ytick.color": _COLOUR["line"],
    "ytick.labelcolor": _COLOUR["muted"],
}


class ArmPoint(NamedTuple):
    """WAR of an arm and the 95 % interval of its paired difference to the base, all in percent."""

    arm: str
    war: float
    interval: tuple[float, float] | None


class SubjectPoint(NamedTuple):
    """Accuracy of one test subject before and after federation, in percent."""

    subject: str
    base: float
    federated: float
    worst: bool


def arms_plot(alt: str, points: Sequence[ArmPoint], chance: float) -> Markup:
    """WAR of every arm on one scale, with chance, base and intervals."""

    def paint(figure: Figure, wide: bool) -> None:
        axes = figure.subplots()
        _reference(axes.axvline, chance, "muted", ":")
        axes.text(chance, -0.62, f"chance {chance:.1f}", ha="center", va="bottom", color=_COLOUR["muted"], fontsize=11)
        for row, (arm, war, interval) in enumerate(points):
            if arm == "base":
                _reference(axes.axvline, war, "base", "--")
            if interval:
                axes.plot(interval, [row, row], color=_COLOUR[arm], linewidth=2.5, alpha=0.45)
            axes.plot(war, row, ARM_STYLES[arm].marker, color=_COLOUR[arm], markersize=10)
            end = max(war, interval[1] if interval else war)
            axes.annotate(f"{war:.1f}", (end, row), (10, 0), textcoords="offset points", va="center", weight="bold")
        axes.set_yticks(range(len(points)), [ARM_STYLES[point.arm].name for point in points])
        axes.tick_params(axis="y", length=0, labelcolor=_COLOUR["ink"])
        axes.set_ylim(len(points) - 0.5, -0.7)
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.1 if wide else 0.18)
        axes.set_xlabel("WAR on the test subjects, %")

    height = 70 + 40 * len(points)
    return _both("arms", alt, paint, height, height)


def rounds_plot(
    alt: str,
    measured: Mapping[str, Sequence[tuple[int, float]]],
    lines: Mapping[str, Mapping[str, float]],
    chance: float,
) -> Markup:
    """A panel per measure: the federated model after every round, and the lines of the arms that have no rounds.

    ``measured``: measure -> (round, percent); ``lines``: arm -> measure -> percent.
    """

    def paint(figure: Figure, wide: bool) -> None:
        panels = figure.subplots(1, 2, sharey=True) if wide else figure.subplots(2, 1, sharex=True)
        for axes, (measure, points) in zip(panels, measured.items(), strict=True):
            _reference(axes.axhline, chance, "muted", ":")
            for arm, values in lines.items():
                _reference(axes.axhline, values[measure], arm, "--" if arm == "base" else "-.")
            numbers, values_ = zip(*points, strict=True)
            axes.plot(numbers, values_, "-o", color=_COLOUR["federated"], markersize=6)
            axes.set_title(f"{measure} on validation, %")
            _count_along(axes)
            axes.margins(x=0.03, y=0.12)
        for axes in panels if wide else panels[1:]:
            axes.set_xlabel("round (0: the base model)")

    return _both("rounds", alt, paint, 330, 520)


def bars_plot(
    name: str, alt: str, groups: Sequence[str], series: Mapping[str, Sequence[float]], unit: str, chance: float
) -> Markup:
    """Grouped bars in percent, one colour per arm: upright on a laptop, lying on a phone."""
    thick = 0.8 / len(series)

    def paint(figure: Figure, wide: bool) -> None:
        axes = figure.subplots()
        for place, (arm, values) in enumerate(series.items()):
            at = [group - 0.4 + (place + 0.5) * thick for group in range(len(groups))]
            (axes.bar if wide else axes.barh)(at, values, 0.88 * thick, color=_COLOUR[arm])
        _reference(axes.axhline if wide else axes.axvline, chance, "ink", ":")
        if wide:
            axes.set_xticks(range(len(groups)), groups)
            axes.set_ylabel(unit)
        else:
            axes.set_yticks(range(len(groups)), groups)
            axes.set_ylim(len(groups) - 0.5, -0.5)
            axes.set_xlabel(unit)
        axes.tick_params(axis="x" if wide else "y", length=0, labelcolor=_COLOUR["ink"])
        axes.grid(visible=False, axis="x" if wide else "y")
        axes.margins(x=0.01 if wide else None, y=None if wide else 0.01)

    return _both(name, alt, paint, 320, 60 + len(groups) * (12 * len(series) + 14))


def traffic_plot(alt: str, numbers: Sequence[int], up: Sequence[float], down: Sequence[float]) -> Markup:
    """Megabytes of every round, up beside down."""

    def paint(figure: Figure, wide: bool) -> None:
        axes = figure.subplots()
        for place, (way, values) in enumerate({"up": up, "down": down}.items()):
            axes.bar([number - 0.2 + 0.4 * place for number in numbers], values, 0.36, color=_COLOUR[way])
        _count_along(axes)
        axes.grid(visible=False, axis="x")
        axes.margins(x=0.01)
        axes.set_xlabel("round")
        axes.set_ylabel("MB")

    return _both("traffic", alt, paint, 220, 220)


def subjects_plot(alt: str, points: Sequence[SubjectPoint], chance: float) -> Markup:
    """Base and federated accuracy of every test subject, in the order given; the worst tenth is shaded."""
    named = len(points) <= 40
    height = 70 + len(points) * (24 if named else 10)

    def paint(figure: Figure, wide: bool) -> None:
        axes = figure.subplots()
        _reference(axes.axvline, chance, "muted", ":")
        size = 7 if named else 4.5
        for row, (_, base, federated, worst) in enumerate(points):
            if worst:
                axes.axhspan(row - 0.5, row + 0.5, color=_COLOUR["tint"], linewidth=0)
            axes.plot([base, federated], [row, row], color=_COLOUR["federated"], linewidth=1.5, alpha=0.4)
            axes.plot(base, row, ARM_STYLES["base"].marker, color=_COLOUR["base"], markersize=size)
            axes.plot(federated, row, ARM_STYLES["federated"].marker, color=_COLOUR["federated"], markersize=size + 1)
        marked = [f"{point.subject} ◂" if point.worst else point.subject for point in points]
        axes.set_yticks(range(len(points)) if named else [], marked if named else [])
        axes.set_ylim(len(points) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0, labelcolor=_COLOUR["ink"])
        axes.grid(visible=False, axis="y")
        axes.set_xlim(left=-1.5)
        axes.set_xlabel("accuracy on the subject's test clips, %")

    return _both("subjects", alt, paint, height, height)


def stages_plot(name: str, alt: str, lines: Mapping[str, Sequence[float]], unit: str) -> Markup:
    """A line for each method, in percent, after each stage from the second on; its name stands at the line's end."""
    colours = [_COLOUR[arm] for arm in ARM_STYLES]
    markers = [arm.marker for arm in ARM_STYLES.values()]

    def paint(figure: Figure, wide: bool) -> None:
        axes = figure.subplots()
        for place, (label, values) in enumerate(lines.items()):
            colour, marker = colours[place % len(colours)], markers[place // len(colours) % len(markers)]
            stages = range(2, len(values) + 2)
            axes.plot(stages, values, marker=marker, color=colour, markersize=6, label=label)
        axes.axhline(0, color=_COLOUR["line"])
        _count_along(axes)
        axes.set_xlabel("after stage")
        axes.set_ylabel(unit)
        columns = 3 if wide else 1
        legend = figure.legend(loc="outside lower center", ncols=columns, frameon=False)
        for text in legend.get_texts():
            text.set_color(_COLOUR["ink"])

    return _both(name, alt, paint, 330 + 8 * len(lines), 300 + 22 * len(lines))


def _reference(line: Callable[..., Any], value: float, colour: str, style: str) -> None:
    line(value, color=_COLOUR[colour], linestyle=style, linewidth=1.6)


def _count_along(axes: Axes) -> None:
    """Mark whole numbers along the x axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _both(name: str, alt: str, paint: Callable[[Figure, bool], None], wide: float, narrow: float) -> Markup:
    """Both forms of a figure, of the given heights in pixels; ``alt`` is what is read to who cannot see it."""
    from matplotlib import style  # most of a second, which a run's workers and a run that is refused do not take
    from matplotlib.figure import Figure

    drawn = []
    for form, width, height in (("wide", _WIDE, wide), ("narrow", _NARROW, narrow)):
        with style.context(["default", _STYLE]):
            figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
            paint(figure, form == "wide")
            drawn.append(_svg(figure, form, f"{name}-{form}-"))
    return Markup('<div class="plot" role="img" aria-label="{}">{}{}</div>').format(alt, *map(Markup, drawn))


def _svg(figure: Figure, form: str, prefix: str) -> str:
    """A figure as an element of an HTML page: no prolog, no size of its own, ids and colours that fit the page."""
    written = io.StringIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    text = written.getvalue()
    view = re.search(r'viewBox="([^"]+)"', text)
    assert view is not None
    text = text[text.index(">", text.index("<svg")) + 1 :]
    text = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|font-family:[^;\"]*;?", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = text.replace("url(#", f"url(#{prefix}").replace('xlink:href="#', f'href="#{prefix}')
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return f'<svg class="{form}" viewBox="{view[1]}" aria-hidden="true">{text}'
