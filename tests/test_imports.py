"""Arrows run one way: simulations -> {server, client} -> mcoe_model; and the server never loads torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
#: What each package must not import, directly.
FORBIDDEN = {
    "mcoe_model": {"server", "client", "simulations", "flwr"},
    "server": {"client", "simulations", "torch"},
    "client": {"server", "simulations"},
}
#: Where private modules of Flower may be touched.
ADAPTERS = {
    *(REPOSITORY / "server" / "superlink").glob("*.py"),
    *(REPOSITORY / "client" / f"{name}.py" for name in ("node", "supernode")),
}
FLOWER_PUBLIC = {"flwr.app", "flwr.clientapp", "flwr.serverapp"}
#: Packages that read or write pickles. Of `pickle` itself the name of an error is all that is used.
UNSAFE = {"dill", "cloudpickle", "joblib", "shelve", "marshal"}


def modules(package: str) -> list[Path]:
    found = sorted((REPOSITORY / package).rglob("*.py"))
    assert found
    return found


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield str(node.module)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_arrows_run_one_way(package: str) -> None:
    wrong = {
        (str(path.relative_to(REPOSITORY)), name)
        for path in modules(package)
        for name in imported(path)
        if name.split(".")[0] in FORBIDDEN[package]
    }
    assert wrong == set()


def test_private_modules_of_flower_are_touched_in_the_adapters_only() -> None:
    wrong = {
        (str(path.relative_to(REPOSITORY)), name)
        for package in ("server", "client", "simulations")
        for path in modules(package)
        if path not in ADAPTERS
        for name in imported(path)
        if name.split(".")[0] == "flwr" and name not in FLOWER_PUBLIC
    }
    assert wrong == set()


def test_nothing_reads_or_writes_pickles_or_runs_what_it_read() -> None:
    for package in ("mcoe_model", "server", "client", "simulations"):
        for path in modules(package):
            assert not UNSAFE & {name.split(".")[0] for name in imported(path)}, path
            for node in ast.walk(ast.parse(path.read_text())):
                place = f"{path.relative_to(REPOSITORY)}:{getattr(node, 'lineno', 0)}"
                if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
                    assert node.attr == "UnpicklingError", place
                if not isinstance(node, ast.Call):
                    continue
                called, text = ast.unparse(node.func), ast.unparse(node)
                assert called not in ("eval", "exec", "torch.save"), place
                assert called not in ("np.load", "numpy.load") or "allow_pickle=False" in text, place
                assert called != "torch.load" or "weights_only=True" in text, place


def loaded(statement: str) -> set[str]:
    """The modules that are loaded after a statement, in a process of its own."""
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_the_server_never_loads_torch() -> None:
    names = [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        for path in modules("server")
        if "migrations" not in path.parts
    ]
    assert len(names) > 10
    found = loaded("import " + ", ".join(names))
    assert set(names) <= found
    assert not {"torch", "client", "simulations"} & found


def test_a_command_of_the_server_loads_neither_flower_nor_alembic() -> None:
    """Which take longer than the command itself; those that tell Flower something or migrate load them then."""
    found = loaded("import server.cli")
    assert "server.fleet" in found
    assert not {"flwr", "alembic"} & found


def test_the_shared_modules_need_numpy_only() -> None:
    shared = ("protocol", "update", "model_file", "router_statistics", "tensors", "files", "streams", "errors", "names")
    shared += ("learning.replay",)
    found = {name.split(".")[0] for name in loaded("import " + ", ".join(f"mcoe_model.{name}" for name in shared))}
    assert "numpy" in found
    assert not {"torch", "flwr", "sqlalchemy", "PIL", "server", "client", "simulations"} & found
