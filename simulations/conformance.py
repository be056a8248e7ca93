"""Tries code of your own before a simulation does: one line for every property that it has to have.

A property that fails says in its line what was expected. Nothing is trained and nothing is written.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mcoe_model.errors import ExitCode
from mcoe_model.workers import one_thread
from simulations import own
from simulations.command import command
from simulations.conform import KINDS, Checked, check

EXAMPLES = """
Examples:

  python simulations/conformance.py model examples/small_network.py:SmallConfig

  python simulations/conformance.py rule examples/geometric_median.py:GeometricMedian

  python simulations/conformance.py representation examples/newest_polarity.py:NewestPolarity

  python simulations/conformance.py data-reader examples/npz_clips.py:NpzClips --data my/clips
"""


def main(arguments: list[str] | None = None) -> None:
    """Check one piece of code. Ends with FAILED unless it has every property."""
    parser = argparse.ArgumentParser(
        prog="conformance.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("kind", choices=KINDS, help="what it is")
    parser.add_argument("code", help="path/file.py:Name, or the name of an entry point in the group mcoe.<kind>")
    parser.add_argument("--data", type=Path, metavar="PATH", help="what a data-reader is to read")
    parser.add_argument("--json", action="store_true", help="print the properties as JSON on the last line")
    asked = parser.parse_args(arguments)
    one_thread()
    found = check(own.locate(asked.kind, asked.code), asked.data)
    for one in found:
        print(line(one))
    if asked.json:
        print(json.dumps([one._asdict() for one in found]))
    if any(one.fault for one in found):
        sys.exit(ExitCode.FAILED)


def line(one: Checked) -> str:
    """What is said of a property."""
    return f"FAILED  {one.property}: {one.fault}" if one.fault else f"ok      {one.property}"


if __name__ == "__main__":
    command(main)
