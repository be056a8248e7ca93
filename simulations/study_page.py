"""The page of a study: tables as Markdown, one figure of all differences, and the command under each."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from simulations.study_grid import Grid, Included
from simulations.study_results import RELEVANT, Row

#: Fewer seeds than this are exploratory.
CONFIRMING_SEEDS = 10
_HEAD = (
    "| setting | WAR % | UAR % | worst tenth % | recovered gain | difference to the reference | p (Holm) | verdict "
    "| MB up | s |\n|---|---:|---:|---:|---:|---|---:|---|---:|---:|"
)
_COLOURS = {"better": "#1a7f4b", "worse": "#b3372f", "equivalent": "#1f5fa8", "not resolved": "#777777"}
_MARKERS = {"better": "^", "worse": "v", "equivalent": "s", "not resolved": "o"}


def page(
    grid: Grid,
    tables: Sequence[Sequence[Row]],
    commands: Sequence[Sequence[str]],
    included: Sequence[tuple[Included, str, Sequence[str], str]],
    figure: str | None,
    made_by: str,
    synthetic: bool,
) -> str:
    """The page as Markdown.

    ``tables`` and ``commands`` (as typed, the first of each for the reference) belong to the grid's factors in turn;
    ``included``: what another command wrote, as (what it is, its table, addresses of figures, the command).
    """
    seeds = ", ".join(map(str, grid.seeds))
    exploratory = len(grid.seeds) < CONFIRMING_SEEDS
    parts = [
        f"# Study: {grid.name}",
        grid.says,
        f"Made by `{made_by}`, seeds {seeds}{' (exploratory: fewer than 10 seeds)' if exploratory else ''}. "
        + ("Synthetic data: nothing here says how well people are recognised. " if synthetic else "")
        + "Every run is paired with the reference's of the same seed: the same people, split, base model and client "
        "sampling. A difference is the mean over clips of test subjects, in points of WAR, with its 95 % interval by "
        "bootstrap over seeds and the subjects within each; p is by sign flips over subjects, adjusted over all "
        f"comparisons of this page. *Better* or *worse*: the interval excludes 0 and the difference is at least "
        f"{100 * RELEVANT:.0f} point; *equivalent*: the interval lies within {100 * RELEVANT:.0f} point; else *not "
        "resolved*. Recovered gain is (federated - base) / (centralised - base); in brackets where centralised "
        "training gains less than 5 points over the base, or that is not resolved: federation cannot be judged by it. "
        "Its interval is by the same bootstrap; there is none where resamples have nothing to recover.",
    ]
    parts.append(_in_short(tables))
    if figure:
        parts.append(f"![Difference of every setting to the reference, in points of WAR]({figure})")
    for factor, rows, command in zip(grid.factors, tables, commands, strict=True):
        parts += [f"## {factor.says}", _table(rows), *_under(command)]
    for one, table, figures, command in included:
        parts += [f"## {one.says}", table.strip(), *(f"![{one.says}]({address})" for address in figures)]
        parts.append(f"    {command}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _in_short(tables: Sequence[Sequence[Row]]) -> str:
    """What the page comes to: how many comparisons have which verdict, and whether federation can be judged at all."""
    compared = [row for table in tables for row in table if row.difference]
    if not compared:
        return ""
    named = []
    for verdict in _COLOURS:
        rows = [row.value for row in compared if row.verdict == verdict]
        if rows:
            which = f" ({', '.join(rows)})" if verdict in ("better", "worse") else ""
            named.append(f"{len(rows)} {verdict}{which}")
    judged = {row.value: row for table in tables for row in table if row.informative is not None}
    passed = [value for value, row in judged.items() if row.informative]
    gate = (
        f"Training in one place gains enough over the base for federation to be judged in {len(passed)} of "
        f"{len(judged)} settings" + (f": {', '.join(passed)}." if passed else ", so no recovered gain here counts.")
    )
    reference = tables[0][0]
    if reference.base is not None and reference.upper is not None:
        gate += (
            f" The reference's base is at {100 * reference.base:.1f} % WAR, its federated model at "
            f"{100 * reference.war:.1f} % and centralised training from the base at {100 * reference.upper:.1f} %."
        )
    return f"**In short**: of {len(compared)} comparisons {', '.join(named)}. " + (gate if judged else "")


def differences_figure(tables: Sequence[Sequence[Row]]) -> bytes:
    """Every setting's difference to the reference with its interval, as SVG; equal inputs give equal bytes."""
    rows = [row for table in tables for row in table if row.difference]
    with matplotlib.rc_context({"svg.hashsalt": "study", "font.size": 10, "axes.spines.top": False}):
        names = [textwrap.fill(row.value, 40, break_on_hyphens=False) for row in rows]
        height = sum(0.14 + 0.18 * (1 + name.count("\n")) for name in names)
        figure = Figure(figsize=(8, 0.8 + height), layout="constrained", facecolor="white")
        axes = figure.subplots()
        axes.axvspan(-100 * RELEVANT, 100 * RELEVANT, color="#eeeeee", zorder=0)
        axes.axvline(0, color="#999999", linewidth=1)
        for place, row in enumerate(rows):
            assert row.difference
            colour = _COLOURS[row.verdict]
            axes.plot([100 * row.difference.low, 100 * row.difference.high], [place, place], color=colour, linewidth=2)
            axes.plot(100 * row.difference.estimate, place, _MARKERS[row.verdict], color=colour)
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        figure.supxlabel("points of WAR against the reference, with 95 % interval (grey: within 1 point)", fontsize=10)
        drawn = io.BytesIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()


def _table(rows: Sequence[Row]) -> str:
    return "\n".join([_HEAD, *map(_line, rows)]) if rows else "Nothing of this is done yet."


def _line(row: Row) -> str:
    found = row.difference
    gain = "-" if row.gain is None else f"{row.gain:.2f}"
    if row.gain_interval:
        gain += " [{:.2f}, {:.2f}]".format(*row.gain_interval)
    cells = (
        row.value + (f" ({row.missing} seed{'s' * (row.missing > 1)} missing)" if row.missing else ""),
        f"{100 * row.war:.1f}",
        f"{100 * row.uar:.1f}",
        "-" if row.worst_tenth is None else f"{100 * row.worst_tenth:.1f}",
        gain if row.informative or row.gain is None else f"({gain})",
        f"{100 * found.estimate:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]" if found else "-",
        "-" if row.holm_p is None else f"{row.holm_p:.3f}",
        row.verdict,
        f"{row.megabytes_up:.1f}",
        f"{row.seconds:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def _under(command: Sequence[str]) -> list[str]:
    """The commands under a table: the reference's and the first value's; the others differ in what the table names."""
    return ["Reference and first row, under the first seed:", "\n".join(f"    {line}" for line in command)]
