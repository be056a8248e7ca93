"""Exit codes are an interface: each has one meaning, and the page says the same as the code."""

from __future__ import annotations

import inspect
from pathlib import Path

from mcoe_model import errors
from mcoe_model.errors import ExitCode, McoeError, SettingsError, exit_code_table

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, McoeError)]


def test_the_page_is_the_table_in_the_code() -> None:
    page = Path(__file__).parents[1] / "docs" / "exit-codes.md"
    assert page.read_text() == exit_code_table(), f"write {page.name} anew, as the first lines of errors.py say"


def test_every_code_is_in_the_table_with_its_meaning() -> None:
    lines = exit_code_table().splitlines()
    for code in ExitCode:
        row = [line for line in lines if line.startswith(f"| {code.value} |")]
        assert len(row) == 1 and code.meaning in row[0]


def test_meanings_are_one_sentence_or_more_and_differ() -> None:
    meanings = [code.meaning for code in ExitCode]
    assert len(set(meanings)) == len(meanings)
    assert all(meaning.endswith(".") and "\n" not in meaning for meaning in meanings)


def test_every_error_has_a_code_and_no_two_share_one() -> None:
    codes = [kind.exit_code for kind in KINDS]
    assert len(set(codes)) == len(codes) == len(KINDS) > 10
    assert set(ExitCode) - set(codes) == {ExitCode.OK, ExitCode.INTERRUPTED}


def test_codes_keep_clear_of_those_that_the_shell_gives() -> None:
    assert all(code < 64 for code in ExitCode if code is not ExitCode.INTERRUPTED)


def test_settings_errors_list_every_fault_in_one_line() -> None:
    error = SettingsError(["a is wrong", "b is wrong"])
    assert str(error) == "a is wrong; b is wrong"
    assert error.faults == ["a is wrong", "b is wrong"]
