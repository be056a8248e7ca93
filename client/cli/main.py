"""`mcoe-client`: the wearable's program."""

from __future__ import annotations

import datetime
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from client.cameras.source import EXAMPLES, parse_device
from client.check_in_gates import CheckInGates
from client.cli import doctor, export, models, page, sessions, wearer
from client.cli.common import DEFAULT_FOLDER, AsJson, Folder, paths_of, say, settled, store_at_rest, told
from client.control import ask
from client.enrolment import ClientPaths, read_membership
from client.kept import kept_clips, kept_ids
from client.leaving import COME_BACK, Leaving, join, key_id
from client.running import Running
from client.told import ToldFile
from client.traffic import Traffic
from mcoe_model.consent import Consent
from mcoe_model.errors import DataMissing, EnrolmentRefused, SettingsError, WearableDown
from mcoe_model.files import remove_torn
from mcoe_model.invitation import Invitation

# Typer would print the values of variables with a traceback, and thereby a wearer's pictures into a log.
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True, epilog="Example:  mcoe-client --device davis346")
@told
def run(
    context: typer.Context,
    device: Annotated[
        str | None, typer.Option(help=f"Camera: {EXAMPLES}. none learns from the enrolled folder of clips.")
    ] = None,
    page_port: Annotated[int | None, typer.Option(help="Port of the page; 0: any that is free.")] = None,
    page_host: Annotated[str | None, typer.Option(help="Address that the page listens on.")] = None,
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """Recognise, record and learn this wearer's expressions. No picture or label leaves the device."""
    if context.invoked_subcommand is not None:
        return
    if device is None or parse_device(device).kind == "none":
        _learn(folder)
        return
    from client.main_process import run_wearable
    from client.settings import load_settings

    settings = load_settings(folder, {"page_port": page_port, "page_host": page_host})

    def ready(port: int) -> None:
        where = "" if folder == DEFAULT_FOLDER else f" --dir {folder}"
        print(f"the page is served at port {port}; how a phone comes there: mcoe-client page{where}", flush=True)

    run_wearable(folder, device, settings, ready)
    print("stopped; everything that was recorded is sealed", flush=True)


def _learn(folder: Path) -> None:
    """A fleet's member without a camera, until SIGTERM.

    Raises DataMissing, WearableRuns, ConsentMissing, and what the fleet does.
    """
    from client.only_one import only_one

    paths, leaving = settled(folder).paths, Leaving(folder)
    if leaving.waiting():  # also of a wearer who is gone
        with only_one(folder):
            leaving.try_all()
    read_membership(paths)  # where nobody has enrolled, nothing is written
    with only_one(folder):  # nor is a consent withdrawn at rest while it learns
        labels = _require_agreement(folder, paths)
        if left := leaving.of(key_id(paths)):
            raise EnrolmentRefused(f"{left.line()}; {COME_BACK}")
        leaving.start()
        remove_torn(paths.folder)
        from client.fleet import run_fleet  # brings torch and Flower, which no other command needs
        from client.settings import load_settings

        run_fleet(paths, load_settings(folder, {}).check_in_rules, labels=labels)


def _require_agreement(folder: Path, paths: ClientPaths) -> bool:
    """Nothing is learned from or sent for a wearer who has not agreed. Raises ConsentMissing.

    Returns whether what was labelled may be used, which is a consent of its own.

    A folder without a wearer's code or store is one that a study's operator enrolled with the study's own clips.
    """
    if paths.folder == folder and not paths.store.exists():
        return True
    from client.sessions import Store
    from client.settings import load_settings

    with closing(Store(paths.store, paths.recordings, load_settings(folder, {}).rules())) as store:
        for kind in ("learning", "updates"):
            store.require(kind)
        return store.allowed("labels")


@app.command(epilog="Example:  mcoe-client enrol 'INVITATION' --dir c1")
@told
def enrol(
    invitation: Annotated[str, typer.Argument(help="The line that `mcoe-server clients invite` printed.")],
    clips: Annotated[
        Path | None, typer.Option(help="Folder of labelled clips in SEE's layout; else what is recorded and labelled.")
    ] = None,
    subject: Annotated[str, typer.Option(help="Whose sequences of that folder are this wearer's.")] = "",
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Join a fleet, also after its wearer has left one. The wearable's key is made here and stays here."""
    if (clips is None) != (not subject):
        raise SettingsError(["--clips and --subject belong together: give both, or neither to wearables with a camera"])
    read, paths = Invitation.from_line(invitation), settled(folder).paths
    membership = join(Leaving(folder), paths, read, clips, subject, () if clips else _agreed(folder))
    said = {"client_id": membership.client_id, "address": membership.address, "dir": str(folder)}
    where = "" if folder == DEFAULT_FOLDER else f" --dir {folder}"
    device = "davis346" if clips is None else "none"
    joined = f"joined {membership.address} as {membership.client_id}"
    say(said, as_json, f"{joined}; next: mcoe-client --device {device}{where}")


def _agreed(folder: Path) -> tuple[Consent, ...]:
    """What the wearer has agreed to, to the texts of today; nothing before the first visit."""
    from client.wearable.views import utc

    if settled(folder).current is None:
        return ()
    try:
        answers = ask(folder, "consents")
    except WearableDown:
        with store_at_rest(folder) as store:
            agreed: tuple[Consent, ...] = store.agreed()
            return agreed
    given = [answer for answer in answers if answer["given"] and answer["current"]]
    return tuple(Consent(one["kind"], one["version"], utc(one["utc_us"])) for one in given)


@app.command(epilog="Example:  mcoe-client status --json")
@told
def status(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """What the wearable does now, its fleet, outbox and model, and what the server was told of who left."""
    wearable, leaving = _running(folder), Leaving(folder)
    goodbyes = [*leaving.receipts(), *leaving.waiting()]
    try:
        said, text = _fleet(folder, wearable)
    except DataMissing:
        if wearable is None and paths_of(folder).folder == folder and not goodbyes:
            raise
        said, text = {}, "member of no fleet" + ("; it does not run" if wearable is None else "")
    if wearable is not None:
        said["wearable"] = wearable
        text = f"{_wearable_line(wearable)}\n{text}"
    said["leaving"] = [asdict(goodbye) for goodbye in goodbyes]
    say(said, as_json, "\n".join([text, *(goodbye.line() for goodbye in goodbyes)]))


def _running(folder: Path) -> dict[str, Any] | None:
    try:
        return dict(ask(folder, "status"))
    except WearableDown:
        return None


def _wearable_line(now: dict[str, Any]) -> str:
    """One line of what the wearable does now."""
    camera, live = now["camera"], now["live"]
    parts = [f"{now['wearer'] or 'nobody'} wears it, {now['stage']}"]
    if camera is not None and camera["seen"]:
        parts.append(f"camera {camera['model']}")
    else:
        parts.append(f"no camera: {now['why_no_camera']}" if now["why_no_camera"] else "no camera")
    if now["dropped"]:
        parts.append(f"{now['dropped']} events, frames and samples were left out, since they cannot be right")
    if now["recording"]:
        parts.append(f"records session {now['recording']['session']}")
    elif now["refusal"]:
        parts.append(f"a recording would be refused: {now['refusal']}")
    learning = now["learning"]
    if learning["waiting"]:
        why = f" ({'; '.join(learning['closed'])})" if learning["closed"] else ""
        parts.append(f"{learning['waiting']} labelled spans: {learning['state']}{why}")
    elif learning["last"] and learning["last"]["clips"]:
        clips, before, after = (learning["last"][name] for name in ("clips", "before", "after"))
        parts.append(f"recognises {after} of {clips} spans that it never learns from, {before} before it learned last")
    if learning["lost"]:
        parts.append(f"{learning['lost']} labelled spans are lost to models of this generation: no recording is left")
    if learning["contradicted"]:
        parts.append(f"{learning['contradicted']} labelled spans are left out: a later label contradicts them")
    if learning["flawed"]:
        parts.append(f"{learning['flawed']} labelled spans are left out: their recordings have a fault")
    if now["why_not_live"]:
        parts.append(f"recognition: {now['why_not_live']}")
    if live:
        parts.append(f"sees {live['emotion']} ({live['fps']:.0f} a second)")
    return "; ".join(parts)


def _fleet(folder: Path, wearable: dict[str, Any] | None) -> tuple[dict[str, Any], str]:
    """The wearable's part in its fleet. Raises DataMissing when it has none, SettingsError."""
    from client.settings import load_settings

    paths = paths_of(folder)
    said: dict[str, Any] = asdict(read_membership(paths))
    waiting, running = kept_ids(paths.outbox), Running(paths.running).read()
    known = wearable and wearable["check_ins"]  # it knows whether the wearer's labels may be learned from
    clips = known["clips"] if known else kept_clips(paths.lessons)
    heard, traffic = ToldFile(paths.told).read(), Traffic(paths.traffic)
    records = wearable is not None and wearable["recording"] is not None
    closed = CheckInGates(load_settings(folder, {}).check_in_rules, traffic, lambda: records).closed()
    said |= {"outbox": list(waiting), "clips_waiting": clips, "gates_closed": closed, "traffic": asdict(traffic.used())}
    said |= asdict(running) | asdict(heard)
    text = f"member of {said['address']} as {said['client_id']}; {len(waiting)} updates wait for the server, "
    text += f"{clips} clips for a round; runs model {running.runs[:12] or 'none yet'}"
    if closed:
        text += f"; no check-in now: {', '.join(closed)}"
    if running.refused:
        text += f"; refused {running.refused[:12]}: {running.refusal}"
    if Leaving(folder).of(key_id(paths)):
        text += f"; it has left; {COME_BACK}"
    if heard.lost:
        text += f"; it was reported lost and sends nothing; {COME_BACK}"
    if heard.turned_away:
        text += f"; {heard.turned_away}"
    if heard.standing in ("update-advised", "too-old"):
        text += f"; the server says that version {heard.client_version} is {heard.standing}"
    if heard.next_check_in:
        due = datetime.datetime.fromtimestamp(heard.next_check_in).astimezone()
        text += f"; checks in next at {due:%Y-%m-%d %H:%M:%S}"
    return said, text


for group in (doctor, page, sessions, wearer, models, export):
    group.add_to(app)


if __name__ == "__main__":
    sys.exit(app())
