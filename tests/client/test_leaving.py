"""Leaving the fleet from the wearable's side: offline, whenever a process dies, and what the server answers."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import shutil
import stat
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from answering_server import Answers, keys_in, worn
from real_front import RealFront
from typer.testing import CliRunner

from client.check_in_gates import CheckInRules
from client.cli import app
from client.consent_text import ConsentTexts, read_consent_text
from client.enrolment import ClientPaths, Membership, ReportedLost, enrol
from client.fleet import Keys, run_fleet
from client.leaving import Leaving, join, key_id
from client.main_process import answers_of
from client.settings import ClientSettings
from client.wearable import Wearable
from client.wearable.folders import plain_folder
from client.wearers import Wearers
from mcoe_model.errors import ConsentMissing, EnrolmentRefused, ExitCode, OutputExists, ServerUnreachable
from mcoe_model.signed_request import sign
from server.certificates import begin_rotation, finish_rotation
from simulations.fleet.processes import NO_SENSORS

TEXT = read_consent_text(None, "en")
ALL = ("capture", "labels", "learning", "updates", "export")


@pytest.fixture
def front(tmp_path: Path) -> Iterator[RealFront]:
    made = RealFront(tmp_path / "server")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def no_sensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's battery closes no gate."""
    monkeypatch.setenv("MCOE_CLIENT_SYSTEM", str(NO_SENSORS))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "wearable"


def command(folder: Path, *arguments: object, code: int = ExitCode.OK) -> str:
    """What a command says, where no wearable runs."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--dir", str(folder)])
    assert done.exit_code == code, done.output
    return done.stdout if code == ExitCode.OK else done.stderr


def member(folder: Path, front: RealFront, client: str = "w1") -> ClientPaths:
    """A wearer with every consent but the one to capture, in the fleet, with an update that waits."""
    command(folder, "wearer", "new", "P01", "--keyfile")
    command(folder, "consent", *itertools.chain(*(("--give", kind) for kind in ALL[1:])))
    paths = Wearers(folder).paths
    with front.up():
        enrol(paths, front.invite(client), Path("clips"), "001")
    paths.outbox.mkdir()
    (paths.outbox / "u.sealed").write_bytes(b"sealed")
    return paths


def states(front: RealFront) -> dict[str, str]:
    return {row.id: row.state for row in front.registry.clients()}


# -- commands, while nothing runs -----------------------------------------------------------------------------


def test_a_withdrawal_waits_for_the_server_and_nothing_is_sent_meanwhile(folder: Path, front: RealFront) -> None:
    paths = member(folder, front)
    said = command(folder, "consent", "--withdraw", "updates")
    assert "has not been told yet that w1 takes part no longer; waiting for it since" in said
    assert list(paths.outbox.iterdir()) == [] and states(front) == {"w1": "enrolled"}
    request = next((folder / "leaving").iterdir())
    assert stat.S_IMODE(request.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in request.iterdir()} == dict.fromkeys(
        ("request.json", "node", "ca.crt"), 0o600
    )
    [waiting] = Leaving(folder).waiting()
    command(folder, "--device", "none", code=ExitCode.CONSENT_MISSING)  # tries, in vain
    assert Leaving(folder).waiting() == [waiting]
    with front.up():
        command(folder, "--device", "none", code=ExitCode.CONSENT_MISSING)
    assert states(front) == {"w1": "withdrawn"} and Leaving(folder).waiting() == []
    assert keys_in(folder) == [paths.key] and list((folder / "leaving").iterdir()) == []
    [told] = json.loads(command(folder, "status", "--json"))["leaving"]
    assert (told["way"], told["client_id"], told["refused"]) == ("withdraw", "w1", "")
    assert told["receipt"] == {"client_id": "w1", "state": "withdrawn"} and told["answered"]
    assert "its receipt" in command(folder, "status") and "it has left" in command(folder, "status")


def test_who_agrees_again_is_told_that_it_takes_an_invitation_and_comes_back_by_it(
    folder: Path, front: RealFront
) -> None:
    paths = member(folder, front)
    with front.up():
        command(folder, "consent", "--withdraw", "learning")
        before = paths.key.read_bytes()
        assert "a new invitation, then: mcoe-client enrol" in command(folder, "consent", "--give", "learning")
        refused = command(folder, "--device", "none", code=ExitCode.ENROLMENT_REFUSED)
        assert len(refused.splitlines()) == 1 and "mcoe-client enrol" in refused
        again = front.invite("w1").to_line()
        command(folder, "enrol", again, "--clips", folder, "--subject", "001")
    assert states(front) == {"w1": "enrolled"} and paths.key.read_bytes() != before
    assert Leaving(folder).of(key_id(paths)) is None and "it has left" not in command(folder, "status")
    command(folder, "consent", "--withdraw", "learning")
    assert [one.client_id for one in Leaving(folder).waiting()] == ["w1"], "with the new key it is said again"


def test_forgetting_offline_leaves_what_is_needed_to_say_it_and_then_the_receipt_alone(
    folder: Path, front: RealFront
) -> None:
    paths = member(folder, front)
    key = paths.key.read_bytes()
    said = json.loads(command(folder, "forget", "--yes", "--json"))
    assert said["forgotten"] and said["server"]["answered"] is None
    assert not paths.folder.exists() and Wearers(folder).current is None
    assert [path.read_bytes() for path in keys_in(folder)] == [key]
    assert {path.name for path in (folder / "leaving").rglob("*") if path.is_file()} == {
        "request.json",
        "node",
        "ca.crt",
    }
    assert "waiting for it since" in command(folder, "status")
    with front.up():
        command(folder, "--device", "none", code=ExitCode.DATA_MISSING)  # there is nobody; the next start all the same
    assert states(front) == {} and keys_in(folder) == []
    [told] = Leaving(folder).receipts()
    assert told.receipt is not None and told.receipt["deleted"]["clients"] == 1
    assert told.receipt["descendants"] == [] and "that w1 is to be forgotten; its receipt" in command(folder, "status")
    assert [path.name for path in (folder / "leaving").rglob("*")] == []


def test_who_withdrew_can_still_be_forgotten(folder: Path, front: RealFront) -> None:
    member(folder, front)
    with front.up():
        command(folder, "consent", "--withdraw", "updates")
        assert states(front) == {"w1": "withdrawn"}
        assert json.loads(command(folder, "forget", "--yes", "--json"))["server"]["receipt"]["client_id"] == "w1"
    assert states(front) == {} and [one.way for one in Leaving(folder).receipts()] == ["forget", "withdraw"]


def test_who_withdrew_offline_and_is_forgotten_is_forgotten_at_once(folder: Path, front: RealFront) -> None:
    member(folder, front)
    command(folder, "consent", "--withdraw", "updates")
    command(folder, "forget", "--yes")
    assert [one.way for one in Leaving(folder).waiting()] == ["forget"]


def test_the_next_wearer_ends_the_consent_of_the_one_before_and_has_no_part_in_it(
    folder: Path, front: RealFront
) -> None:
    member(folder, front)
    with front.up():
        command(folder, "wearer", "new", "P02", "--yes", "--keyfile")
    assert states(front) == {"w1": "withdrawn"}
    assert [one.way for one in Leaving(folder).receipts()] == ["withdraw"]
    assert Leaving(folder).of(key_id(Wearers(folder).paths)) is None


@pytest.mark.parametrize("given", [True, False])
def test_who_is_in_no_fleet_or_never_agreed_tells_nobody(folder: Path, front: RealFront, given: bool) -> None:
    paths = member(folder, front)
    if given:
        paths.membership.unlink()
        command(folder, "consent", "--withdraw", "updates")
        said = json.loads(command(folder, "forget", "--yes", "--json"))
        assert said["server"] is None
    else:
        command(folder, "consent", "--withdraw", "labels", "--withdraw", "capture")
    assert not (folder / "leaving").exists()


def test_a_key_that_the_server_knows_no_more_is_a_refusal_that_ends_it(folder: Path, front: RealFront) -> None:
    member(folder, front)
    front.registry.revoke("w1")
    with front.up():
        said = command(folder, "forget", "--yes")
    assert "refused: this key is not enrolled; ask its operator" in said
    assert Leaving(folder).waiting() == [] and keys_in(folder) == []


def test_a_request_that_waits_while_the_fleet_changes_its_authority_learns_the_new_one_in_time(
    folder: Path, front: RealFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    member(folder, front)
    begin_rotation(front.folder)
    with front.up(), monkeypatch.context() as patch:
        patch.setattr(front.fleet, "forget", lambda *_: (_ for _ in ()).throw(ServerUnreachable("busy")))
        assert "waiting for it since" in command(folder, "forget", "--yes")
    finish_rotation(front.folder)
    with front.up():
        assert not Leaving(folder).try_all()
    assert states(front) == {} and [one.refused for one in Leaving(folder).receipts()] == [""]


def test_one_that_slept_through_the_whole_change_is_told_once_somebody_here_knows_the_new_authority(
    folder: Path, front: RealFront
) -> None:
    member(folder, front)
    command(folder, "forget", "--yes")
    begin_rotation(front.folder)
    finish_rotation(front.folder)
    with front.up():
        assert Leaving(folder).try_all(), "nobody vouches for that server"
        command(folder, "wearer", "new", "P02", "--keyfile")
        enrol(Wearers(folder).paths, front.invite("w2"), Path("clips"), "001")
        assert not Leaving(folder).try_all()
    assert states(front) == {"w2": "enrolled"} and [one.refused for one in Leaving(folder).receipts()] == [""]


def test_an_answer_that_is_lost_after_the_server_did_it_is_given_again(
    folder: Path, front: RealFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    member(folder, front)
    forget = front.fleet.forget

    def and_die(*arguments: Any) -> None:
        forget(*arguments)
        raise ServerUnreachable("the connection breaks here")

    with front.up(), monkeypatch.context() as patch:
        patch.setattr(front.fleet, "forget", and_die)
        assert "waiting for it since" in command(folder, "forget", "--yes")
    assert states(front) == {}
    with front.up():
        assert not Leaving(folder).try_all()
    [told] = Leaving(folder).receipts()
    assert told.refused == "" and told.receipt is not None and told.receipt["deleted"]["clients"] == 1


# -- answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [None, [], {}, {"client_id": "w2"}, {"client_id": "w1", "state": "x" * 50_000}])
def test_an_answer_that_is_no_receipt_is_kept_as_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    leaving, answers = Leaving(folder), Answers(monkeypatch)
    leaving.queue(worn(folder), "withdraw")
    answers.answer = answer
    assert not leaving.try_all()
    [told] = leaving.receipts()
    assert told.receipt is None and told.refused == "" and "none that can be read" in told.line()


def test_of_an_answer_only_what_a_receipt_holds_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaving, answers = Leaving(folder), Answers(monkeypatch)
    leaving.queue(worn(folder), "withdraw")
    answers.answer = {"client_id": "w1", "state": "withdrawn", "more": "x"}
    leaving.try_all()
    assert leaving.receipts()[0].receipt == {"client_id": "w1", "state": "withdrawn"}


def test_a_wrong_clock_is_no_refusal(folder: Path, front: RealFront, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wearable that wakes in the past must not lose what it has to say."""
    member(folder, front)
    monkeypatch.setattr("client.enrolment.sign", lambda *given: {**sign(*given), "mcoe-time": "2026-01-01T00:00:00Z"})
    with front.up():
        command(folder, "consent", "--withdraw", "updates")
        assert "set the clock" in front.refusals[-1] or "clock" in front.refusals[-1]
        assert len(Leaving(folder).waiting()) == 1
        monkeypatch.undo()
        assert not Leaving(folder).try_all()
    assert states(front) == {"w1": "withdrawn"}


def test_what_keeps_the_server_away_is_logged_once_and_names_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    leaving, answers = Leaving(folder), Answers(monkeypatch)
    leaving.queue(worn(folder), "forget")
    answers.answer = ServerUnreachable("no answer from 10.0.0.5")
    assert all(leaving.try_all() for _ in range(3)) and len(answers.asked) == 3
    [record] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert not {"w1", "10.0.0.5", "A1"} & set(record.getMessage().replace(";", " ").split())
    assert str(folder) not in record.getMessage()


def test_it_is_tried_again_and_again_and_at_once_when_something_is_new(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving, answers = Leaving(folder), Answers(monkeypatch)
    monkeypatch.setattr("client.leaving.PAUSES_S", (0.01, 3600.0))
    answers.answer = ServerUnreachable("away")
    leaving.start()
    leaving.queue(worn(folder), "withdraw")
    until(lambda: len(answers.asked) >= 2)
    answers.answer = {"client_id": "w1", "state": "withdrawn"}
    leaving.wake()
    until(lambda: leaving.receipts() != [])
    leaving.stop()
    assert [one.receipt for one in leaving.receipts()] == [answers.answer] and leaving.waiting() == []


# -- the wearable that runs -----------------------------------------------------------------------------------


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_a_wearable_that_runs_tells_a_server_that_comes_later(
    folder: Path, front: RealFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.leaving.PAUSES_S", (0.2,))
    member(folder, front)

    async def scene() -> None:
        wearable, stopping = (
            Wearable(folder, "simulated:3", ClientSettings().rules(), ConsentTexts(None)),
            asyncio.Event(),
        )
        await wearable.open()
        assert wearable.paths is not None and (await wearable.status()).enrolled
        outbox = wearable.paths.outbox
        await wearable.withdraw("updates")  # before anything runs: no part of the fleet's is started
        status = await wearable.status()
        assert list(outbox.iterdir()) == [] and not status.enrolled
        assert status.left is not None and status.left.answered is None
        await wearable.consent("updates", TEXT)
        task = asyncio.create_task(wearable.run(stopping))
        with front.up():
            while (left := (await wearable.status()).left) is None or left.answered is None:
                assert not task.done()
                await asyncio.sleep(0.05)
            assert left.receipt == {"client_id": "w1", "state": "withdrawn"} and wearable.fleet.pid is None
            codes = await answers_of(wearable, ConsentTexts(None))["exit_codes"]()
            assert codes == {"capture": None, "recognise": None, "fleet": None}, "none was ever started"
            await wearable.change_wearer("P02", None)
            assert (await wearable.status()).left is None, "the former wearer's receipt is nobody's business"
        stopping.set()
        await asyncio.wait_for(task, 180)

    try:
        asyncio.run(scene())
    finally:
        shutil.rmtree(plain_folder(folder), ignore_errors=True)
    assert states(front) == {"w1": "withdrawn"}


def test_what_a_process_that_died_left_in_the_outbox_of_who_withdrew_goes_at_the_next_start(
    folder: Path, front: RealFront
) -> None:
    paths = member(folder, front)
    Leaving(folder).queue(paths, "withdraw")  # and then it died

    async def scene() -> None:
        wearable = Wearable(folder, "simulated:3", ClientSettings().rules(), ConsentTexts(None))
        await wearable.open()
        assert (await wearable.status()).left is not None and list(paths.outbox.iterdir()) == []
        await wearable.forget()
        assert [one.way for one in wearable.leaving.waiting()] == ["forget"]

    try:
        asyncio.run(scene())
    finally:
        shutil.rmtree(plain_folder(folder), ignore_errors=True)


# -- joining while it runs ------------------------------------------------------------------------------------


def worn_by(folder: Path, scene: Callable[[Wearable], Awaitable[None]], kinds: tuple[str, ...]) -> None:
    """A wearable without a passphrase whose wearer has agreed to these."""

    async def play() -> None:
        wearable = Wearable(folder, "simulated:3", ClientSettings().rules(), ConsentTexts(None))
        await wearable.open()
        await wearable.set_up(None, kinds, TEXT)
        await scene(wearable)

    try:
        asyncio.run(play())
    finally:
        shutil.rmtree(plain_folder(folder), ignore_errors=True)


def test_a_wearer_joins_with_the_consents_in_force_and_again_after_leaving(
    folder: Path, front: RealFront, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    invited = [front.invite("w1"), front.invite("w2")]

    async def scene(wearable: Wearable) -> None:
        with pytest.raises(ServerUnreachable):
            await wearable.join(invited[0])
        with front.up():
            await wearable.join(invited[0])
            status = await wearable.status()
            assert status.enrolled and status.left is None
            consents = [one.kind for one in front.registry.client("w1").consents if not one.withdrawn]
            assert sorted(consents) == ["learning", "updates"]
            with pytest.raises(OutputExists):
                await wearable.join(invited[1])
            await wearable.withdraw("updates")
            assert not (await wearable.status()).enrolled
            with pytest.raises(ConsentMissing):
                await wearable.join(invited[1])
            assert states(front) == {"w1": "enrolled", "w2": "invited"}
            await wearable.consent("updates", TEXT)
            assert wearable.paths is not None
            before = wearable.paths.key.read_bytes()
            await wearable.join(invited[1])
            assert (await wearable.status()).enrolled and wearable.paths.key.read_bytes() != before
            assert wearable.leaving.waiting() and not wearable.leaving.try_all()
        assert states(front) == {"w1": "withdrawn", "w2": "enrolled"}

    worn_by(folder, scene, ("learning", "updates"))
    assert not any(one.token in caplog.text for one in invited)


def test_who_is_erased_halfway_into_a_fleet_is_erased_and_the_server_is_told(
    folder: Path, front: RealFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks, may_answer = threading.Event(), threading.Event()
    real = join

    def held(*given: Any, **named: Any) -> Membership:
        asks.set()
        assert may_answer.wait(180)
        return real(*given, **named)

    monkeypatch.setattr("client.wearable.lifecycle.join", held)

    async def scene(wearable: Wearable) -> None:
        joining = asyncio.create_task(wearable.join(front.invite("w1")))
        assert await asyncio.to_thread(asks.wait, 180)
        leaving = asyncio.create_task(wearable.forget())
        with front.up():
            may_answer.set()
            await asyncio.wait_for(asyncio.gather(joining, leaving), 180)
            assert (await wearable.status()).stage == "new" and not wearable.leaving.try_all()
        assert states(front) == {} and keys_in(folder) == []
        assert list((folder / "wearers").iterdir()) == []

    worn_by(folder, scene, ("learning", "updates"))


# -- a wearable that was reported lost ------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_that_was_reported_lost_ends_its_part_and_keeps_everything(folder: Path, front: RealFront) -> None:
    paths = member(folder, front)
    front.registry.revoke("w1", lost=True)
    before = contents(paths.folder)
    with front.up():
        assert "reported lost" in command(folder, "--device", "none", code=ExitCode.ENROLMENT_REFUSED)
        after = contents(paths.folder)
        assert before.items() <= after.items() and after.keys() - before.keys() <= {str(paths.told)}
        assert "it was reported lost and sends nothing" in command(folder, "status")
    assert "reported lost" in command(folder, "--device", "none", code=ExitCode.ENROLMENT_REFUSED), "offline, too"
    with front.up():
        command(folder, "enrol", front.invite("w1").to_line(), "--clips", folder, "--subject", "001")
    assert states(front) == {"w1": "enrolled"} and "lost" not in command(folder, "status")


def test_who_was_revoked_is_told_so_in_one_line_and_comes_back_by_an_invitation(
    folder: Path, front: RealFront
) -> None:
    member(folder, front)
    front.registry.revoke("w1")
    with front.up():
        said = command(folder, "--device", "none", code=ExitCode.ENROLMENT_REFUSED)
        assert said.count("\n") == 1 and "the operator has ended this wearable's part in the fleet" in said
        assert "the operator has ended this wearable's part" in command(folder, "status")
        command(folder, "enrol", front.invite("w1").to_line(), "--clips", folder, "--subject", "001")
    assert states(front) == {"w1": "enrolled"} and "has ended" not in command(folder, "status")


def test_who_was_revoked_reads_it_on_the_page_and_joins_again_there(
    folder: Path, front: RealFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = join
    monkeypatch.setattr("client.fleet.signal.signal", lambda *_: None)  # no other thread may

    async def scene(wearable: Wearable) -> None:
        with front.up():
            await wearable.join(front.invite("w1"))
            assert "the operator" not in str(wearable.check_ins())
            front.registry.revoke("w1")
            paths = wearable.paths
            assert paths is not None
            with pytest.raises(EnrolmentRefused):
                await asyncio.to_thread(run_fleet, paths, CheckInRules(system=NO_SENSORS), Keys(b"o" * 32, b"l" * 32))
            told, key = wearable.check_ins(), paths.key.read_bytes()
            assert told is not None and "the operator has ended this wearable's part" in told.turned_away
            await wearable.look()

            def alone(*given: Any, **named: Any) -> Membership:
                assert wearable._fleet_arguments() is None, "what has the old key does not run meanwhile"
                return real(*given, **named)

            monkeypatch.setattr("client.wearable.lifecycle.join", alone)
            assert wearable._fleet_arguments() is not None
            await wearable.join(front.invite("w1"))
            assert wearable._fleet_arguments() is not None and paths.key.read_bytes() != key
        told = wearable.check_ins()
        assert told is not None and told.turned_away == "" and states(front) == {"w1": "enrolled"}

    worn_by(folder, scene, ("learning", "updates"))


@pytest.mark.parametrize("passphrase", ["correct horse battery", None])
def test_a_wearable_that_is_told_that_it_is_lost_locks_once_and_deletes_nothing(
    folder: Path, front: RealFront, passphrase: str | None, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("client.fleet.signal.signal", lambda *_: None)  # no other thread may
    async def scene() -> None:
        wearable = Wearable(folder, "simulated:3", ClientSettings().rules(), ConsentTexts(None))
        await wearable.open()
        await wearable.set_up(passphrase, ("learning", "updates"), TEXT)
        paths = wearable.paths
        assert paths is not None
        with front.up():
            await wearable.join(front.invite("w1"))
            paths.outbox.mkdir()
            (paths.outbox / "u.sealed").write_bytes(b"sealed")
            assert (await wearable.status()).enrolled
            front.registry.revoke("w1", lost=True)
            with pytest.raises(ReportedLost):
                await asyncio.to_thread(run_fleet, paths, CheckInRules(system=NO_SENSORS), Keys(b"o" * 32, b"l" * 32))
            before = contents(paths.recordings.parent)
            await wearable.look_whether_lost()
            status = await wearable.status()
            assert (status.lost, status.enrolled) == (True, False)
            assert status.stage == ("locked" if passphrase else "open")
            if passphrase:
                await wearable.unlock(passphrase)
            await wearable.look_whether_lost()
            assert (await wearable.status()).stage == "open", "its wearer, who has it back, is locked out once"
            kept = contents(paths.folder)
            assert before.keys() <= kept.keys() and (paths.outbox / "u.sealed").read_bytes() == b"sealed"
            assert sum("reported lost" in record.getMessage() for record in caplog.records) == 1
            await wearable.join(front.invite("w1"))
            status = await wearable.status()
            assert (status.lost, status.enrolled) == (False, True)

    try:
        asyncio.run(scene())
    finally:
        shutil.rmtree(plain_folder(folder), ignore_errors=True)
