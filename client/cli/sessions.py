"""Recording, labelling, and what was recorded: `record`, `label`, `sessions`."""

from __future__ import annotations

import contextlib
import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from client.cli.common import DEFAULT_FOLDER, AsJson, Folder, Yes, paths_of, say, store_at_rest, told
from client.control import Refused, ask
from client.enrolment import ClientPaths
from mcoe_model.errors import DataMissing, DecisionNeeded, SettingsError, WearableDown

sessions = typer.Typer(help="What was recorded.", no_args_is_help=True, epilog="Example:  mcoe-client sessions list")
Session = Annotated[str, typer.Argument(help="Id of a session, as `sessions list` shows it.")]


@told
def record(
    seconds: Annotated[float | None, typer.Option(min=0.5, help="Stop after so long; else at Ctrl-C.")] = None,
    last: Annotated[float | None, typer.Option(min=0.5, max=15.0, help="Save the last seconds instead.")] = None,
    protocol: Annotated[
        Path | None, typer.Option(help="CSV of onset_s,duration_s,stimulus,label that drives the session.")
    ] = None,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Record a session on the wearable that runs. It is sealed while it comes in."""
    if sum(choice is not None for choice in (seconds, last, protocol)) > 1:
        raise SettingsError(["--seconds, --last and --protocol exclude each other"])
    if protocol is not None:
        try:
            text = protocol.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as fault:
            raise DataMissing(f"the protocol file cannot be read: {fault}") from fault
        try:
            _say_session(ask(folder, "record_protocol", text=text), as_json)
        except KeyboardInterrupt:  # what was shown until now is recorded and labelled
            _say_session(ask(folder, "show", session=ask(folder, "stop")), as_json)
        return
    if last is not None:
        session = ask(folder, "save_last", seconds=last)
    else:
        session = ask(folder, "start")
        until = "Ctrl-C" if seconds is None else f"{seconds:g} s are over, or Ctrl-C"
        typer.echo(f"recording until {until}", err=True)
        ends = time.monotonic() + (math.inf if seconds is None else seconds)
        with contextlib.suppress(KeyboardInterrupt):
            while _runs(folder, session) and (left := ends - time.monotonic()) > 0:
                time.sleep(min(left, 1.0))
        with contextlib.suppress(Refused):  # it has ended by itself, without its camera for instance: what it says
            ask(folder, "stop", session=session)
    _say_session(ask(folder, "show", session=session), as_json)


@told
def label(
    span: Annotated[int, typer.Argument(help="Number of a span, as `sessions show` shows it.")],
    what: Annotated[str, typer.Argument(metavar="LABEL", help="One of the seven emotions, other or skip.")],
    intensity: Annotated[int | None, typer.Option(min=1, max=5, help="How strong it was.")] = None,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Say what a span was. Every version is kept; the newest counts."""
    said = ask(folder, "label", span=span, label=what, intensity=intensity)
    say(said, as_json, f"span {span} is {said['label']} now ({said['versions']} versions)")


@sessions.command("list", epilog="Example:  mcoe-client sessions list --json")
@told
def list_sessions(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """All sessions, newest first."""
    try:
        found = ask(folder, "sessions")
    except WearableDown:
        with store_at_rest(folder) as store:
            found = json.loads(json.dumps([asdict(one) for one in store.sessions()]))
    lines = [
        f"{one['id']}  {_seconds(one):7.1f} s  {one['state']:9}  {one['labelled']} of {one['spans']} spans labelled"
        + ("" if one["raw"] else "  (pictures deleted)")
        for one in found
    ]
    say(found, as_json, "\n".join(lines) or "nothing was recorded yet")


@sessions.command("show", epilog="Example:  mcoe-client sessions show 3f9a5c27d1e80b46")
@told
def show_session(session: Session, folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """A session and what was said of its spans. Needs the wearable that runs: it has the key."""
    _say_session(ask(folder, "show", session=session), as_json)


@sessions.command("delete", epilog="Example:  mcoe-client sessions delete 3f9a5c27d1e80b46 --yes")
@told
def delete_session(
    session: Session, yes: Yes = False, folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False
) -> None:
    """Delete a session for good: its key, its pictures, its labels, and what was kept of it to learn from."""
    if not yes:
        raise DecisionNeeded("deleting a session cannot be undone; say --yes to do it")
    remembered = False
    try:
        ask(folder, "delete", session=session)
    except WearableDown:
        with store_at_rest(folder) as store:
            remembered = _delete_at_rest(store, paths_of(folder), session)
    text = f"deleted {session}: its key is gone, so nothing can read what it sealed"
    if remembered:
        text += "; the sealed replay memory lets go of its windows when the wearable runs and is unlocked"
    say({"deleted": session, "remembered": remembered}, as_json, text)


def _delete_at_rest(store: Any, paths: ClientPaths, session: str) -> bool:
    """As the wearable that runs does it; whether the replay memory cannot be opened, and may have something of it."""
    from client import keys
    from client.lesson_book import clip_name, forget_spans, keep_lessons
    from client.sessions import now

    remembered = forget_spans(paths.lessons, store.discard(session))
    if not remembered or store.locked:
        return remembered
    key, stand = keys.read_keyfile(paths.device_key).derive("lessons"), [clip_name(*one) for one in store.standing()]
    keep_lessons(paths.lessons, key, stand, now().day)
    return False


def _runs(folder: Path, session: str) -> bool:
    recording = ask(folder, "status")["recording"]
    return recording is not None and recording["session"] == session


def _say_session(said: dict[str, Any], as_json: bool) -> None:
    lines = [f"session {said['id']}: {said['seconds']:.1f} s, {said['state']}, {said['bytes'] / 1e6:.1f} MB sealed"]
    for span in said["spans"]:
        between = f"{span['start_us'] / 1e6:.1f}-{span['end_us'] / 1e6:.1f} s"
        lines.append(f"  span {span['id']}: {between}, {span['label'] or 'not labelled yet'}")
    say(said, as_json, "\n".join(lines))


def _seconds(one: dict[str, Any]) -> float:
    return 0.0 if one["starts_us"] is None else float(one["ends_us"] - one["starts_us"]) / 1e6


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example:  mcoe-client record --seconds 30")(record)
    app.command(epilog="Example:  mcoe-client label 4 happiness --intensity 3")(label)
    app.add_typer(sessions, name="sessions")
