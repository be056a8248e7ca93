"""The simulation's command in this process, for what it refuses: a process of its own would only load torch again."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pytest

from mcoe_model.errors import ExitCode
from simulations.command import command
from simulations.see_by_subject import main


def refused(cache: Path, code: ExitCode, *flags: object) -> str:
    """The one line with which the command ends for these flags, with this exit code."""
    printed, error = io.StringIO(), io.StringIO()
    with (
        redirect_stdout(printed),
        redirect_stderr(error),
        patch.dict(os.environ, {"MCOE_CACHE": str(cache), "COLUMNS": "200"}),
        pytest.raises(SystemExit) as ended,
    ):
        command(lambda: main([str(flag) for flag in flags]))
    said = error.getvalue()
    assert ended.value.code == code, said
    assert said.count("\n") == 1 and said.startswith("error: "), said
    assert "Traceback" not in printed.getvalue() + said
    return said
