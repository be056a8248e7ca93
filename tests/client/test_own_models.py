"""Models that were learned here: sealed on the disk, opened with the wearer's key alone, and never missed for long."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from toy_camera import NORMALISATION

from client import own_models
from client.doctor import Premises, check_model
from client.enrolment import ClientPaths
from client.live import load_live_model
from client.own_models import (
    LEARNED_HERE,
    fleet_model,
    forget_own_models,
    is_own,
    model_path,
    open_card,
    open_model,
    seal_model,
    settle_own_models,
)
from client.running import Running, RunningModel
from client.serving import served_model
from client.settings import ClientSettings
from mcoe_model.errors import DataInvalid, DataMissing, DiskFull, Locked, ModelInvalid
from mcoe_model.learning.weights import backbone_sha256, tensors_of
from mcoe_model.model_file import Generation, ModelCard, Tensors, file_sha256, model_bytes, write_model
from mcoe_model.networks import build
from mcoe_model.update import is_head

KEY, ANOTHER = bytes(range(32)), bytes(32)


@dataclass(frozen=True)
class Wearer:
    """A folder with the fleet's model, and what was learned from it: weights and their file's bytes."""

    paths: ClientPaths
    fleet: str
    learned: Tensors
    content: bytes

    def seal(self) -> str:
        """Keep and serve the learned model."""
        own = seal_model(self.paths.models, KEY, self.content, self.fleet)
        Running(self.paths.running).adopt(own)
        return own

    def lay_plain(self) -> Path:
        """As an earlier version of the program did."""
        path = self.paths.models / "learned"
        path.write_bytes(self.content)
        own = file_sha256(path)
        Running(self.paths.running).adopt(own)
        return path.rename(self.paths.models / f"{own}.safetensors")

    def served(self, unlocked: bool = True) -> Path | None:
        return served_model(self.paths, unlocked=unlocked)

    @property
    def is_plain(self) -> bool:
        """Whether any weights of the learned head lie anywhere as they are."""
        weights = [value.tobytes() for name, value in self.learned.items() if is_head(name) and value.size > 8]
        files = [path.read_bytes() for path in self.paths.folder.rglob("*") if path.is_file()]
        fleet = (self.paths.models / f"{self.fleet}.safetensors").read_bytes()
        return any(one in content for one in weights if one not in fleet for content in files)


@pytest.fixture
def wearer(tmp_path: Path) -> Wearer:
    paths, tensors = ClientPaths(tmp_path), tensors_of(build("mcoe-tiny", seed=1))
    generation = Generation("mcoe-tiny", backbone_sha256(tensors), 64, NORMALISATION)
    card = ModelCard(generation, "test")
    file = paths.models / "fleet"
    write_model(file, tensors, card)
    fleet = file_sha256(file)
    file.rename(paths.models / f"{fleet}.safetensors")
    Running(paths.running).adopt(fleet)
    learned = {name: value + 1 if is_head(name) else value for name, value in tensors.items()}
    about = {"clips": 3, "fleet_model": fleet}
    return Wearer(paths, fleet, learned, model_bytes(learned, card.child_of(fleet, LEARNED_HERE, about)))


def test_what_was_learned_is_opened_with_the_key_alone(wearer: Wearer) -> None:
    own = wearer.seal()
    path = wearer.served()
    assert path is not None and is_own(path) and path.stem == own and not wearer.is_plain
    tensors, card = open_model(path, KEY)
    assert card == open_card(path, KEY) and card.origin == LEARNED_HERE
    assert tensors.keys() == wearer.learned.keys()
    assert all(np.array_equal(value, wearer.learned[name]) for name, value in tensors.items())
    assert load_live_model(path, KEY).name == own
    for opens in (open_model, open_card):
        with pytest.raises(Locked):
            opens(path, None)
        with pytest.raises(DataInvalid):
            opens(path, ANOTHER)


def test_while_it_is_locked_the_fleets_model_stands_in(wearer: Wearer) -> None:
    fleet = wearer.paths.models / f"{wearer.fleet}.safetensors"
    assert wearer.served(unlocked=False) == wearer.served() == fleet
    own = wearer.seal()
    path = model_path(wearer.paths.models, own)
    assert fleet_model(path) == fleet_model(fleet) == wearer.fleet
    assert (wearer.served(unlocked=False), wearer.served()) == (fleet, path)
    [said] = check_model(Premises(wearer.paths.folder, "none", ClientSettings(), None))
    assert said.state == "ok" and "the wearer's own is sealed" in said.what
    fleet.unlink()
    assert (wearer.served(unlocked=False), wearer.served()) == (None, path)
    [said] = check_model(Premises(wearer.paths.folder, "none", ClientSettings(), None))
    assert said.state == "warning"


def test_what_an_earlier_version_left_plain_is_sealed(wearer: Wearer) -> None:
    plain = wearer.lay_plain()
    assert wearer.is_plain and wearer.served() == plain
    settle_own_models(wearer.paths, KEY)
    assert not wearer.is_plain and not plain.exists()
    path = wearer.served()
    assert path is not None and is_own(path) and path.stem == plain.stem
    assert open_model(path, KEY)[1].trained_on["clips"] == 3 and fleet_model(path) == wearer.fleet
    plain.write_bytes(wearer.content)  # and it ended between the two
    settle_own_models(wearer.paths, KEY)
    assert not wearer.is_plain and wearer.served() == path
    assert Running(wearer.paths.running).read() == RunningModel(plain.stem, before=wearer.fleet)


def test_nothing_is_lost_when_the_disk_is_full(wearer: Wearer, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = wearer.lay_plain()

    def full(*_: object) -> None:
        raise DiskFull("no space left")

    monkeypatch.setattr(own_models, "write_sealed", full)
    with pytest.raises(DiskFull):
        settle_own_models(wearer.paths, KEY)
    assert wearer.served() == plain and open_model(plain, KEY)[1].origin == LEARNED_HERE


def cut(content: bytes) -> bytes:
    return content[:-1]


def changed(content: bytes) -> bytes:
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


def of_another(content: bytes) -> bytes:
    return b"f" * 64 + content[64:]


def emptied(content: bytes) -> bytes:
    return content[:10]


@pytest.mark.parametrize("spoil", [cut, changed, of_another, emptied])
def test_for_a_damaged_one_the_fleets_recognises_and_it_is_said_once(
    wearer: Wearer, spoil: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mcoe")
    own = wearer.seal()
    path = model_path(wearer.paths.models, own)
    settle_own_models(wearer.paths, KEY)
    assert wearer.served() == path and not caplog.records
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataInvalid):
        open_model(path, KEY)
    for _ in range(2):
        settle_own_models(wearer.paths, KEY)
    [said] = caplog.records
    assert "is damaged" in said.getMessage()
    assert wearer.served() == wearer.paths.models / f"{wearer.fleet}.safetensors" and not path.exists()
    assert Running(wearer.paths.running).read() == RunningModel(wearer.fleet, own_damaged=True)


def test_one_that_the_wearer_could_go_back_to_is_no_choice_any_more_when_it_is_damaged(wearer: Wearer) -> None:
    own, running = wearer.seal(), Running(wearer.paths.running)
    running.adopt(wearer.fleet)
    assert running.read().before == own
    path = model_path(wearer.paths.models, own)
    path.write_bytes(cut(path.read_bytes()))
    settle_own_models(wearer.paths, KEY)
    assert running.read() == RunningModel(wearer.fleet, own_damaged=True)


def test_only_what_somebody_can_go_back_to_is_kept(wearer: Wearer) -> None:
    own = wearer.seal()
    forget_own_models(wearer.paths)
    assert wearer.served() == model_path(wearer.paths.models, own)
    running = Running(wearer.paths.running)
    running.adopt("a" * 64)
    running.adopt(wearer.fleet)
    forget_own_models(wearer.paths)
    assert [path.stem for path in wearer.paths.models.iterdir()] == [wearer.fleet]


def test_a_file_that_holds_no_model_is_named(wearer: Wearer) -> None:
    own = seal_model(wearer.paths.models, KEY, b"no model", wearer.fleet)
    for opens in (open_model, open_card):
        with pytest.raises(ModelInvalid, match=own):
            opens(model_path(wearer.paths.models, own), KEY)
    with pytest.raises(DataMissing):
        fleet_model(wearer.paths.models / f"{'e' * 64}.sealed")
