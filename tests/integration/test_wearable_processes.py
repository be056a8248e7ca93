"""The wearable's real processes: killed in turn while it records, and looked for what they leave on a disk."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from real_fleet import wait_for
from real_wearable import AEDAT4, RealWearable, files_with, untrained_model

from client.enrolment import ClientPaths, make_key
from client.page.certificate import device_certificate
from client.wearable.folders import plain_folder
from mcoe_model.errors import ExitCode, McoeError
from mcoe_model.names import EMOTIONS

PASSPHRASE = "correct horse"
PROTOCOL = "onset_s,duration_s,stimulus,label\n1.0,0.6,clip-1,surprise\n1.8,0.5,grey,\n"


@pytest.fixture(scope="module")
def worn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealWearable]:
    """A wearable that runs, and that nobody has set up."""
    made = RealWearable(tmp_path_factory.mktemp("worn") / "wearable")
    temporary = made.folder.parent / "temporary"
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        made.start()
        try:
            yield made
        finally:
            made.remove()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


def recorded(worn: RealWearable, seconds: float = 1.0) -> str:
    """Begin to record, and wait until so much can be read whatever happens."""
    wait_for(worn.sees, 60, "the camera")
    session = worn.ask("start")
    wait_for(lambda: worn.written() > 1_500_000 * seconds, 60, "a recording")
    return str(session)


def ended(worn: RealWearable, session: str) -> bool:
    return worn.status()["recording"] is None and worn.session(session)["state"] != "recording"


def test_nothing_runs_and_nothing_is_kept_before_consent(worn: RealWearable) -> None:
    assert worn.command("record", "--seconds", 1, fails=True) == ExitCode.DATA_MISSING
    assert worn.status()["stage"] == "new" and worn.child("client.capture") is None
    assert worn.ask("new_wearer", code="P01", passphrase=PASSPHRASE).count("-") == 7  # the recovery key
    with pytest.raises(McoeError, match="agreed to capture") as refused:
        worn.ask("start")
    assert refused.value.exit_code == ExitCode.CONSENT_MISSING
    assert worn.status()["refusal"] == "no-consent"
    assert worn.child("client.capture") is None and worn.plain_files() == []
    assert not (worn.folder / "wearers" / "P01" / "recordings").exists()
    worn.command("consent", "--give", "capture", "--give", "labels")
    wait_for(worn.sees, 60, "the camera")


def test_a_session_is_recorded_sealed_and_labelled(worn: RealWearable) -> None:
    said = worn.command("record", "--seconds", 3)
    assert said["state"] == "whole" and said["seconds"] > 1 and said["bytes"] > 10_000
    [span] = said["spans"]
    assert worn.ask("label", span=span["id"], label="happiness", intensity=3)["label"] == "happiness"
    [sealed] = (worn.folder / "wearers" / "P01" / "recordings" / said["id"]).iterdir()
    assert sealed.suffix == ".sealed" and worn.plain_files() == []


def test_a_recording_that_ended_by_itself_stops_no_other(worn: RealWearable) -> None:
    with ThreadPoolExecutor(1) as beside:
        told = beside.submit(worn.command, "record", "--seconds", 60)
        wait_for(lambda: worn.written() > 1_500_000, 60, "a recording")
        worn.kill("client.capture", signal.SIGKILL)
        assert told.result()["state"] == "partial"
    wait_for(worn.sees, 60, "the camera")
    session = recorded(worn)
    with pytest.raises(McoeError, match="has ended already"):
        worn.ask("stop", session=told.result()["id"])
    assert worn.status()["recording"]["session"] == session
    worn.ask("delete", session=session)


def test_the_last_seconds_are_saved_after_the_fact(worn: RealWearable) -> None:
    wait_for(lambda: worn.status()["remembered_s"] > 3, 60, "three seconds of memory")
    said = worn.ask("show", session=worn.ask("save_last", seconds=2.0))
    assert said["state"] == "whole" and 0.5 < said["seconds"] < 6 and len(said["spans"]) == 1


def test_a_study_drives_a_session_by_a_file(worn: RealWearable) -> None:
    said = worn.ask("record_protocol", text=PROTOCOL)
    [span] = said["spans"]
    assert said["state"] == "whole" and span["label"] == "surprise"
    assert span["start_us"] > 100_000 and span["end_us"] - span["start_us"] == 600_000


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_when_capture_ends_the_session_is_partial_and_capture_starts_again(worn: RealWearable, number: int) -> None:
    assert worn.process is not None
    session = recorded(worn)
    worn.kill("client.capture", number)
    wait_for(lambda: ended(worn, session), 60, "the session's end")
    found = worn.session(session)
    assert (found["state"], found["ended_why"], found["segments"]) == ("partial", "capture ended", 1)
    assert found["ends_us"] - found["starts_us"] > 300_000  # what was written before it died is kept
    assert worn.process.popen.poll() is None and worn.plain_files() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_when_recognition_ends_the_recording_goes_on(worn: RealWearable, model: Path, number: int) -> None:
    if number == signal.SIGKILL:
        worn.command("model", "import", model)
    wait_for(lambda: worn.status()["live"] is not None, 120, "live recognition")
    session = recorded(worn)
    worn.kill("client.recognise", number)
    assert worn.ask("stop") == session and worn.session(session)["state"] == "whole"


def test_a_session_that_was_recognised_says_what_the_model_saw_after_it_was_labelled(worn: RealWearable) -> None:
    wait_for(lambda: worn.status()["live"] is not None, 60, "live recognition")
    recorded(worn, 1.5)
    said: dict[str, Any] = worn.ask("show", session=worn.ask("stop"))
    [span] = said["spans"]
    assert span["predicted"] is None
    assert worn.ask("label", span=span["id"], label="fear", intensity=None)["predicted"] in EMOTIONS


def test_the_fleets_part_runs_only_for_who_joined_and_agreed(worn: RealWearable) -> None:
    wearer = worn.folder / "wearers" / "P01"
    away = f'address = "127.0.0.1:{free_port()}"\nclient_id = "w1"\nclips = ""\nsubject = ""\n'
    (wearer / "membership.toml").write_text(away)
    (wearer / "models").rename(wearer / "set aside")  # with a model, it would have nothing to fetch before it connects
    make_key(ClientPaths(wearer))
    (wearer / "ca.crt").write_bytes(device_certificate(worn.folder / "page").certificate.read_bytes())
    worn.ask("consent", kind="learning", language="en")
    assert worn.child("client.fleet") is None
    worn.ask("consent", kind="updates", language="en")
    log = worn.folder / "logs" / "fleet.log"
    wait_for(lambda: log.exists() and "no answer from" in log.read_text(), 120, "the fleet's part, without a server")
    tried = log.read_text().count("no answer from")
    worn.kill("client.fleet", signal.SIGABRT)
    wait_for(lambda: log.read_text().count("no answer from") > tried, 120, "the next one's attempt")
    assert "a recording runs" not in worn.status()["check_ins"]["closed"]
    session = recorded(worn)
    wait_for(lambda: "no check-in now: a recording runs" in log.read_text(), 60, "waiting for the recording's end")
    wait_for(lambda: "a recording runs" in worn.status()["check_ins"]["closed"], 60, "that it is said")
    worn.ask("stop")
    wait_for(lambda: "it may check in again" in log.read_text(), 60, "check-ins after the recording")
    worn.ask("delete", session=session)
    (wearer / "set aside").rename(wearer / "models")
    worn.ask("withdraw", kind="updates")
    wait_for(lambda: worn.child("client.fleet") is None, 30, "the end of the fleet's part")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_when_the_main_process_dies_its_children_end_and_the_next_one_recovers(
    worn: RealWearable, number: int
) -> None:
    session, children = recorded(worn, 2.0), [worn.child("client.capture"), worn.child("client.recognise")]
    assert worn.end(number) == -number
    wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 30, "the end of its children")
    assert len(worn.plain_files()) == 1  # in memory, and only until it is unlocked
    worn.start()
    assert worn.status()["stage"] == "locked" and worn.child("client.capture") is None
    with pytest.raises(McoeError, match="locked"):
        worn.ask("start")
    with pytest.raises(McoeError, match="neither passphrase nor recovery key"):
        worn.ask("unlock", words="wrong horse")
    worn.ask("unlock", words=PASSPHRASE)
    assert worn.session(session)["state"] == "partial" and worn.session(session)["segments"] == 1
    assert worn.status()["recording"] is None and worn.plain_files() == []


def test_sigterm_ends_a_recording_as_a_whole_session_within_ten_seconds(worn: RealWearable) -> None:
    session, began = recorded(worn), time.monotonic()
    assert worn.end() == 0
    assert time.monotonic() - began < 30  # ten on a machine that does nothing else
    assert worn.plain_files() == []
    newest = worn.command("sessions", "list")[0]
    assert (newest["id"], newest["state"], newest["segments"]) == (session, "whole", 1)


def test_after_all_this_no_file_holds_anything_plain(worn: RealWearable) -> None:
    places = [worn.folder, plain_folder(worn.folder)]
    assert files_with([worn.folder.parent / "temporary"], b"") == [], "nothing where a system keeps temporary files"
    written = files_with(places, AEDAT4, b"happiness", b"surprise", b"clip-1", PASSPHRASE.encode())
    assert [path for path in written if path.suffix != ".safetensors"] == []  # a model names all emotions
    sealed = list(worn.folder.rglob("*.sealed"))
    assert len(sealed) >= 8
    assert all(path.stat().st_mode & 0o077 == 0 for path in sealed)


def test_withdrawal_stops_at_once_and_forget_leaves_nothing(worn: RealWearable) -> None:
    worn.start()
    worn.ask("unlock", words=PASSPHRASE)
    session = recorded(worn, 0.5)
    worn.ask("withdraw", kind="capture")
    wait_for(lambda: ended(worn, session) and worn.child("client.capture") is None, 30, "the end of capture")
    with pytest.raises(McoeError, match="agreed to capture"):
        worn.ask("start")
    assert worn.plain_files() == [] and not worn.sees() and worn.status()["live"] is None
    assert list(Path("/dev/shm").glob(f"{plain_folder(worn.folder).name}-*")) == []  # no picture is left in memory
    worn.ask("forget")
    assert worn.status()["stage"] == "new"
    assert list((worn.folder / "wearers").rglob("*")) == [] and files_with([worn.folder], b"MCOE-SEALED") == []
    assert worn.end() == 0


def test_the_main_process_loads_neither_torch_nor_dv_processing() -> None:
    code = "import client.main_process, client.cli, sys; print('\\n'.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "client.wearable" in loaded
    assert not {"torch", "dv_processing", "flwr", "alembic"} & set(loaded)
