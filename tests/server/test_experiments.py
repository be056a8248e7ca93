"""Several experiments in one server: their settings, their members, what is shown and looked after of each."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from registry_databases import DATABASES, fresh_database
from toy_fleet import CARD, enlist, honest_reply, toy_engine, toy_model
from typer.testing import CliRunner

from mcoe_model.errors import DataMissing, EnrolmentRefused, ExitCode, SettingsError
from mcoe_model.model_file import write_model
from server.certificates import make_authority, make_server_certificate
from server.cli import app
from server.dashboard import dashboard_app
from server.doctor import Premises, examine
from server.experiments import Experiments
from server.fleet import Fleet, token_hash
from server.paths import ServerPaths
from server.registry import Registry, utc_now
from server.registry.database import open_database
from server.settings import ServerSettings
from server.settings_file import load_experiments, load_settings, read_running, write_running
from server.supervisor import children_of

TWO = """
port = 9443
min_clients = 3
cohort = "0.5"

[experiments.glasses]
rule = "weighted-mean"
cohort_filter = "lab-*, *blue*"

[experiments.goggles]
min_clients = 5
pause_s = 60
"""


def folder_with(folder: Path, text: str = TWO) -> ServerPaths:
    paths = ServerPaths(folder)
    paths.settings.write_text(text)
    return paths


# -- settings -------------------------------------------------------------------------------------------------


def test_a_table_goes_over_what_stands_above_it_and_flags_over_all(tmp_path: Path) -> None:
    paths = folder_with(tmp_path)
    glasses, goggles = load_experiments(paths, {"cohort": "all"}, {"MCOE_SERVER_SEED": "7"})
    assert (glasses.experiment, goggles.experiment) == ("glasses", "goggles")
    assert (glasses.rule, goggles.rule) == ("weighted-mean", ServerSettings().rule)
    assert (glasses.min_clients, goggles.min_clients, goggles.pause_s) == (3, 5, 60.0)
    assert {(one.port, one.cohort, one.seed) for one in (glasses, goggles)} == {(9443, "all", 7)}


def test_without_a_table_there_is_one_experiment(tmp_path: Path) -> None:
    paths = folder_with(tmp_path, 'experiment = "only"\n')
    assert load_experiments(paths, {}, {}) == (load_settings(paths, {}, {}),) == (ServerSettings(experiment="only"),)


def test_one_of_several_must_be_named(tmp_path: Path) -> None:
    paths = folder_with(tmp_path)
    assert load_settings(paths, {}, {}, "goggles").min_clients == 5
    with pytest.raises(DataMissing, match="glasses, goggles; name one with --experiment"):
        load_settings(paths, {}, {})
    with pytest.raises(DataMissing, match="no experiment googles"):
        load_settings(paths, {}, {}, "googles")


def test_all_faults_are_told_together_each_with_its_experiment(tmp_path: Path) -> None:
    text = """
experiment = "fleet"
quorum = 2.0
[experiments.one]
port = 9000
rule = "mode"
qurom = 0.5
[experiments.two]
lr = "fast"
private = true
keep_updates = true
dashboard_port = 1
[experiments."three four"]
"""
    with pytest.raises(SettingsError) as raised:
        load_experiments(folder_with(tmp_path, text), {}, {})
    found = raised.value.faults
    for said in (
        "experiment names the only one",
        "quorum must be",
        "experiment one: port belongs to the whole server",
        "experiment one: rule must be one of",
        "experiment one: there is no setting 'qurom'",
        "experiment two: lr must be a float",
        "experiment two: dashboard_port belongs to the whole server",
        "experiment three four: experiment must have up to 40 letters",
    ):
        assert [fault for fault in found if fault.startswith(said)], said
    assert sum("quorum" in fault for fault in found) == 1


def test_what_stands_above_the_tables_need_be_complete_with_each_of_them_only(tmp_path: Path) -> None:
    text = f"rule = 'fltrust'\n[experiments.one]\ntrusted_set = '{tmp_path}'\n[experiments.two]\n"
    with pytest.raises(SettingsError) as raised:
        load_experiments(folder_with(tmp_path, text), {}, {})
    (fault,) = raised.value.faults
    assert fault.startswith("experiment two: ") and "trusted_set" in fault
    paths = folder_with(tmp_path, f"{text}trusted_set = '{tmp_path}'\n")
    assert [one.trusted_set for one in load_experiments(paths, {}, {})] == [str(tmp_path)] * 2


@pytest.mark.parametrize("text", ["experiments = 2", "[experiments]", "[experiments]\nrule = 'median'"])
def test_experiments_that_are_no_tables_are_a_fault(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"\[experiments.glasses\]"):
        load_experiments(folder_with(tmp_path, text), {}, {})


def test_the_processes_are_told_of_every_experiment(tmp_path: Path) -> None:
    paths = folder_with(tmp_path)
    running = load_experiments(paths, {}, {})
    write_running(paths, running)
    assert read_running(paths) == running
    names = [child.name for child in children_of(["glasses", "goggles"], dashboard=True)]
    assert names == ["superlink", "coordinator-glasses", "coordinator-goggles", "dashboard"]
    assert [child.name for child in children_of(["fleet"], dashboard=False)] == ["superlink", "coordinator"]


# -- members --------------------------------------------------------------------------------------------------


@pytest.fixture(params=DATABASES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Registry, Registry]]:
    with fresh_database(request.param, tmp_path, migrated=True) as url:
        engine = open_database(url)
        yield Registry(engine, "glasses"), Registry(engine, "goggles")
        engine.dispose()


def experiments_of(folder: Path, *registries: Registry) -> Experiments:
    names = [registry.experiment for registry in registries]
    return Experiments([Fleet(one, ServerPaths(folder), "127.0.0.1:1", names) for one in registries])


def test_rounds_of_experiments_that_another_server_runs_are_not_under_way_here(
    pair: tuple[Registry, Registry], tmp_path: Path
) -> None:
    glasses, goggles = pair
    row = goggles.open_round("0" * 64, (), {}, None)
    assert experiments_of(tmp_path, glasses, goggles).any_round_under_way()
    assert not experiments_of(tmp_path, glasses).any_round_under_way()
    goggles.abandon_round(row.id, "test")
    assert not experiments_of(tmp_path, glasses, goggles).any_round_under_way()


def test_a_key_belongs_to_the_experiment_that_it_was_enrolled_in(
    pair: tuple[Registry, Registry], tmp_path: Path
) -> None:
    glasses, goggles = pair
    for registry, client in ((glasses, "a"), (goggles, "b")):
        registry.invite(client, token_hash(f"token {client}"), utc_now() + datetime.timedelta(hours=1))
    assert glasses.experiment_of_token(token_hash("token b")) == "goggles"
    assert glasses.experiment_of_token(token_hash("token c")) is None
    goggles.enrol(token_hash("token b"), "key b", 2)
    assert [(row.id, row.experiment, row.node_id) for row in glasses.members()] == [("b", "goggles", 2)]
    both = experiments_of(tmp_path, glasses, goggles)
    fleet, client = both.of_key("key b")
    assert (fleet.registry, client) == (goggles, "b")
    assert glasses.client_of_node(2) is None and goggles.client_of_node(2) == "b"
    with pytest.raises(EnrolmentRefused, match="not enrolled"):
        both.of_key("key a")
    with pytest.raises(EnrolmentRefused, match="not enrolled"):
        experiments_of(tmp_path, glasses).of_key("key b")  # an experiment of another server


def test_a_model_is_its_experiments_alone(pair: tuple[Registry, Registry]) -> None:
    glasses, goggles = pair
    for registry, sha256 in ((glasses, "a" * 64), (goggles, "b" * 64)):
        registry.add_first_model(sha256, "g")
    assert glasses.has_model("a" * 64) and not glasses.has_model("b" * 64)


def test_a_cohort_filter_names_ids_and_aliases(pair: tuple[Registry, Registry]) -> None:
    registry, _ = pair
    for client in ("lab-1", "w2", "w3"):
        registry.add_client(client, f"key {client}", None)
    registry.rename("w2", "left eye, blue frame")
    assert registry.among("lab-*, *blue*") == {"lab-1", "w2"}
    assert registry.among("*") == {"lab-1", "w2", "w3"}
    registry.forget("w3")
    assert registry.among("*") == {"lab-1", "w2"}


def test_a_round_asks_nobody_whom_the_filter_leaves_out(tmp_path: Path) -> None:
    engine = toy_engine(tmp_path)
    enlist(engine, "a", "b")
    engine.settings = replace(engine.settings, cohort_filter="b*")
    assert engine.eligible("ab") == ["b"]
    opened = engine.open(engine.eligible("ab"))
    assert (opened.row.settings["cohort_filter"], opened.settings.cohort_filter) == ("b*", "b*")


@pytest.mark.parametrize("clients", [2, 20])
def test_whom_a_round_may_ask_takes_one_query_however_many_clients_there_are(tmp_path: Path, clients: int) -> None:
    engine = toy_engine(tmp_path)
    names = [f"{index:02}" for index in range(clients)]
    enlist(engine, *names)
    queries = list[str]()

    def count(connection: object, cursor: object, statement: str, *rest: object) -> None:
        queries.append(statement)

    sa.event.listen(engine.registry.engine, "before_cursor_execute", count)
    assert engine.eligible(names) == names
    assert len([query for query in queries if query.startswith("SELECT")]) == 1


# -- looked at and looked after -------------------------------------------------------------------------------


class Folder:
    """A data folder with two experiments, each with its first model, and its commands."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run("init")
        with (path / "mcoe-server.toml").open("a") as file:
            file.write("[experiments.glasses]\n[experiments.goggles]\ncohort_filter = 'lab-*'\nrule = 'median'\n")
        write_model(path / "first.safetensors", toy_model(), CARD)
        for name in ("glasses", "goggles"):
            self.run("models", "import", path / "first.safetensors", "--experiment", name)

    def run(self, *arguments: object, code: int = ExitCode.OK) -> str:
        done = CliRunner().invoke(app, [*map(str, arguments), "--dir", str(self.path)])
        assert done.exit_code == code, done.output
        return done.stdout if code == ExitCode.OK else done.stderr

    def ask(self, *arguments: object) -> Any:
        return json.loads(self.run(*arguments, "--json"))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "server")


def test_commands_work_on_the_experiment_that_is_named(folder: Folder) -> None:
    folder.run("clients", "invite", "lab-1", "--experiment", "goggles")
    assert [row["id"] for row in folder.ask("clients", "list", "--experiment", "goggles")] == ["lab-1"]
    assert folder.ask("clients", "list", "--experiment", "glasses") == []
    for command in (["clients", "list"], ["rounds", "list"], ["models", "list"], ["forget", "lab-1"]):
        assert "name one with --experiment" in folder.run(*command, code=ExitCode.DATA_MISSING)
    assert "no client lab-1" in folder.run("forget", "lab-1", "--experiment", "glasses", code=ExitCode.DATA_MISSING)


def test_status_tells_of_each_experiment_by_what_they_differ(folder: Folder) -> None:
    said = folder.ask("status")["experiments"]
    assert {name: (one["rule"], one["cohort_filter"], one["preset"]) for name, one in said.items()} == {
        "glasses": ("expert-weighted-mean", "*", "toy"),
        "goggles": ("median", "lab-*", "toy"),
    }
    assert all(one["generation"] == CARD.generation.id for one in said.values())
    assert folder.ask("status", "--experiment", "goggles")["rule"] == "median"


def test_a_server_does_not_start_while_one_experiment_has_no_model(folder: Folder) -> None:
    with (folder.path / "mcoe-server.toml").open("a") as file:
        file.write("[experiments.third]\n")
    assert "--experiment third" in folder.run("start", code=ExitCode.DATA_MISSING)


def test_doctor_and_backup_are_for_all_experiments(folder: Folder, tmp_path: Path) -> None:
    left = folder.path / "spool" / "goggles" / "round-9-1"
    left.mkdir(parents=True)
    assert any(str(left) in finding["what"] for finding in folder.ask("doctor"))
    folder.run("backup", tmp_path / "copy")
    restored = ServerPaths(tmp_path / "restored")
    CliRunner().invoke(app, ["init", "--dir", str(restored.folder)])
    CliRunner().invoke(app, ["restore", str(tmp_path / "copy"), "--dir", str(restored.folder)])
    engine = open_database(f"sqlite:///{restored.registry}")
    assert [len(Registry(engine, name).models()) for name in ("glasses", "goggles")] == [1, 1]
    engine.dispose()


def test_the_doctor_looks_into_every_spool(tmp_path: Path) -> None:
    engines = [toy_engine(tmp_path, experiment=name) for name in ("glasses", "goggles")]
    for engine in engines:
        engine.spool = tmp_path / "spool" / engine.registry.experiment
        client = f"client of {engine.registry.experiment}"
        enlist(engine, client)
        current = engine.open((client,))
        engine.receive(current, honest_reply(current.expectation, client))
    spools = {engine.registry.experiment: engine.spool for engine in engines}
    premises = Premises(engines[0].registry.engine, tmp_path / "models", spools, utc_now(), 0)
    assert [finding for finding in examine(premises) if finding.severity != "note"] == []
    for file in spools["goggles"].rglob("*.safetensors"):
        file.unlink()
    (found,) = [finding for finding in examine(premises) if finding.severity == "error"]
    assert found.what.startswith("goggles, round 1")


# -- the dashboard --------------------------------------------------------------------------------------------

PAGES = ("/", "/rounds", "/models", "/experts", "/server")


@pytest.fixture
def pages(tmp_path: Path) -> TestClient:
    engines = [toy_engine(tmp_path, experiment=name) for name in ("glasses", "goggles")]
    for engine in engines:
        client = f"client-of-{engine.registry.experiment}"
        enlist(engine, client)
        current = engine.open((client,))
        engine.receive(current, honest_reply(current.expectation, client))
        engine.finish(current)
    make_authority(tmp_path / "certificates")
    make_server_certificate(tmp_path / "certificates", ["localhost"])
    running = [ServerSettings(experiment=engine.registry.experiment) for engine in engines]
    registries = [engine.registry for engine in engines]
    made = dashboard_app(registries, engines[0].artifacts, ServerPaths(tmp_path), running, "token")
    headers = {"Authorization": "Bearer token"}
    return TestClient(made, "http://127.0.0.1:8445", headers=headers, follow_redirects=False)


def test_every_page_of_an_experiment_shows_that_one_and_leads_to_the_other(pages: TestClient) -> None:
    assert pages.get("/").headers["location"] == "/experiments/glasses/"
    for page in PAGES:
        shown = pages.get(f"/experiments/goggles{page}").text
        assert "client-of-glasses" not in shown, page
        assert f'<a href="/experiments/glasses{page}">glasses</a>' in shown, page
        links = [part.split('"')[0] for part in shown.split('href="/')[1:]]
        assert all(link.startswith(("experiments/", "static/")) for link in links), links
    assert "client-of-goggles" in pages.get("/experiments/goggles/").text
    assert pages.get("/experiments/goggles/rounds/1").status_code == 200
    assert pages.get("/experiments/goggles/rounds/7").status_code == 404
    assert pages.get("/rounds").status_code == pages.get("/experiments/nobody/").status_code == 404


def test_the_api_and_the_metrics_are_of_one_experiment(pages: TestClient) -> None:
    roots = pages.get("/api/v1/experiments").json()
    assert roots == {"glasses": "/experiments/glasses", "goggles": "/experiments/goggles"}
    for name, root in roots.items():
        assert [client["id"] for client in pages.get(f"{root}/api/v1/clients").json()] == [f"client-of-{name}"]
        assert 'mcoe_clients{state="enrolled"} 1.0' in pages.get(f"{root}/metrics").text
        assert pages.get(f"{root}/api/v1/rounds/7").json().keys() == {"detail"}
    assert pages.get("/health").json() == {"status": "ok"}


def test_rolling_back_one_experiment_leaves_the_other_alone(pages: TestClient) -> None:
    form = pages.get("/experiments/goggles/models/1/rollback").text
    token = form.split('name="form_token" value="')[1].split('"')[0]
    assert 'action="/experiments/goggles/models/1/rollback"' in form
    done = pages.post("/experiments/goggles/models/1/rollback", content=f"form_token={token}")
    assert done.headers["location"] == "/experiments/goggles/models"
    versions = [len(pages.get(f"/experiments/{name}/api/v1/models").json()) for name in ("glasses", "goggles")]
    assert versions == [2, 3]
