"""The page of a study: tables as Markdown, one figure of all differences, and the command under each."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure

from mcoe_model.learning.metrics import Difference
from mcoe_model.names import EMOTIONS, LIGHTINGS
from simulations.study_grid import Grid, Included, in_words
from simulations.study_results import RELEVANT, Row, Tuned, once

#: Fewer seeds than this are exploratory.
CONFIRMING_SEEDS = 10
_COLOURS = {"better": "#1a7f4b", "worse": "#b3372f", "equivalent": "#1f5fa8", "not resolved": "#777777"}
_MARKERS = {"better": "^", "worse": "v", "equivalent": "s", "not resolved": "o"}
#: Columns of words; the others are of numbers.
_WORDS = ("setting", "difference to the reference", "verdict", "arm", "grid", "chosen (seeds)", "add to the grid")
_ARMS = {"local": "each client alone"}
_TO_GAIN = (
    "WAR in %, over the test clips of the seeds that have both lines: the base as it is, the federated model, "
    "centralised training from the base on the same clips (the better of two batch sizes on validation), and all data "
    "in one place, from scratch; the last two are the reference's of the same seed where a setting changes the rounds "
    "alone. Federation can be judged where centralised training gains at least 5 points over the base, its interval "
    "above 0. There is no recovered gain where it gains nothing, and its interval has no bound where it gains nothing "
    "in more than 2.5 % of the resamples."
)
_MEASURES = (
    "Means over seeds, of the federated model, in %; F1p = 0.33 UAR + 0.67 WAR; clip WAR is that of the mean softmax "
    "over a clip's windows; UAR, macro F1 and recalls are over the emotions that a seed's test clips show, whose "
    "number is given."
)
_LIGHTINGS = (
    "WAR in %, of the federated model. Unless the design of the data is `crossed` or `wearable` these are different "
    "people under different light (n subjects each, those of every seed counted), never an effect of lighting."
)


@dataclass(frozen=True)
class Table:
    """A table of the page. Its rows have the same columns, as text; its files are called ``name``."""

    name: str
    says: str
    rows: Sequence[dict[str, str]]
    caption: str = ""

    def markdown(self) -> str:
        """As the page shows it."""
        head = list(self.rows[0])
        lines = [head, ["---" if column in _WORDS else "---:" for column in head]]
        lines += [[cell.replace("|", r"\|") for cell in row.values()] for row in self.rows]
        first, second, *rest = (" | ".join(line) for line in lines)
        return "\n".join([f"| {first} |", f"|{second.replace(' ', '')}|", *(f"| {line} |" for line in rest)])


@dataclass(frozen=True)
class Shown:
    """An included command as the page shows it: its table and, where it wrote one, that as LaTeX; its figures."""

    what: Included
    table: str
    latex: str | None
    figures: Sequence[str]
    command: str


@dataclass(frozen=True)
class Found:
    """What a study has found, as its page tells it.

    - ``tables``: the rows of each factor, the reference first; ``tuned``: what the arms of its runs took
    - ``commands``: for each factor, as typed, the reference's and the first value's
    - ``missing``: run -> why it has found nothing; ``runs``: how many were declared
    - ``results``: the folder of tables and results; ``figure``: the address of the differences
    """

    grid: Grid
    tables: Sequence[Sequence[Row]]
    tuned: Sequence[Tuned]
    commands: Sequence[Sequence[str]]
    included: Sequence[Shown]
    missing: Mapping[str, str]
    runs: int
    results: str
    figure: str | None
    made_by: str
    synthetic: bool


def page(found: Found) -> str:
    """The page as Markdown."""
    parts = [f"# Study: {found.grid.name}", found.grid.says, _preface(found), _in_short(found.tables)]
    if found.missing:
        parts.append(f"**{len(found.missing)} of {found.runs} runs are missing**; the end of this page says why.")
    if found.figure:
        parts.append(f"![Difference of every setting to the reference, in points of WAR]({found.figure})")
    gain, measures, lightings = gain_table(found.tables), *measure_tables(found.tables)
    parts += _section(gain, found.results)
    for table, command in zip(factor_tables(found.grid, found.tables), found.commands, strict=True):
        parts += [*_section(table, found.results), *_under(command)]
    parts += [*_section(measures, found.results), *_section(lightings, found.results), *_rates(found)]
    for one in found.included:
        parts += [f"## {one.what.says}", one.table.strip()]
        parts += [f"![{one.what.says}]({address})" for address in one.figures]
        parts += [f"This table as LaTeX: `{one.latex}`." if one.latex else "", f"    {one.command}"]
    parts += _missing(found)
    parts.append(
        f"All results for programs, in `{found.results}`: `runs.csv` (a row per run), `scores.csv` (per run, arm and "
        "measure), `settings.csv` (per setting, with intervals and p), `tuning.csv` (per trial of a learning rate)."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def page_tables(found: Found) -> list[Table]:
    """Every table of the page but those of included commands, which are files already."""
    rates = tuning_table(found.tuned)
    every = [gain_table(found.tables), *factor_tables(found.grid, found.tables), *measure_tables(found.tables)]
    return [table for table in (*every, rates) if table and table.rows]


def gain_table(tables: Sequence[Sequence[Row]]) -> Table:
    """What the recovered gain of every setting is made of."""
    return Table("to-gain", "What there was to gain", [_gain_cells(row) for row in once(tables)], _TO_GAIN)


def factor_tables(grid: Grid, tables: Sequence[Sequence[Row]]) -> list[Table]:
    """The settings of each factor, compared with the reference."""
    return [
        Table(f"factor-{number}", factor.says, [_cells(row) for row in rows])
        for number, (factor, rows) in enumerate(zip(grid.factors, tables, strict=True), 1)
    ]


def measure_tables(tables: Sequence[Sequence[Row]]) -> tuple[Table, Table]:
    """What else the federated model of every setting scored, and what under which lighting."""
    rows = once(tables)
    return (
        Table("measures", "Other measures, and recalls of emotions", [_measure_cells(row) for row in rows], _MEASURES),
        Table("lightings", "Under each lighting", [_lighting_cells(row) for row in rows], _LIGHTINGS),
    )


def tuning_table(found: Sequence[Tuned]) -> Table | None:
    """Which learning rate every arm took under which seed; None where none had a choice."""
    if all(len(one.scores) < 2 for one in found):
        return None
    groups: dict[tuple[str, str], list[Tuned]] = {}
    for one in found:
        groups.setdefault((one.value, one.arm), []).append(one)
    return Table("learning-rates", "Learning rates", [_rate_cells(group) for group in groups.values()], _budget(found))


def _budget(found: Sequence[Tuned]) -> str:
    """How many trials the arms had."""
    numbers = sorted({len(one.scores) for one in found})
    start = "Every arm takes the learning rate that is best on validation subjects under its seed, the lower on a tie. "
    if len(numbers) == 1:
        return f"{start}Every arm of every setting had {numbers[0]} trials per seed."
    return (
        f"{start}Not all had the same number of trials ({', '.join(map(str, numbers))}): of two that are compared, the "
        "one with more had the better chance."
    )


def _rates(found: Found) -> list[str]:
    """The section about learning rates."""
    table = tuning_table(found.tuned)
    if table:
        return _section(table, found.results)
    return ["No learning rate was tuned: every arm had one trial, at the rate that its setting names."]


def _missing(found: Found) -> list[str]:
    """The section about runs that have found nothing; none where all have."""
    if not found.missing:
        return []
    known = {row.value for row in once(found.tables)}
    without = [value for value in _declared(found.grid) if value not in known]
    why = [f"- `{name}`: {fault} (`{found.results}/{name}.log`)" for name, fault in found.missing.items()]
    parts = ["## What is missing", "\n".join(why)]
    if without:
        parts.append(
            f"Of these settings nothing is done, and the tables are without them: {'; '.join(without)}. A comparison "
            "that was declared counts in Holm's adjustment all the same, as one that shows nothing."
        )
    return parts


def _declared(grid: Grid) -> list[str]:
    """The settings of the grid, as tables say them, each once."""
    return list(dict.fromkeys(in_words(value) for factor in grid.factors for value in factor.values))


def _section(table: Table, results: str) -> list[str]:
    """A table under its heading, with where it is as LaTeX; nothing where it has no row."""
    if not table.rows:
        return []
    latex = f"This table as LaTeX: `{results}/tables/{table.name}.tex`."
    return [f"## {table.says}", table.markdown(), f"{table.caption} {latex}".strip()]


def _preface(found: Found) -> str:
    seeds = ", ".join(map(str, found.grid.seeds))
    exploratory = len(found.grid.seeds) < CONFIRMING_SEEDS
    return (
        f"Made by `{found.made_by}`, seeds {seeds}{' (exploratory: fewer than 10 seeds)' if exploratory else ''}. "
        + ("Synthetic data: nothing here says how well people are recognised. " if found.synthetic else "")
        + "Every run is paired with the reference's of the same seed: the same people, split, base model and client "
        "sampling. A difference is the mean over clips of test subjects, in points of WAR, with its 95 % interval by "
        "bootstrap over seeds and the subjects within each; p is by sign flips over subjects, adjusted over all "
        f"comparisons of this page. *Better* or *worse*: the interval excludes 0 and the difference is at least "
        f"{100 * RELEVANT:.0f} point; *equivalent*: the interval lies within {100 * RELEVANT:.0f} point; else *not "
        "resolved*; *not compared* where the reference was tested on other clips, or is missing. Recovered gain is "
        "(federated - base) / (centralised - base); in brackets where centralised training gains less than 5 points "
        "over the base, or that is not resolved: federation cannot be judged by it. Its interval is by the same "
        "bootstrap; there is none where resamples have nothing to recover."
    )


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
    return f"**In short**: of {len(compared)} comparisons {', '.join(named)}. {_gate(once(tables))}".strip()


def _gate(rows: Sequence[Row]) -> str:
    """Whether federation can be judged, and what by; the first row is the reference's."""
    judged = [row for row in rows if row.informative is not None]
    passed = [row.value for row in judged if row.informative]
    if not judged:
        return ""
    said = (
        f"Training in one place gains enough over the base for federation to be judged in {len(passed)} of "
        f"{len(judged)} settings" + (f": {', '.join(passed)}." if passed else ", so no recovered gain here counts.")
    )
    reference = rows[0]
    if reference.base is not None and reference.upper is not None:
        said += (
            f" The reference's base is at {100 * reference.base:.1f} % WAR, its federated model at "
            f"{100 * reference.war:.1f} % and centralised training from the base at {100 * reference.upper:.1f} %."
        )
    return said


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


def _cells(row: Row) -> dict[str, str]:
    """A setting beside the reference."""
    gain = _gain(row)
    return {
        "setting": row.value + (f" ({_seeds(row.missing)} missing)" if row.missing else ""),
        "WAR %": _percent(row.war),
        "UAR %": _percent(row.uar),
        "worst tenth %": _percent(row.worst_tenth),
        "recovered gain": gain if row.informative or row.gain is None else f"({gain})",
        "difference to the reference": _points(row.difference, row.done),
        "p (Holm)": "-" if row.holm_p is None else f"{row.holm_p:.3f}",
        "verdict": row.verdict,
        "MB up": f"{row.megabytes_up:.1f}",
        "s": f"{row.seconds:.0f}",
    }


def _gain_cells(row: Row) -> dict[str, str]:
    """What the recovered gain of a setting is made of."""
    unbounded = " [no bound]" if row.gain is not None and row.gain_interval is None else ""
    return {
        "setting": row.value,
        "base": _percent(row.base),
        "federated": _percent(row.judged),
        "centralised": _percent(row.upper),
        "all data in one place": _percent(row.all_data),
        "centralised - base": _points(row.room, row.seeds),
        "recovered gain": _gain(row) + unbounded,
        "can be judged": "-" if row.informative is None else ("yes" if row.informative else "no"),
    }


def _measure_cells(row: Row) -> dict[str, str]:
    found = row.measures
    least, most = found.classes
    return {
        "setting": row.value,
        "F1p": _percent(found.f1p),
        "macro F1": _percent(found.macro_f1),
        "clip WAR": _percent(found.clip_war),
        "emotions": f"{least}" if least == most else f"{least} to {most}",
    } | {emotion: _percent(found.recalls.get(emotion)) for emotion in EMOTIONS}


def _lighting_cells(row: Row) -> dict[str, str]:
    cells = {"setting": row.value}
    for light in LIGHTINGS:
        under = row.measures.lightings.get(light)
        cells[light] = f"{_percent(under.war)} (n = {under.subjects})" if under else "-"
    return cells


def _rate_cells(found: Sequence[Tuned]) -> dict[str, str]:
    """What one arm of a setting took under its seeds."""
    scores = [score for one in found for score in one.scores.values()]
    taken: dict[str, list[str]] = {}
    for one in found:
        taken.setdefault(_each(one.chosen), []).append(str(one.seed))
    lost = f" ({scores.count(None)} lost in all)" if None in scores else ""
    return {
        "setting": found[0].value,
        "arm": _ARMS.get(found[0].arm, found[0].arm),
        "grid": _each(sorted({rate for one in found for rate in one.scores})),
        "trials per seed": _each(sorted({len(one.scores) for one in found})) + lost,
        "chosen (seeds)": "; ".join(f"{rates} ({', '.join(seeds)})" for rates, seeds in taken.items()),
        "add to the grid": _each(sorted({rate for one in found for rate in one.add})) or "-",
    }


def _each(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _gain(row: Row) -> str:
    gain = "-" if row.gain is None else f"{row.gain:.2f}"
    return gain + (" [{:.2f}, {:.2f}]".format(*row.gain_interval) if row.gain_interval else "")


def _points(found: Difference | None, seeds: int) -> str:
    """A difference with its interval, and over how many seeds it is where these are not all."""
    if found is None:
        return "-"
    fewer = f" ({_seeds(found.seeds)})" if found.seeds < seeds else ""
    return f"{100 * found.estimate:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]{fewer}"


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count != 1)}"


def _under(command: Sequence[str]) -> list[str]:
    """The commands under a table: the reference's and the first value's; the others differ in what the table names."""
    return ["Reference and first row, under the first seed:", "\n".join(f"    {line}" for line in command)]
