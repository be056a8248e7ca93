"""The dashboard over a registry that the real engine filled: who sees it, and what it says."""

from __future__ import annotations

import datetime
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from registry_databases import DATABASES, fresh_database
from toy_fleet import EXPERTS, enlist, honest_reply, toy_engine

from mcoe_model.health import Health
from mcoe_model.names import EMOTIONS
from mcoe_model.protocol import CheckIn, EvaluateReport, News
from mcoe_model.router_statistics import RouterStatistics
from server.certificates import make_authority, make_server_certificate
from server.dashboard import dashboard_app
from server.dashboard.access import dashboard_token
from server.dashboard.experts import entropy, expert_use, jensen_shannon
from server.dashboard.queries import Routing
from server.dashboard.watch import Watcher
from server.paths import ServerPaths
from server.registry import Registry, day_of, utc_now
from server.registry.models import CANARY, HELD
from server.rounds import RoundEngine
from server.settings import ServerSettings

TOKEN = "the token of this test"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PAGES = ("/", "/rounds", "/rounds/1", "/models", "/models/1/rollback", "/experts", "/server")
API = ("clients", "rounds", "rounds/1", "models", "trial", "experts", "health")
ALIAS = "blue frame"


@dataclass(frozen=True)
class Fleet:
    """An engine, and its dashboard as a browser without the token sees it."""

    engine: RoundEngine
    browser: TestClient

    @property
    def registry(self) -> Registry:
        return self.engine.registry

    def get(self, path: str) -> str:
        """What the operator gets."""
        answer = self.browser.get(path, headers=BEARER)
        assert answer.status_code == 200, answer.text
        return answer.text

    def api(self, path: str) -> Any:
        return json.loads(self.get(f"/api/v1/{path}"))

    def play(self, clients: str, *, finish: bool = True, **routed: tuple[int, ...]) -> None:
        """A round: lower case is accepted, upper case rejected; who is in ``routed`` was routed so (12 clips)."""
        current = self.engine.open(tuple(clients.lower()))
        for client in clients:
            reply = honest_reply(current.expectation, client.lower(), scale=float("nan") if client.isupper() else 0.01)
            if client in routed:
                statistics = RouterStatistics(12, 2, routed[client], tuple(count / 2 for count in routed[client]))
                reply = replace(reply, report={**reply.report, "examples": 12, **statistics.to_record()})
            self.engine.receive(current, reply)
        if finish:
            self.engine.finish(current)


def fleet_on(folder: Path, url: str | None = None) -> Fleet:
    engine = toy_engine(folder, url=url)
    enlist(engine, *"abcdef")
    make_authority(folder / "certificates")
    make_server_certificate(folder / "certificates", ["localhost"])
    settings = ServerSettings(experiment="toy")
    app = dashboard_app([engine.registry], engine.artifacts, ServerPaths(folder), [settings], TOKEN)
    return Fleet(engine, TestClient(app, "http://127.0.0.1:8445", follow_redirects=False))


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = fleet_on(tmp_path)
    yield made
    made.registry.engine.dispose()


@pytest.fixture
def told(fleet: Fleet) -> Fleet:
    """A fleet with something on every page."""
    fleet.registry.rename("a", ALIAS)
    fleet.play("abcD")
    current = fleet.engine.open(("a", "b", "c"))
    fleet.engine.receive(current, honest_reply(current.expectation, "a"))
    for client in "bc":
        fleet.engine.no_reply(current, client, "no reply")
    assert fleet.engine.finish(current) is None
    fleet.play("abc")
    fleet.play("abD", finish=False)
    return fleet


def words(html: str) -> str:
    """What a page says."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def rows(html: str) -> list[list[str]]:
    """The cells of every row of a page's tables."""
    found = re.findall(r"<tr>(.*?)</tr>", html, re.S)
    return [[words(cell) for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.S)] for row in found]


def test_nothing_but_health_is_seen_without_the_token(told: Fleet) -> None:
    app: Any = told.browser.app
    described = app.openapi()["paths"]
    paths = {path.format(number=1) for path in described} | {*PAGES, "/rounds/events", "/static/dashboard.css"}
    paths |= {"/api/v1/openapi.json", "/docs", "/redoc", "/nothing", "/healthy", "/health/"}
    assert len(paths) > 15
    for path in paths - {"/health"}:
        for shown in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "mcoe-dashboard=wrong"}):
            for method in ("GET", "POST", "HEAD"):
                answer = told.browser.request(method, path, headers=shown)
                assert answer.status_code == 401, (method, path, shown)
        assert told.browser.get(f"{path}?token=wrong").status_code == 401
    assert told.browser.get("/health").json() == {"status": "ok"}


def test_the_token_moves_from_the_address_into_a_cookie(told: Fleet) -> None:
    answer = told.browser.get("/rounds", params={"token": TOKEN, "before": 3})
    assert (answer.status_code, answer.headers["location"]) == (303, "/rounds?before=3")
    kept = answer.headers["set-cookie"]
    assert "HttpOnly" in kept and "samesite=strict" in kept.lower()
    told.browser.cookies = answer.cookies
    assert told.browser.get("/rounds").status_code == 200


def test_a_name_of_another_host_is_not_redirected_to(told: Fleet) -> None:
    answer = told.browser.get("http://127.0.0.1:8445//example.org/", params={"token": TOKEN})
    assert answer.headers["location"] == "/example.org/"


def test_programs_get_their_answer_at_once(told: Fleet) -> None:
    for path in ("/metrics", "/api/v1/rounds"):
        assert told.browser.get(path, params={"token": TOKEN}).status_code == 200


def test_a_page_of_another_site_that_points_its_name_here_gets_nothing(told: Fleet) -> None:
    assert told.browser.get("/", headers=BEARER | {"Host": "example.org:8445"}).status_code == 400
    for host in ("localhost:8445", "127.0.0.1", "[::1]:8445"):
        assert told.browser.get("/", headers=BEARER | {"Host": host}).status_code == 200


def test_the_token_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "dashboard.token"
    old = os.umask(0)
    try:
        token = dashboard_token(path)
    finally:
        os.umask(old)
    assert len(token) > 40 and dashboard_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_page_loads_anything_from_elsewhere(told: Fleet) -> None:
    for path in PAGES:
        answer = told.browser.get(path, headers=BEARER)
        assert answer.status_code == 200, path
        assert not re.search(r"https?:|(?:src|href|action)=\"//|@import| style=|<style|onclick|<script>", answer.text)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    for path in ("/docs", "/redoc"):
        assert told.browser.get(path, headers=BEARER).status_code == 404
    assert "url(" not in told.get("/static/dashboard.css")


def test_an_alias_is_on_the_operators_pages_and_nowhere_else(told: Fleet) -> None:
    assert ALIAS in told.get("/")
    assert ALIAS in told.get("/experts")
    for path in (*(f"/api/v1/{name}" for name in API), "/metrics", "/api/v1/openapi.json"):
        assert ALIAS not in told.get(path)


def test_names_are_shown_as_text(fleet: Fleet) -> None:
    fleet.registry.rename("a", "<script>alert(1)</script>")
    assert "<script>alert" not in fleet.get("/")
    assert "&lt;script&gt;alert" in fleet.get("/")


def test_the_fleet_shows_every_client(told: Fleet) -> None:
    told.registry.revoke("f")
    html = told.get("/")
    found = {row[0]: row for row in rows(html)}
    assert found[f"a {ALIAS}"][1] == "enrolled"
    assert found[f"a {ALIAS}"][6:] == ["10", "4", "4", "0"]
    assert found["d"][6:] == ["10", "2", "0", "2"]
    assert found["f"][1] == "revoked"
    assert "Enrolled 5" in words(html) and "Clips pending 50" in words(html)


def test_the_fleet_shows_what_clients_were_told(fleet: Fleet) -> None:
    fleet.registry.saw(CheckIn("a", 10), News(standing="too-old", next_check_in_s=900.0))
    found = {row[0]: row for row in rows(fleet.get("/"))}
    assert found["a"][4] not in ("–", "due") and found["a"][5].endswith(" too-old")
    assert found["b"][4] == "–" and "too-old" not in found["b"][5]


def test_whoever_needs_most_attention_comes_first(fleet: Fleet) -> None:
    registry = fleet.registry
    registry.note_health("c", Health(free_gb=1, camera_seen=0))
    registry.note_health("e", Health(error=139))
    registry.note_health("b", Health(free_gb=50))
    registry.note_health("d", Health(error=1, free_gb=0, clock_set=0))
    registry.revoke("d")
    html = fleet.get("/")
    found = rows(html)[1:]
    assert [row[0] for row in found] == ["c", "e", "a", "b", "d", "f"]
    assert found[0][2] == "disk nearly full: 1 GB free camera not seen"
    assert found[1][2] == "a part of it failed with code 139"
    assert {row[2] for row in found[2:]} == {"–"}
    assert "Need attention 2" in words(html)
    assert 'href="/?order=id"' in html
    html = fleet.get("/?order=id")
    assert [row[0] for row in rows(html)[1:]] == list("abcdef") and 'href="/"' in html
    assert rows(html)[3][2] == "disk nearly full: 1 GB free camera not seen"
    assert fleet.browser.get("/?order=name", headers=BEARER).status_code == 422

    said = {one["id"]: one for one in fleet.api("clients")}
    assert said["c"]["needs"] == ["disk nearly full: 1 GB free", "camera not seen"]
    assert (said["c"]["health"]["free_gb"], said["c"]["health"]["battery_percent"]) == (1, -1)
    assert said["c"]["health_day"] == day_of(utc_now())
    assert (said["a"]["health"], said["a"]["health_day"], said["a"]["needs"]) == (None, None, [])
    assert said["d"]["needs"] == [], "who is no member needs nothing"
    values = fleet.get("/metrics")
    for line in ("_clients_with_health 3.0", "_clients_needing_attention 2.0", '_attention{why="error"} 1.0',
                 '_attention{why="disk"} 1.0', '_attention{why="clock"} 0.0'):  # fmt: skip
        assert f"mcoe{line}\n" in values


def test_rounds_tell_who_was_accepted_rejected_and_late(told: Fleet) -> None:
    html = told.get("/rounds")
    found = rows(html)[1:]
    assert [(row[0], row[1], row[2], row[3], row[4]) for row in found] == [
        ("2, attempt 2", "published", "3 of 3", "0", "0"),
        ("2", "abandoned", "1 of 3", "0", "2"),
        ("1", "published", "3 of 4", "1", "0"),
    ]
    assert "1 of 3 replies were accepted, 2 are needed" in found[1][9]
    assert "not finite" in found[2][9]
    live = words(html[html.index('id="live"') : html.index('id="history"')])
    assert "Round 3 open" in live
    assert "Awaited 0 nobody Accepted 2 a b Rejected 1 d tensor" in live


def test_why_no_round_is_open_is_shown_as_the_coordinator_says_it(fleet: Fleet) -> None:
    assert "No round is under way" in words(fleet.get("/rounds"))
    fleet.registry.say_waiting("<b>1</b> clients with new clips are there")
    html = fleet.get("/rounds")
    assert "No round is under way: &lt;b&gt;1&lt;/b&gt; clients with new clips are there (since 20" in html
    fleet.play("abc", finish=False)
    assert "No round is under way" not in words(fleet.get("/rounds"))


def test_one_round_tells_of_every_client_and_what_it_cost(told: Fleet) -> None:
    html = told.get("/rounds/2")
    assert "Attempts 2" in words(html)
    assert [row[:2] for row in rows(html) if len(row) == 6 and row[1] != "Verdict"] == [
        ["a", "accepted"], ["b", "accepted"], ["c", "accepted"], ["a", "accepted"], ["b", "late"], ["c", "late"],
    ]  # fmt: skip
    unknown = told.browser.get("/rounds/9", headers=BEARER)
    assert unknown.status_code == 404 and "experiment toy has no round 9" in unknown.text
    assert told.browser.get("/api/v1/rounds/9", headers=BEARER).json()["detail"] == "experiment toy has no round 9"


def test_older_rounds_are_a_page_further(fleet: Fleet) -> None:
    for _ in range(27):
        fleet.play("A")
    first = fleet.get("/rounds")
    assert len(rows(first)) == 26
    older = re.search(r'href="(/rounds\?before=\d+)"', first)
    assert older and len(rows(fleet.get(older[1]))) == 3


def test_accuracy_is_unknown_without_an_evaluation_set(told: Fleet) -> None:
    html = told.get("/models")
    assert "No version was scored on an evaluation set" in html
    assert "<svg" not in html


def test_accuracy_is_what_the_evaluations_say(told: Fleet) -> None:
    for index, model in enumerate(told.registry.models()):
        scores = {
            "war": 0.5 + index / 10,
            "uar": 0.45,
            "per_emotion": {"fear": 0.125},
            "per_lighting": {"hdr": {"war": 0.25, "subjects": 2, "clips": 9}},
        }
        told.registry.record_evaluation(model.sha256, "field study", scores)
    told.registry.record_evaluation(told.registry.models()[0].sha256, "other", {"war": float("nan"), "uar": 0.875})
    html = told.get("/models")
    assert "Scored on field study" in words(html)
    newest = next(row for row in rows(html) if row[0] == "3")
    assert newest[1:5] == ["released", "in use", "70.0", "45.0"]
    assert newest[5 : 5 + len(EMOTIONS)] == ["–", "–", "12.5", "–", "–", "–", "–"]
    assert newest[12:16] == ["–", "–", "–", "25.0"]
    assert "WAR, 3: 70 %" in html
    other = rows(told.get("/models?evaluation_set=other"))
    assert next(row for row in other if row[0] == "1")[3:5] == ["–", "87.5"]
    assert told.api("models")[2]["war"] == 0.7
    told.registry.record_evaluation(told.registry.models()[-1].sha256, "a newer study", {"war": 0.25})
    told.registry.record_evaluation(told.registry.models()[0].sha256, "an older study", {"war": 0.75})
    assert "Scored on a newer study" in words(told.get("/models"))


def test_states_of_versions_are_shown(told: Fleet) -> None:
    told.registry.set_model_state(told.registry.models()[2].sha256, CANARY)
    assert next(row for row in rows(told.get("/models")) if row[0] == "3")[1] == "canary"


def test_a_model_on_its_way_is_shown_with_what_it_waits_for(told: Fleet) -> None:
    assert told.api("trial") is None and "No round opens" not in told.get("/models")
    made = told.registry.models()[-1]
    told.registry.set_model_state(made.sha256, "candidate")
    told.registry.say_of_trial(made.version, "0 of 3 clients have compared it with its parent")
    told.registry.record_report(made.version, EvaluateReport("a", made.sha256, 10, 9, 8))
    html = words(told.get("/models"))
    assert "Version 3 candidate" in html and "0 of 3 clients have compared it with its parent. No round opens" in html
    assert "1 clients have compared it" in html and "models promote 3" in html and "Check-ins" not in html
    ends = utc_now() + datetime.timedelta(hours=1)
    assert told.registry.begin_canary(made.version, "abc", 0.5, 4, ends)
    told.registry.saw(CheckIn("b", 10, runs=made.sha256))
    html = words(told.get("/models"))
    assert "Check-ins 1 of 4 Clients that run it 1 of 3 Share 50.0 % Refusals 0" in html and "Awaited: a, c" in html
    said = told.api("trial")
    assert (said["version"], said["state"], said["check_ins"], said["awaited"]) == (3, "canary", 1, ["a", "c"])
    told.registry.decide(made.version, "canary", "held", "a client refused it: worse")
    html = told.get("/models")
    assert "Version 3 is held: a client refused it: worse." in words(html)
    assert told.api("trial") is None and "No round opens" not in html


def test_a_rollback_is_confirmed_and_releases_the_old_bytes(told: Fleet) -> None:
    page = told.get("/models/1/rollback")
    hidden = re.search(r'name="form_token" value="([0-9a-f]+)"', page)
    assert hidden and "Roll back to version 1?" in page
    answer = told.browser.post("/models/1/rollback", data={"form_token": hidden[1]}, headers=BEARER)
    assert (answer.status_code, answer.headers["location"]) == (303, "/models")
    versions = told.registry.models()
    assert len(versions) == 4 and told.registry.newest_model() == versions[0].sha256 == versions[3].sha256
    assert told.registry.events(1)[0].kind == "model released again"


@pytest.mark.parametrize("form", [{}, {"form_token": "0" * 64}, {"form_token": TOKEN}, {"form_token": "x" * 9000}])
def test_a_form_of_another_page_rolls_nothing_back(told: Fleet, form: dict[str, str]) -> None:
    answer = told.browser.post("/models/1/rollback", data=form, headers=BEARER)
    assert answer.status_code in (403, 413)
    assert len(told.registry.models()) == 3


def test_no_rollback_to_a_model_whose_file_is_gone(told: Fleet) -> None:
    page = told.get("/models/1/rollback")
    hidden = re.search(r'name="form_token" value="([0-9a-f]+)"', page)
    told.engine.artifacts.path(told.registry.models()[0].sha256).unlink()
    assert hidden
    for answer in (
        told.browser.get("/models/1/rollback", headers=BEARER),
        told.browser.post("/models/1/rollback", data={"form_token": hidden[1]}, headers=BEARER),
        told.browser.get("/models/99/rollback", headers=BEARER),
    ):
        assert answer.status_code == 404
    assert len(told.registry.models()) == 3


def test_entropy_and_divergence_have_their_known_values() -> None:
    table = np.array([[0.25] * 4, [1, 0, 0, 0], [0.5, 0.5, 0, 0]], np.float64)
    np.testing.assert_allclose(entropy(table), [2, 0, 1])
    np.testing.assert_allclose(jensen_shannon(table, table[1]), [0.548795, 0, 0.311278], atol=1e-6)
    np.testing.assert_allclose(jensen_shannon(table, np.array([0, 0, 0, 1.0])), [0.548795, 1, 1], atol=1e-6)


def test_drift_is_not_judged_on_a_few_choices() -> None:
    counts = np.array([[20, 0], [10, 10], [0, 19]], np.int64)
    routing = Routing((1,), ("a", "b", "c"), counts, counts, counts.sum(axis=0)[None], np.array([3]))
    use = expert_use(routing)
    assert {row.client_id: row.drift is None for row in use.by_client} == {"a": False, "b": False, "c": True}
    assert [row.client_id for row in use.by_client] == ["a", "b", "c"]


def test_experts_show_load_dead_ones_and_who_strays(fleet: Fleet) -> None:
    even = (12, 12, 0, 0)
    fleet.play("abcde", a=even, b=even, c=even, d=even, e=(0, 12, 12, 0))
    html = fleet.get("/experts")
    found = rows(html)[1:]
    assert found[0][0] == "e" and found[0][2:] == ["0.0", "50.0", "50.0", "0.0"]
    assert found[0][1].endswith("alarm") and not found[1][1].endswith("alarm")
    assert "Dead experts 1 3" in words(html)
    assert "No clip of the last 1 rounds was routed to expert 3." in words(html)
    fleet.play("abcd", a=even, b=even, c=even, d=(0, 0, 12, 12))
    assert "Dead experts 0" in words(fleet.get("/experts"))
    last = {row[0]: row[2:] for row in rows(fleet.get("/experts?last=true"))}
    assert last["d"] == ["0.0", "0.0", "50.0", "50.0"] and last["e"] == ["0.0"] * EXPERTS
    recent = {row[0]: row[2:] for row in rows(fleet.get("/experts"))}
    assert recent["d"] == ["25.0"] * EXPERTS and recent["e"] == ["0.0", "50.0", "50.0", "0.0"]


def test_programs_get_sums_over_three_clients_or_more_and_nothing_of_one(fleet: Fleet) -> None:
    assert fleet.api("experts") is None
    routed = (12, 6, 6, 0)
    fleet.play("ab", a=routed, b=routed)
    hidden = fleet.api("experts")
    assert (hidden["clients"], hidden["shares"], hidden["dead"]) == (2, None, None)
    assert hidden["rounds"] == [{"round": 1, "clients": 2, "entropy": None}]
    assert "mcoe_expert_load" not in fleet.get("/metrics") and "mcoe_dead_experts" not in fleet.get("/metrics")
    fleet.play("abc", a=routed, b=routed, c=routed)
    shown = fleet.api("experts")
    assert (shown["clients"], shown["shares"], shown["dead"]) == (3, [0.5, 0.25, 0.25, 0.0], [3])
    assert [one["entropy"] for one in shown["rounds"]] == [1.5, None]
    assert 'mcoe_expert_load{expert="0"} 0.5\n' in fleet.get("/metrics")


def test_the_api_describes_itself_and_only_reads(told: Fleet) -> None:
    described = told.api("openapi.json")
    answers = {f"/api/v1/{name}".replace("/1", "/{number}") for name in API}
    assert answers | {"/metrics", "/health", "/api/v1/experiments"} == set(described["paths"])
    assert all(set(methods) == {"get"} for methods in described["paths"].values())
    assert [one["id"] for one in told.api("clients")] == list("abcdef")
    assert [(one["number"], one["late"], one["awaited"]) for one in told.api("rounds?limit=3")] == [
        (3, 0, 0), (2, 0, 0), (2, 2, 0),
    ]  # fmt: skip


def test_metrics_count_what_the_registry_holds(told: Fleet) -> None:
    text = told.get("/metrics")
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{\w+=\"[\w.]+\"\})? [-+.e\d]+", line), line
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values['mcoe_clients{state="enrolled"}'] == "6.0"
    assert values['mcoe_rounds{state="published"}'] == "2.0" and values['mcoe_rounds{state="open"}'] == "1.0"
    assert [values[f'mcoe_replies{{verdict="{name}"}}'] for name in ("accepted", "rejected", "late")] == [
        "9.0", "2.0", "2.0",
    ]  # fmt: skip
    assert float(values['mcoe_stored_bytes{what="spool"}']) > 0


def examined(fleet: Fleet) -> str:
    """The health page once the examination that it begins has ended."""
    for _ in range(2400):
        if "being examined" not in (html := fleet.get("/server")):
            return html
        time.sleep(0.05)
    raise AssertionError("the examination does not end")


def test_health_tells_sizes_certificates_and_findings(told: Fleet) -> None:
    orphan = told.engine.artifacts.folder / "orphan.safetensors"
    orphan.write_bytes(b"0" * 1000)
    html = told.get("/server")
    assert {("ca.crt", "3650"), ("server.crt", "365")} <= {(row[0], row[1]) for row in rows(html)}
    html = examined(told)
    assert f"{orphan} belongs to no model" in words(html)
    stored = told.api("health")["now"]
    models = sum(path.stat().st_size for path in told.engine.artifacts.folder.iterdir())
    assert stored["models_bytes"] == models and stored["registry_bytes"] > 0
    (told.engine.artifacts.folder.parent / "certificates" / "server.crt").write_bytes(b"torn")
    assert "cannot be read" in told.get("/server")


@pytest.mark.parametrize("kind", DATABASES)
def test_every_page_and_answer_is_there_on_both_databases(tmp_path: Path, kind: str) -> None:
    with fresh_database(kind, tmp_path, migrated=True) as url:
        fleet = fleet_on(tmp_path, url)
        fleet.play("abcD")
        fleet.play("ab", finish=False)
        for path in (*PAGES, *(f"/api/v1/{name}" for name in API), "/metrics"):
            assert fleet.get(path)
        assert fleet.api("experts")["clients"] == 3
        assert fleet.api("rounds/1")[0]["attempt"]["rejected"] == 1
        examined(fleet)  # which the health page began, and which reads the database
        fleet.registry.engine.dispose()


def test_the_watcher_tells_ended_rounds_stopped_canaries_and_alarms_without_names(fleet: Fleet) -> None:
    even = (6, 6, 6, 6)
    fleet.play("abcd", a=even, b=even, c=even, d=even)
    watcher = Watcher(fleet.registry)
    assert list(watcher.look()) == []
    fleet.play("abcd", a=even, b=even, c=even, d=even)
    published = fleet.registry.newest_model()
    [closed] = watcher.look()
    assert (closed.event, closed.round, closed.model) == ("round closed", 2, published)
    fleet.registry.set_model_state(str(published), CANARY)
    assert list(watcher.look()) == []
    fleet.registry.set_model_state(str(published), HELD)
    [stopped] = watcher.look()
    assert (stopped.event, stopped.model) == ("canary stopped", published)
    told = []
    for _ in range(10):
        fleet.play("abcd", a=even, b=even, c=even, d=(0, 0, 12, 12))
        told += list(watcher.look())
    assert [one.event for one in told].count("alarm") == 1
    assert [one.round for one in told if one.event == "round closed"] == list(range(3, 13))
    fleet.play("A")
    [abandoned] = watcher.look()
    assert (abandoned.event, abandoned.round, abandoned.model) == ("round closed", 13, None)
