"""What the simulation's commands share: flags made from settings, and errors as one line with an exit code."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from mcoe_model.errors import DiskFull, ExitCode, McoeError, NotResumable, SettingsError
from mcoe_model.files import read_json
from simulations.scene import Paths
from simulations.settings import SimulationSettings, make_settings, read_toml


def make_parser(name: str, says: str, examples: str, leave_out: Collection[str] = ()) -> argparse.ArgumentParser:
    """A parser with the common flags and one for every setting but those left out."""
    parser = argparse.ArgumentParser(
        prog=name, description=says, epilog=examples, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings; flags go over it")
    parser.add_argument("--print-config", action="store_true", help="print the settings as TOML and stop")
    parser.add_argument("--scale", default="quick", help="quick or full: which defaults the settings start from")
    parser.add_argument("--out", type=Path, metavar="DIR", help="output folder; by default a new one under runs/")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on with the run in this folder")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on the last line")
    settings = parser.add_argument_group("settings, with the defaults of --scale quick")
    for field in dataclasses.fields(SimulationSettings):
        if field.name in leave_out:
            continue
        flag, text = f"--{field.name.replace('_', '-')}", f"{field.metadata['help']} [{field.default}]"
        if type(field.default) is bool:
            settings.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            kind = type(field.default)
            settings.add_argument(flag, type=kind, metavar={int: "N", float: "X"}.get(kind, "TEXT"), help=text)
    return parser


@dataclasses.dataclass(frozen=True)
class Request:
    """What the command line asks for. ``resumed`` runs have their folder and settings already."""

    settings: SimulationSettings
    folder: Path
    resumed: bool
    as_json: bool
    own: dict[str, Any] = dataclasses.field(default_factory=dict)


def read_request(
    parser: argparse.ArgumentParser, arguments: list[str] | None, own: Mapping[str, Any] | None = None
) -> Request | None:
    """The settings of a new run or of the one to resume; None when they were only to be printed.

    ``own``: flags of this command alone, beside the settings, with their defaults. Raises SettingsError, DataMissing
    or NotResumable.
    """
    flags = vars(parser.parse_args(arguments))
    given_own = {name: flags.pop(name) for name in own or {}}
    config, print_config, scale, out, resume, as_json = (
        flags.pop(name) for name in ("config", "print_config", "scale", "out", "resume", "json")
    )
    if resume is not None:
        everything = {**flags, **given_own, "out": out}
        given = [f"--{name.replace('_', '-')}" for name, value in everything.items() if value is not None]
        if given or config:
            named = ", ".join(given) or "--config"
            raise SettingsError([f"--resume takes its settings from the run; leave out {named}"])
        settings = stored_settings(resume)
        stored = read_json(Paths(resume).run).get("chosen", {}) if own else {}
        return Request(settings, resume.absolute(), True, as_json, stored)
    settings = make_settings(scale, read_toml(config) if config else {}, flags)
    if print_config:
        print(settings.to_toml(), end="")
        return None
    chosen = {name: default if given_own[name] is None else given_own[name] for name, default in (own or {}).items()}
    return Request(settings, (out or new_folder(settings)).absolute(), False, as_json, chosen)


def new_folder(settings: SimulationSettings) -> Path:
    """Where a run goes that was given no folder."""
    return Path("runs") / f"{datetime.now():%Y-%m-%d-%H%M%S}-{settings.preset}"


def command(main: Callable[[], None]) -> None:
    """Run a script's main function, whose run goes on with ``--resume``."""
    with errors_as_one_line("go on with --resume", fewer_workers="use fewer --workers in a new run, or "):
        main()


@contextmanager
def errors_as_one_line(
    how_to_go_on: str, fewer_workers: str = "use fewer --workers and "
) -> Iterator[None]:
    """What is expected to go wrong inside ends the program with one line on standard error and its exit code."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        _end(f"stopped: nobody reads what is printed any more; {how_to_go_on}", ExitCode.INTERRUPTED)
    except DiskFull as fault:
        _end(f"error: {fault}; {how_to_go_on}", fault.exit_code)
    except McoeError as fault:
        _end(f"error: {fault}", fault.exit_code)
    except BrokenProcessPool:
        _end("error: a worker process was killed, most likely for want of memory; "
             f"{fewer_workers}{how_to_go_on}", ExitCode.FAILED)
    except OSError as fault:
        if fault.filename is None:
            raise  # no file or folder that somebody named
        _end(f"error: cannot use {fault.filename}: {fault.strerror}", ExitCode.FAILED)
    except KeyboardInterrupt:
        _end(f"stopped; {how_to_go_on}", ExitCode.INTERRUPTED)


def _end(said: str, code: int) -> NoReturn:
    print(said, file=sys.stderr)
    sys.exit(code)


def stored_settings(folder: Path) -> SimulationSettings:
    """The settings of the run in a folder. Raises NotResumable when there is none."""
    try:
        return SimulationSettings(**read_json(Paths(folder).run)["settings"])
    except (FileNotFoundError, NotADirectoryError, KeyError, ValueError, TypeError) as fault:
        raise NotResumable(f"{folder} holds no run to resume ({fault}); start one without --resume") from fault
