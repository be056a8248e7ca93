"""A model that the server offers: fetched, checked, tried on the wearer's own clips, then run or refused.

The server is a real one over TLS that serves files; clips and models are real, and so is the process that tries them.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from toy_store import ToyStore
from typer.testing import CliRunner

from client.app import make_client_app
from client.cli import app as cli
from client.comparison import FEWEST_CLIPS
from client.enrolment import ClientPaths, make_key
from client.folder_store import FolderStore
from client.offers import Offers
from client.outbox import Outbox
from client.own_models import LEARNED_HERE, forget_own_models, model_path, seal_model
from client.running import Running, RunningModel
from client.serving import try_beside
from client.trial import try_both
from mcoe_model.data.cache import open_clips
from mcoe_model.data.synthetic import SyntheticSettings, write_see
from mcoe_model.errors import DataInvalid, EnrolmentRefused, ServerUnreachable
from mcoe_model.learning.fine_tune import fine_tune
from mcoe_model.learning.samples import measure_normalisation
from mcoe_model.learning.settings import FineTuneSettings
from mcoe_model.learning.weights import backbone_sha256, load_model, tensors_of
from mcoe_model.model_file import (
    Generation,
    ModelCard,
    Tensors,
    file_sha256,
    model_bytes,
    read_model,
    tensors_sha256,
    write_model,
)
from mcoe_model.networks import build
from mcoe_model.protocol import CheckIn, Offer, TrainTask, UpdateMeta
from mcoe_model.tensors import STYPE, pack
from mcoe_model.update import is_head, payload_names, specs_of
from server.certificates import make_authority, make_server_certificate
from server.superlink.messages import SERVER_NODE_ID, assign_message_id, identify_process

KEY = bytes(range(32))


class Serving:
    """A server of model files. ``spoils`` the bytes that it sends; ``asked`` says for which models it was asked."""

    def __init__(self, folder: Path) -> None:
        make_authority(folder)
        make_server_certificate(folder, ["127.0.0.1"])
        self.folder, self.spoils, self.refuses = folder, False, False
        self.asked: list[str] = []
        serving = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                sha256 = self.path.rsplit("/", 1)[-1]
                serving.asked.append(sha256)
                content = (serving.folder / f"{sha256}.safetensors").read_bytes()
                if serving.spoils:
                    content = content[:-1] + bytes([content[-1] ^ 1])
                if serving.refuses:
                    content = b'{"error": "this key is not enrolled"}'
                self.send_response(403 if serving.refuses else 200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.crt", folder / "server.key")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def add(self, tensors: Tensors, card: ModelCard) -> str:
        file = self.folder / "model"
        write_model(file, tensors, card)
        sha256 = file_sha256(file)
        file.rename(self.folder / f"{sha256}.safetensors")
        return sha256


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One subject with eight sequences: too few for a verdict."""
    folder = tmp_path_factory.mktemp("data")
    write_see(folder, SyntheticSettings(subjects=1, sequences=8, size=64), workers=1)
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One subject with just as many sequences as a verdict needs."""
    folder = tmp_path_factory.mktemp("many")
    write_see(folder, SyntheticSettings(subjects=1, sequences=FEWEST_CLIPS, size=64), workers=1)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    serving = Serving(tmp_path_factory.mktemp("server"))
    yield serving
    serving.server.shutdown()
    serving.server.server_close()


@pytest.fixture(scope="module")
def card(data: Path) -> ModelCard:
    clips = open_clips(data, size=64, cache=data.parent / "cache")
    normalisation = measure_normalisation(clips, range(len(clips.records)))
    tensors = tensors_of(build("mcoe-tiny", seed=1))
    return ModelCard(Generation("mcoe-tiny", backbone_sha256(tensors), 64, normalisation), "test")


@pytest.fixture(scope="module")
def models(server: Serving, card: ModelCard, many: Path) -> dict[str, str]:
    """SHA-256 of an untrained model, of one that knows the many clips, and of others that are no good."""
    base = tensors_of(build("mcoe-tiny", seed=1))
    head = tensors_of(build("mcoe-tiny", seed=2))
    found = {"base": server.add(base, card)}
    found["another"] = server.add({name: base[name] if "backbone" in name else head[name] for name in base}, card)
    broken = {name: value.copy() for name, value in base.items()}
    next(value for name, value in broken.items() if is_head(name) and value.ndim == 2)[0, 0] = np.nan
    found["not finite"] = server.add(broken, card)
    found["other generation"] = server.add(base, replace(card, generation=replace(card.generation, top_k=1)))
    tensors = tensors_of(build("mcoe-tiny", seed=3))
    generation = replace(card.generation, backbone_sha256=backbone_sha256(tensors), input_size=48)
    found["new generation"] = server.add(tensors, replace(card, generation=generation))
    model, _ = load_model(server.folder / f"{found['base']}.safetensors")
    paths = ClientPaths(many.parent / "teacher")
    store = FolderStore(paths, "w1", many, "001", server.folder / f"{found['base']}.safetensors")
    recipe = FineTuneSettings(epochs=200, batch_size=FEWEST_CLIPS, learning_rate=3e-3, balance=0.0)
    fine_tune(model, store.samples(model, "head"), recipe, train_mode="head", keys=(0,))
    found["trained"] = server.add(tensors_of(model), card)
    return found


@pytest.fixture
def paths(tmp_path: Path, server: Serving, models: dict[str, str], data: Path) -> ClientPaths:
    """A wearable that runs the untrained model."""
    server.asked.clear()
    server.spoils = server.refuses = False
    made = ClientPaths(tmp_path / "wearable")
    make_key(made)
    made.authority.write_bytes((server.folder / "ca.crt").read_bytes())
    learns_from(made, server, data)
    made.models.mkdir()
    copy(server, made, models["base"])
    Running(made.running).adopt(models["base"])
    return made


def learns_from(paths: ClientPaths, server: Serving, clips: Path) -> None:
    member = {"address": server.address, "client_id": "w1", "clips": str(clips), "subject": "001"}
    paths.membership.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in member.items()))


def copy(server: Serving, paths: ClientPaths, sha256: str) -> None:
    file = f"{sha256}.safetensors"
    (paths.models / file).write_bytes((server.folder / file).read_bytes())


def considering(paths: ClientPaths, models: dict[str, str], *, labels: bool = True) -> Offers:
    return Offers(paths, Running(paths.running), paths.models / f"{models['base']}.safetensors", KEY, labels=labels)


def state(paths: ClientPaths) -> RunningModel:
    """What the server is told."""
    now = Running(paths.running).read()
    return RunningModel(now.runs, now.refused, now.refusal)


def files(paths: ClientPaths) -> set[str]:
    return {path.stem for path in paths.models.iterdir()}


def test_a_released_model_is_fetched_and_run(paths: ClientPaths, models: dict[str, str], server: Serving) -> None:
    offers = considering(paths, models)
    (paths.models / f"{'0a' * 32}.partial").write_bytes(b"the beginning of one that was offered before")
    offers.consider(Offer(models["trained"]))
    assert state(paths) == RunningModel(models["trained"]) and not list(paths.models.glob("*.partial"))
    offers.consider(Offer(models["trained"]))
    assert server.asked == [models["trained"]]
    assert files(paths) == {models["base"], models["trained"]}
    offers.consider(Offer(models["another"]))
    assert state(paths) == RunningModel(models["another"])
    # The one before stays, for the wearer who wants it back, and so does the one that tasks are of.
    assert files(paths) == {models["base"], models["trained"], models["another"]}


def test_a_canary_that_is_no_worse_is_run(paths: ClientPaths, models: dict[str, str]) -> None:
    considering(paths, models).consider(Offer(models["trained"], canary=True))
    assert state(paths) == RunningModel(models["trained"])


def test_without_the_consent_to_labels_no_clip_judges_a_model(
    paths: ClientPaths, models: dict[str, str], server: Serving, many: Path
) -> None:
    learns_from(paths, server, many)
    copy(server, paths, models["trained"])
    Running(paths.running).adopt(models["trained"])
    copy(server, paths, models["another"])
    considering(paths, models, labels=False).consider(Offer(models["another"]))
    assert state(paths) == RunningModel(models["another"])


@pytest.mark.parametrize("canary", [False, True])
def test_a_model_that_is_worse_on_the_wearers_own_clips_is_refused_once_and_runs_when_the_wearer_takes_it(
    paths: ClientPaths, models: dict[str, str], server: Serving, many: Path, canary: bool
) -> None:
    learns_from(paths, server, many)
    copy(server, paths, models["trained"])
    Running(paths.running).adopt(models["trained"])
    trained, another = (paths.models / f"{models[name]}.safetensors" for name in ("trained", "another"))
    copy(server, paths, models["another"])
    assert try_both(paths, another, trained).verdict == "worse"
    assert try_both(paths, trained, another).verdict == try_both(paths, trained, trained).verdict == "passed"
    own = seal_model(paths.models, KEY, trained.read_bytes(), models["base"])
    assert try_beside(paths, another, model_path(paths.models, own), KEY).verdict == "worse"
    model_path(paths.models, own).unlink()
    another.unlink()
    offers = considering(paths, models)
    for again in (canary, canary, False):  # and then released after all
        offers.consider(Offer(models["another"], again))
        assert state(paths) == RunningModel(models["trained"], models["another"], "worse")
    assert server.asked == [models["another"]]
    assert files(paths) == {models["base"], models["trained"], models["another"]}
    assert Running(paths.running).take().runs == models["another"]
    assert state(paths) == RunningModel(models["another"])


def test_clips_too_few_for_a_verdict_say_nothing(paths: ClientPaths, models: dict[str, str], server: Serving) -> None:
    copy(server, paths, models["trained"])
    Running(paths.running).adopt(models["trained"])
    considering(paths, models).consider(Offer(models["another"], canary=True))
    assert state(paths) == RunningModel(models["another"])
    trial = Running(paths.running).read().trial
    assert trial is not None and trial.in_words().startswith("no verdict: 8 labelled clips")


def test_what_the_wearer_went_back_from_is_not_run_again(paths: ClientPaths, models: dict[str, str]) -> None:
    offers = considering(paths, models)
    offers.consider(Offer(models["trained"], canary=True))
    offers.running.keep()
    assert state(paths) == RunningModel(models["base"])  # the server sees that a canary's client went back
    for canary in (True, False):
        offers.consider(Offer(models["trained"], canary))
        assert state(paths) == RunningModel(models["base"])
    offers.running.take()
    assert state(paths) == RunningModel(models["trained"])


@pytest.mark.parametrize("why", ["not finite", "other generation"])
@pytest.mark.parametrize("canary", [False, True])
def test_a_model_that_is_not_whole_is_refused_whoever_offers_it(
    paths: ClientPaths, models: dict[str, str], why: str, canary: bool
) -> None:
    considering(paths, models).consider(Offer(models[why], canary))
    assert state(paths) == RunningModel(models["base"], models[why], why)


def test_a_released_model_of_a_new_generation_is_worked_with_from_then_on(
    paths: ClientPaths, models: dict[str, str]
) -> None:
    offers = considering(paths, models)
    offers.consider(Offer(models["new generation"], canary=True))
    assert state(paths) == RunningModel(models["base"], models["new generation"], "other generation")
    before = offers.resident
    offers.consider(Offer(models["new generation"]))
    assert state(paths) == RunningModel(models["new generation"])
    assert offers.resident == paths.models / f"{models['new generation']}.safetensors" != before
    assert offers.running.read().resident == models["new generation"]
    assert files(paths) == {models["base"], models["new generation"]}
    offers.consider(Offer(models["trained"]))  # the operator goes back
    assert state(paths).runs == models["trained"] == offers.resident.stem
    offers.running.keep()
    offers.consider(Offer(models["new generation"]))  # which model runs is the wearer's choice, what is trained is not
    assert (state(paths).runs, offers.resident.stem) == (models["new generation"],) * 2
    offers.consider(Offer(models["trained"]))
    assert (state(paths).runs, offers.resident.stem) == (models["new generation"], models["trained"])


def test_a_task_of_a_new_generation_is_trained_on_clips_that_are_encoded_anew(
    paths: ClientPaths, models: dict[str, str], data: Path, server: Serving
) -> None:
    offers = considering(paths, models)
    outbox = Outbox(paths.outbox, bytes(32))
    app = make_client_app(lambda context: FolderStore(paths, "w1", data, "001", offers.resident), outbox, offers)

    def train(name: str) -> UpdateMeta:
        tensors, its_card = read_model(server.folder / f"{models[name]}.safetensors")
        sent = {key: tensors[key] for key in payload_names(specs_of(tensors), "head")}
        recipe = FineTuneSettings(epochs=1, batch_size=8)
        task = TrainTask(1, models[name], tensors_sha256(sent), its_card.generation.id, "head", recipe, 0)
        content = pack(sent)
        array = Array(dtype="uint8", shape=(len(content),), stype=STYPE, data=content)
        records = {"model": ArrayRecord({"tensors": array}), "task": ConfigRecord(task.to_record())}
        identify_process(run_id=1, node_id=SERVER_NODE_ID)
        message = Message(RecordDict(records), dst_node_id=1000, message_type=MessageType.TRAIN, group_id="1")
        assign_message_id(message, "1")
        answer = app(message, Context(1, 1000, {}, RecordDict(), {}))
        assert answer.has_content(), answer.error
        return UpdateMeta.from_record(dict(answer.content["meta"]))

    first, second = train("base"), train("new generation")
    assert server.asked == [models["new generation"]]
    assert (first.base_sha256, second.base_sha256) == (models["base"], models["new generation"])
    assert first.generation != second.generation
    assert outbox.ids() == (second.update_id,)  # what was trained of the old one is of no use
    assert len(list((paths.cache / "features").iterdir())) == 2
    assert state(paths).runs == models["new generation"]


def test_what_arrives_damaged_is_no_refusal_and_is_tried_again(
    paths: ClientPaths, models: dict[str, str], server: Serving
) -> None:
    server.spoils = True
    with pytest.raises(DataInvalid, match="damaged"):
        considering(paths, models).consider(Offer(models["trained"], canary=True))
    assert state(paths) == RunningModel(models["base"]) and files(paths) == {models["base"]}
    server.spoils = False
    considering(paths, models).consider(Offer(models["trained"]))
    assert state(paths).runs == models["trained"]


def test_a_file_that_was_damaged_on_the_disk_is_fetched_again(
    paths: ClientPaths, models: dict[str, str], server: Serving
) -> None:
    (paths.models / f"{models['trained']}.safetensors").write_bytes(b"torn")
    considering(paths, models).consider(Offer(models["trained"]))
    assert state(paths).runs == models["trained"] and server.asked == [models["trained"]]


def test_a_model_that_is_gone_from_the_disk_is_not_awaited_to_compare_with(
    paths: ClientPaths, models: dict[str, str], server: Serving
) -> None:
    (paths.models / f"{models['base']}.safetensors").rename(paths.folder / "resident.safetensors")
    offers = Offers(paths, Running(paths.running), paths.folder / "resident.safetensors")
    offers.consider(Offer(models["trained"]))
    assert state(paths).runs == models["trained"] and server.asked == [models["trained"]]


def test_what_cannot_be_decided_now_changes_nothing(
    paths: ClientPaths, models: dict[str, str], server: Serving
) -> None:
    offers = considering(paths, models)
    server.refuses = True
    with pytest.raises(EnrolmentRefused):
        offers.consider(Offer(models["trained"]))
    text = paths.membership.read_text()
    paths.membership.write_text(text.replace(server.address, "127.0.0.1:1"))
    with pytest.raises(ServerUnreachable):
        offers.consider(Offer(models["trained"]))
    paths.membership.write_text(text)
    server.refuses = False
    assert state(paths) == RunningModel(models["base"])
    offers.consider(Offer(models["trained"]))
    assert state(paths) == RunningModel(models["trained"])


def test_the_executor_does_not_wait_and_the_next_check_in_says_what_runs(
    paths: ClientPaths, models: dict[str, str]
) -> None:
    offers = considering(paths, models)
    app = make_client_app(lambda context: ToyStore("w1", 6), offers=offers)

    def check_in() -> CheckIn:
        identify_process(run_id=1, node_id=SERVER_NODE_ID)
        content = RecordDict({"offer": ConfigRecord(Offer(models["trained"]).to_record())})  # type: ignore[arg-type]
        message = Message(content, dst_node_id=1000, message_type=MessageType.QUERY, group_id="1")
        assign_message_id(message, "1")
        answer = app(message, Context(1, 1000, {}, RecordDict(), {}))
        return CheckIn.from_record(dict(answer.content["check-in"]))  # type: ignore[arg-type]

    assert check_in().runs == models["base"]  # nothing considers the offer yet, and nobody waited for that
    offers.start()
    for _ in range(2400):
        if check_in().runs == models["trained"]:
            break
        time.sleep(0.05)
    said = check_in()
    assert (said.client_id, said.examples, said.runs) == ("w1", 6, models["trained"])


def test_status_shows_what_runs_and_what_was_refused(paths: ClientPaths, models: dict[str, str]) -> None:
    Running(paths.running).refuse(models["another"], "worse")
    shown = CliRunner().invoke(cli, ["status", "--dir", str(paths.folder)]).stdout
    assert f"runs model {models['base'][:12]}; refused {models['another'][:12]}: worse" in shown
    said = json.loads(CliRunner().invoke(cli, ["status", "--dir", str(paths.folder), "--json"]).stdout)
    assert (said["runs"], said["refused"], said["refusal"]) == (models["base"], models["another"], "worse")


@pytest.mark.parametrize("spoilt", [b"", b"{", b'{"runs": 1, "more": 2}', b"[]"])
def test_a_file_that_was_spoilt_says_that_nothing_runs(tmp_path: Path, spoilt: bytes) -> None:
    (tmp_path / "running.json").write_bytes(spoilt)
    running = Running(tmp_path / "running.json")
    assert running.read() == RunningModel()
    running.adopt("a" * 64)
    assert running.read() == RunningModel("a" * 64)


def test_a_model_that_was_learned_here_stands_for_the_one_that_it_was_learned_from(
    paths: ClientPaths, models: dict[str, str], card: ModelCard, server: Serving
) -> None:
    """The server hears of the fleet's model, whose offer, at every check-in, does not undo what was learned."""
    offers, running = considering(paths, models), Running(paths.running)
    base, _ = read_model(paths.models / f"{models['base']}.safetensors")
    about = {"clips": 3, "fleet_model": models["base"]}
    content = model_bytes(base, card.child_of(models["base"], LEARNED_HERE, about))
    own = seal_model(paths.models, KEY, content, models["base"])
    running.adopt(own)
    assert offers.runs == models["base"]
    offers.consider(Offer(models["base"]))
    assert running.read().runs == own
    copy(server, paths, models["trained"])
    offers = Offers(paths, running, paths.models / f"{models['trained']}.safetensors", KEY)
    assert running.read().resident == models["trained"]
    offers.consider(Offer(models["another"]))
    assert state(paths) == RunningModel(models["another"]) and offers.runs == models["another"]
    assert running.read().before == own
    forget_own_models(paths)
    assert {own, models["base"]} <= files(paths), "what the wearer's own was learned from stands in while it is locked"
    running.adopt(models["base"])
    forget_own_models(paths)
    assert files(paths) == {models["base"], models["another"], models["trained"]}
