"""`mcoe-client export`: everything for the wearer, or labelled spans for a study."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.common import DEFAULT_FOLDER, AsJson, Folder, opened_store, paths_of, say, told
from mcoe_model.errors import SettingsError
from mcoe_model.progress import Progress, silent

if TYPE_CHECKING:
    from mcoe_model.study import StudyKey


@told
def export(
    out: Annotated[Path, typer.Option(help="New folder, or with --study new file, on a medium of this device.")],
    study: Annotated[
        bool, typer.Option("--study", help="Labelled recordings for the study, readable by its key alone.")
    ] = False,
    form: Annotated[
        str | None, typer.Option("--format", help="With --study: see (SEE's layout), aedat4 or csv.")
    ] = None,
    study_key: Annotated[
        Path | None, typer.Option(help="With --study: file with its public key; by default that of the settings.")
    ] = None,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Everything about the wearer as a folder, not encrypted; or with --study what the wearer agreed to hand over."""
    if not study:
        if form is not None or study_key is not None:
            raise SettingsError(["--format and --study-key belong to --study"])
        _everything(out, folder, as_json)
        return
    from client.export.formats import STUDY_FORMATS
    from client.export.study import export_for_study

    if form not in STUDY_FORMATS:
        raise SettingsError([f"--format must be one of {', '.join(STUDY_FORMATS)}, not {form}"])
    key_of_study = _study_key(study_key, folder)
    with opened_store(folder) as (store, key):
        handed = export_for_study(store, key, key_of_study, form, out, folder, _shown("spans", 1, as_json))
    said = asdict(handed) | {"out": str(out), "format": form, "study": key_of_study.fingerprint}
    text = f"{handed.spans} labelled spans in {out}, which only the study {key_of_study.fingerprint[:12]} can open"
    if handed.left_out:
        text += f"; {handed.left_out} more do not fit {form}"
    say(said, as_json, text)


def _everything(out: Path, folder: Path, as_json: bool) -> None:
    from client.export.everything import everything, needed_bytes
    from client.export.folder import write_folder
    from client.export.place import check_place

    with opened_store(folder) as (store, key):
        paths = paths_of(folder)
        needed = needed_bytes(store, paths)
        check_place(out, folder, needed)
        files = everything(store, key, paths, folder)
        written = write_folder(out, files, needed, _shown("MB", 10**6, as_json))
    text = f"everything is in {out}, {written / 1e6:.1f} MB, not encrypted: whoever has it can read it"
    say({"out": str(out), "bytes": written}, as_json, text)


def _study_key(path: Path | None, folder: Path) -> StudyKey:
    from client.settings import load_settings
    from mcoe_model.study import read_public_key

    named = str(path) if path is not None else load_settings(folder, {}).study_key
    if not named:
        raise SettingsError(["no study is known; name its public key: --study-key, or study_key in the settings"])
    return read_public_key(Path(named))


def _shown(unit: str, each: int, as_json: bool) -> Progress:
    """One line at a terminal that is written over; nothing where nobody looks."""
    if as_json or not sys.stderr.isatty():
        return silent

    def show(done: int, total: int, note: str) -> None:
        end = "\n" if done >= total else ""
        print(f"\rexporting: {done // each} of {total // each} {unit} ", end=end, file=sys.stderr, flush=True)

    return show


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(epilog="Example:  mcoe-client export --study --format see --out /media/stick/wearer.mcoe-study")(export)
