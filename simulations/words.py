"""How a report writes numbers."""

from __future__ import annotations


def rounded(value: float, digits: int = 1) -> str:
    """A number with a true minus sign, and none before a rounded zero."""
    text = f"{abs(value):,.{digits}f}"
    return f"\N{MINUS SIGN}{text}" if value < 0 and float(text.replace(",", "")) else text


def percent(rate: float) -> str:
    return f"{rounded(100 * rate)}\N{NARROW NO-BREAK SPACE}%"


def points(difference: float) -> str:
    """A difference of rates in percentage points, always signed."""
    text = rounded(100 * difference)
    return text if difference < 0 or text == "0.0" else f"+{text}"


def megabytes(count: float) -> str:
    return f"{rounded(count / 1e6)}\N{NARROW NO-BREAK SPACE}MB"
