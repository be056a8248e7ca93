"""When a wearable checks in: what its machine tells, what its settings say, and what it has used."""

from __future__ import annotations

import copy
import datetime
import json
import logging
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.check_in_gates import CheckInGates, CheckInRules
from client.cli.main import app
from client.enrolment import ClientPaths
from client.gates import Network, Sensors, read_network
from client.page.words import Words, texts
from client.traffic import Traffic

NOON = datetime.datetime(2026, 11, 22, 12, 0)
UNKNOWN = Sensors(None, None, None, None)
ROUTES = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


def gates(
    folder: Path,
    rules: CheckInRules = CheckInRules(),  # noqa: B008
    sensors: Sensors = UNKNOWN,
    network: Network | None = None,
    at: datetime.datetime = NOON,
    recording: bool = False,
) -> CheckInGates:
    traffic = Traffic(folder / "traffic.json", lambda: at.date())
    return CheckInGates(
        rules, traffic, lambda: recording, sensors=lambda: sensors, network=lambda: network, now=lambda: at
    )


def test_what_is_unknown_closes_nothing_and_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = gates(tmp_path)
    with caplog.at_level(logging.INFO):
        made.say_unknown()
        assert made.look() == () and made.look() == ()
    assert [record.getMessage() for record in caplog.records] == [
        "this machine does not tell its power and temperature and kind of network: that stops no check-in"
    ]


@pytest.mark.parametrize(
    "sensors, word",
    [
        (Sensors(False, 40, None, None), "battery at 40 %"),
        (Sensors(None, 12, None, None), "battery at 12 %"),
        (Sensors(True, 90, 75.0, None), "75 degrees"),
    ],
)
def test_power_and_temperature_close_it(tmp_path: Path, sensors: Sensors, word: str) -> None:
    [closed] = gates(tmp_path, sensors=sensors).closed()
    assert word in closed


@pytest.mark.parametrize("sensors", [Sensors(True, 5, 74.0, None), Sensors(False, 41, None, True), UNKNOWN])
def test_with_mains_or_charge_and_cool_it_is_open(tmp_path: Path, sensors: Sensors) -> None:
    assert gates(tmp_path, sensors=sensors, network="other").closed() == ()


def test_a_mobile_network_closes_it_unless_that_is_allowed(tmp_path: Path) -> None:
    assert "mobile" in gates(tmp_path, network="mobile").closed()[0]
    assert gates(tmp_path, CheckInRules(mobile=True), network="mobile").closed() == ()


def test_a_recording_closes_it(tmp_path: Path) -> None:
    assert gates(tmp_path, recording=True).closed() == ("a recording runs",)


@pytest.mark.parametrize(
    "hours, hour, is_open",
    [
        ((22, 6), 23, True),
        ((22, 6), 5, True),
        ((22, 6), 6, False),
        ((22, 6), 12, False),
        ((1, 5), 4, True),
        ((1, 5), 5, False),
        ((9, 9), 3, True),
    ],
)
def test_hours_may_pass_midnight(tmp_path: Path, hours: tuple[int, int], hour: int, is_open: bool) -> None:
    rules = CheckInRules(hours=(hours[0] * 60, hours[1] * 60))
    closed = gates(tmp_path, rules, at=NOON.replace(hour=hour)).closed()
    assert (closed == ()) is is_open
    assert is_open or f"from {hours[0]:02}:00 to {hours[1]:02}:00" in closed[0]


def test_every_reason_is_said_in_the_wearers_language_also_when_it_was_copied(tmp_path: Path) -> None:
    rules = CheckInRules((60, 120), bytes_per_day=1, bytes_per_month=1)
    made = gates(tmp_path, rules, Sensors(False, 40, 80.4, None), "mobile", recording=True)
    made.traffic.add(2_000_000)
    closed = copy.deepcopy(made.closed())
    assert {why.key for why in closed} == {key for key in texts("de") if key.startswith("gate.")}
    assert closed == made.closed()
    said = [Words("de").said(why) for why in closed]
    assert said[1] == "Der Akku hat 40 %: wartet auf ein Ladegerät oder auf mehr als 40 %."
    assert "hat 80 Grad" in said[2] and "von 01:00 bis 02:00 Uhr" in said[4] and "(2 MB)" in said[5]


def test_bytes_are_counted_by_day_and_month(tmp_path: Path) -> None:
    rules = CheckInRules(bytes_per_day=2_000_000, bytes_per_month=3_000_000)
    today = gates(tmp_path, rules)
    today.traffic.add(1_999_999)
    assert today.closed() == ()
    today.traffic.add(1)
    assert today.closed() == ("2 of 2 MB are used: waits for tomorrow",)
    tomorrow = gates(tmp_path, rules, at=NOON + datetime.timedelta(days=1))
    assert tomorrow.closed() == ()
    tomorrow.traffic.add(1_000_000)
    assert tomorrow.closed() == ("3 of 3 MB are used: waits for the next month",)
    december = gates(tmp_path, rules, at=NOON + datetime.timedelta(days=10))
    assert december.closed() == () and december.traffic.used().in_month == 0
    no_bounds = gates(tmp_path, CheckInRules(bytes_per_day=0, bytes_per_month=0))
    no_bounds.traffic.add(10**12)
    assert no_bounds.closed() == ()


@pytest.mark.parametrize("content", ["{", "[]", '{"day": 1}', '{"day": "2026-11-22", "in_day": "x", "in_month": 1}'])
def test_a_spoilt_count_says_that_nothing_was_used(tmp_path: Path, content: str) -> None:
    (tmp_path / "traffic.json").write_text(content)
    traffic = gates(tmp_path).traffic
    assert traffic.used().in_day == 0
    traffic.add(3)
    assert traffic.used().in_day == 3


def test_one_waits_until_they_open_and_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made, stopped = gates(tmp_path, recording=True), threading.Event()
    with caplog.at_level(logging.INFO):
        waiting = threading.Thread(target=made.wait, args=(stopped,))
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
        stopped.set()
        waiting.join(60)
        assert made.wait(stopped)
    assert not waiting.is_alive()
    assert [record.getMessage() for record in caplog.records] == ["no check-in now: a recording runs"]
    assert not gates(tmp_path).wait(threading.Event())


@pytest.mark.parametrize(
    "device, told, kind",
    [
        ("wlan0", "DEVTYPE=wlan\nINTERFACE=wlan0\n", "other"),
        ("eth0", "INTERFACE=eth0\n", "other"),
        ("wwan0", "DEVTYPE=wwan\nINTERFACE=wwan0\n", "mobile"),
        ("ppp0", "INTERFACE=ppp0\n", "mobile"),
        ("bnep0", "DEVTYPE=bluetooth\n", "mobile"),
        ("eth1", None, None),
    ],
)
def test_the_network_is_that_of_the_default_route(
    tmp_path: Path, device: str, told: str | None, kind: str | None
) -> None:
    if told is not None:
        (tmp_path / "net" / device).mkdir(parents=True)
        (tmp_path / "net" / device / "uevent").write_text(told)
    routes = tmp_path / "route"
    other = "lan9\t0002A8C0\t00000000\t0001\t0\t0\t1\t00FFFFFF\t0\t0\t0\n"
    worse = "usb9\t00000000\t0102A8C0\t0003\t0\t0\t900\t00000000\t0\t0\t0\n"
    best = f"{device}\t00000000\t0102A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n"
    routes.write_text(ROUTES + other + worse + best)
    assert read_network(tmp_path, routes) == kind
    routes.write_text(ROUTES + other)
    assert read_network(tmp_path, routes) is None
    assert read_network(tmp_path, tmp_path / "nowhere") is None


def test_status_says_which_gate_is_closed_and_what_waits(tmp_path: Path) -> None:
    paths = ClientPaths(tmp_path)
    paths.membership.write_text('address = "127.0.0.1:8443"\nclient_id = "w1"\nclips = ""\nsubject = ""\n')
    for name in ("outbox/" + "0" * 32, "lessons/g/rounds/1-1", "lessons/g/rounds/2-3", "lessons/g/held-out/4-4"):
        (tmp_path / f"{name}.sealed").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.sealed").write_bytes(b"sealed")
    (tmp_path / "mcoe-client.toml").write_text("check_in_mb_per_day = 1\n")
    asked = CliRunner().invoke(app, ["status", "--dir", str(tmp_path), "--json"])
    assert asked.exit_code == 0, asked.output
    said = json.loads(asked.stdout)
    assert (said["clips_waiting"], said["outbox"], said["traffic"]["in_day"]) == (2, ["0" * 32], 0)
    Traffic(paths.traffic).add(1_500_000)
    asked = CliRunner().invoke(app, ["status", "--dir", str(tmp_path)])
    assert "1 updates wait for the server, 2 clips for a round" in asked.stdout
    assert "no check-in now: " in asked.stdout and "2 of 1 MB are used: waits for tomorrow" in asked.stdout
