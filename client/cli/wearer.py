"""Who wears it and what they agreed to: `consent`, `wearer new`, `forget`, `unlock`, `lock`."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from client.cli.common import DEFAULT_FOLDER, AsJson, Folder, Yes, paths_of, say, secret, store_at_rest, told
from client.control import ask
from client.kept import drop_kept, kept_ids
from client.leaving import COME_BACK, FLEET_CONSENTS, Leaving, key_id
from mcoe_model.consent import CONSENTS
from mcoe_model.errors import DataMissing, DecisionNeeded, SettingsError, WearableDown

wearer = typer.Typer(
    help="Who wears this wearable.", no_args_is_help=True,
    epilog="Example:  mcoe-client wearer new P02 --yes",
)
Keyfile = Annotated[
    bool, typer.Option("--keyfile", help="Without a passphrase: protects nothing once the device is lost.")
]


@told
def consent(
    give: Annotated[list[str] | None, typer.Option(help=f"Agree to one of {', '.join(CONSENTS)}.")] = None,
    withdraw: Annotated[list[str] | None, typer.Option(help="Take an agreement back; its use ends at once.")] = None,
    language: Annotated[str, typer.Option(help="Language of the text.")] = "en",
    text: Annotated[bool, typer.Option("--text", help="Print the text, to read and to keep.")] = False,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """What the wearer agreed to, each use by itself; give or withdraw it."""
    from client.consent_text import read_consent_text
    from client.settings import load_settings

    kinds = [*(give or ()), *(withdraw or ())]
    if unknown := sorted(set(kinds) - set(CONSENTS)):
        raise SettingsError([f"consents are about {', '.join(CONSENTS)}, not {', '.join(unknown)}"])
    if len(set(kinds)) < len(kinds):
        raise SettingsError(["a consent is given or withdrawn once"])
    shown = read_consent_text(load_settings(folder, {}).consent_folder, language)
    if text:
        say(asdict(shown), as_json, f"{shown.version}\n\n{shown.text}")
        return
    leaving = Leaving(folder)
    try:
        for kind in withdraw or ():
            ask(folder, "withdraw", kind=kind)
        for kind in give or ():
            ask(folder, "consent", kind=kind, language=language)
        answers: list[dict[str, Any]] = ask(folder, "consents")
    except WearableDown:
        with store_at_rest(folder) as store:
            given_before = {kind for kind, answer in store.consents().items() if answer.given}
            if leaves := bool(given_before & {*FLEET_CONSENTS} & {*(withdraw or ())}):
                leaving.queue(paths_of(folder), "withdraw")
            for kind in withdraw or ():
                store.withdraw(kind)
                if kind == "learning":
                    shutil.rmtree(paths_of(folder).lessons, ignore_errors=True)
            store.answer_consents({kind: True for kind in give or ()}, shown)
            answers = [asdict(answer) for answer in store.consents().values()]
            if leaves:
                drop_kept(paths_of(folder).outbox)
                leaving.try_all()
    given = {answer["kind"]: answer for answer in answers if answer["given"]}
    lines = [
        f"{kind:9} {'yes, to text ' + given[kind]['version'] if kind in given else 'no'}"
        + ("" if kind not in given or given[kind]["current"] else "; the text is another now: it is asked again")
        for kind in CONSENTS
    ]
    if left := leaving.of(key_id(paths_of(folder))):
        lines += [left.line(), COME_BACK]
    say(answers, as_json, "\n".join(lines))


@wearer.command("new", epilog="Example:  mcoe-client wearer new P07 --yes")
@told
def begin_new(
    code: Annotated[str, typer.Argument(help="Code of the new wearer, never a name.")],
    keyfile: Keyfile = False,
    yes: Yes = False,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Close the wearer that there is, and begin with another: a new identity, key and store.

    Whoever leaves takes part in the fleet no longer; only `forget` asks its server to forget them, too.
    """
    _confirm_leaving(folder, yes, f"wearer new {code}")
    passphrase = None if keyfile else secret("Passphrase of the new wearer")
    try:
        recovery = ask(folder, "new_wearer", code=code, passphrase=passphrase)
    except WearableDown:
        recovery = _at_rest(folder, code, passphrase)
    text = f"{code} wears it now"
    if recovery:
        text += f"\nrecovery key, shown this once; print it and keep it elsewhere: {recovery}"
    say({"wearer": code, "recovery_key": recovery}, as_json, text)


@wearer.command("passphrase", epilog="Example:  mcoe-client wearer passphrase")
@told
def another_passphrase(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Change the passphrase; the recovery key stays. Whoever forgot the old one says the recovery key in its place."""
    from client import keys

    path = paths_of(folder).device_key
    if not path.exists():
        raise DataMissing(f"{folder} has no wearer yet; begin with: mcoe-client wearer new CODE")
    if not keys.needs_passphrase(path):
        raise DataMissing("this wearer has no passphrase, and only another one can have: mcoe-client wearer new CODE")
    words = secret("Passphrase of today, or recovery key")
    keys.change_passphrase(path, words, secret("New passphrase"))
    say({"changed": True}, as_json, "the passphrase is another now; the recovery key is the same")


@told
def forget(yes: Yes = False, folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Delete the wearer from this device for good, and ask the fleet's server to forget them."""
    from client.new_wearer import close_wearer
    from client.only_one import only_one
    from client.wearers import Wearers

    _confirm_leaving(folder, yes, "forget", codeless=True)
    key, leaving = key_id(paths_of(folder)), Leaving(folder)
    try:
        ask(folder, "forget")
    except WearableDown:
        with only_one(folder):
            close_wearer(Wearers(folder), "forget")
            leaving.try_all()
    said = leaving.of(key)
    text = f"the wearer is deleted from this device; {said.line() if said else 'no server knew them'}"
    say({"forgotten": True, "server": asdict(said) if said else None}, as_json, text)


@told
def unlock(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Open the wearable that runs with the wearer's passphrase or recovery key."""
    ask(folder, "unlock", words=secret("Passphrase or recovery key"))
    say({"stage": "open"}, as_json, "unlocked")


@told
def lock(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Forget the key until it is unlocked again; a recording is ended first."""
    ask(folder, "lock")
    say({"stage": "locked"}, as_json, "locked; nothing is recorded or recognised until it is unlocked")


def _confirm_leaving(folder: Path, yes: bool, command: str, codeless: bool = False) -> None:
    """Raises DecisionNeeded unless there is nobody, or it was said that this wearer may go.

    ``codeless``: one who enrolled and has no code yet would go, too.
    """
    from client.wearers import Wearers

    wearers = Wearers(folder, finish=False)
    if yes or (wearers.current is None and not (codeless and wearers.worn)):
        return
    text = f"{wearers.current or 'somebody without a code'} wears it: export what they want to keep first (mcoe-client "
    text += "export); everything is then deleted. "
    if waiting := len(kept_ids(wearers.paths.outbox)):
        text += f"Updates that wait for the server and are deleted unsent: {waiting}"
        # Who wants to be forgotten by the server, too, has no reason to send them.
        text += ". " if codeless else "; to send them, let it check in first (mcoe-client status counts them). "
    raise DecisionNeeded(f"{text}To do it: mcoe-client {command} --yes")


def _at_rest(folder: Path, code: str, passphrase: str | None) -> str | None:
    """A new wearer while no main process runs."""
    from client.new_wearer import check_new, close_wearer, new_wearer
    from client.only_one import only_one
    from client.wearers import Wearers

    check_new(code, passphrase)
    folder.mkdir(parents=True, exist_ok=True)
    with only_one(folder):
        wearers = Wearers(folder)
        if wearers.current is not None:
            close_wearer(wearers, "withdraw")
        recovery = new_wearer(wearers, code, passphrase)[1]
        Leaving(folder).try_all()
        return recovery


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example:  mcoe-client consent --withdraw capture")(consent)
    app.add_typer(wearer, name="wearer")
    app.command(epilog="Example:  mcoe-client forget --yes")(forget)
    app.command(epilog="Example:  mcoe-client unlock")(unlock)
    app.command(epilog="Example:  mcoe-client lock")(lock)
