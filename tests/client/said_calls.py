"""Every sentence that this program says by its key and values, as its code has it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import client.said

CLIENT = Path(client.said.__file__).parent


def said_calls() -> Iterator[tuple[str, frozenset[str]]]:
    """The key and the names of the values of each ``Said(...)``. Each is to be written out, or nobody could look."""
    for path in sorted(CLIENT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Said":
                key = node.args[0]
                assert isinstance(key, ast.Constant) and isinstance(key.value, str), f"{path}:{node.lineno}"
                names = [keyword.arg for keyword in node.keywords]
                assert None not in names, f"{path}:{node.lineno}"
                yield key.value, frozenset(name for name in names if name)
