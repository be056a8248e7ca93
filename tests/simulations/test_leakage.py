"""The attacker on router statistics: what he is given, and that he finds what is there and nothing that is not."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from mcoe_model.errors import SettingsError
from mcoe_model.model_file import file_sha256
from mcoe_model.names import EMOTIONS, LIGHTINGS
from mcoe_model.router_statistics import RouterStatistics
from server.aggregation.block import Block
from server.aggregation.expert_weighted_mean import ExpertWeightedMean
from server.aggregation.rule import Contribution, RuleSettings
from simulations import leakage, leakage_tables, measure_leakage
from simulations.coarse_rule import FourBins
from simulations.coordination import open_registry
from simulations.experiment import published
from simulations.scene import Paths, open_scene


def test_made_up_clients_learn_their_own_subjects_clips_and_are_the_same_again(prepared_base: Path) -> None:
    clients = leakage.make_clients(prepared_base, ("clients",), 3)
    scene = open_scene(prepared_base)
    assert len(clients) == leakage.CLIENTS_OF_EACH * len(scene.subjects("clients"))
    for client in clients:
        assert client.clips.shape == (3, leakage.CLIPS)
        assert set(client.clips.reshape(-1)) <= set(scene.indices("clients", client.subject))
    again = leakage.make_clients(prepared_base, ("clients",), 3)
    assert all(np.array_equal(one.clips, other.clips) for one, other in zip(clients, again, strict=True))
    labels = {clip: scene.clips.records[clip].class_index for clip in scene.indices("clients")}
    mix = clients[0].mix(labels, 1)
    assert mix.sum() == pytest.approx(1) and mix[labels[int(clients[0].clips[0, 0])]] > 0


def test_levels_say_less_and_less() -> None:
    gate = np.random.default_rng(0).dirichlet(np.full(4, 0.5), size=10)
    chosen = np.argsort(-gate, axis=1)[:, :2]
    one = leakage.Client("1", np.arange(10).reshape(1, 10))
    seen = {
        name: leakage.statistics_features([one], [(gate, chosen)], {clip: clip for clip in range(10)}, level)[0, 0]
        for name, level in leakage.LEVELS.items()
    }
    np.testing.assert_allclose(seen["exact"], [*np.bincount(chosen.reshape(-1), minlength=4) / 20, *gate.mean(axis=0)])
    assert set(np.round(seen["four bins"] * 4, 6)) <= {0.2, 0.25, 0.75, 0.8, 1.5, 1.6, 3.0}  # counts are whole
    assert set(seen["experts sent"]) <= {0.0, 1.0} and len(seen["experts sent"]) == 4


def test_the_attacker_reads_what_is_linear_in_his_features_and_guesses_no_better_from_noise() -> None:
    random = np.random.default_rng(1)
    mixes, lighting = random.dirichlet(np.ones(len(EMOTIONS)), 400), random.integers(0, len(LIGHTINGS), 400)
    people = [f"{number % 10}" for number in range(200)]
    telling = np.concatenate([mixes @ random.normal(size=(7, 12)), np.eye(4)[lighting]], axis=1)
    for features, sees in ((telling, True), (random.normal(size=telling.shape), False)):
        guessed = leakage.guess(features[:200], mixes[:200], lighting[:200], people, features[200:])
        blind = leakage.guess_without(mixes[:200], lighting[:200], 200)
        off, blind_off = (np.abs(one.mix - mixes[200:]).sum() for one in (guessed, blind))
        hits = (guessed.lighting == lighting[200:]).mean()
        assert (off < blind_off / 5 and hits > 0.95) if sees else (off > 0.9 * blind_off and hits < 0.45)


def test_the_attackers_people_are_none_of_the_clients(prepared_base: Path) -> None:
    """He has met nobody whom he guesses about, and nobody who is tested."""
    scene = open_scene(prepared_base)
    made = {
        side: {client.subject for client in leakage.make_clients(prepared_base, parts, 1)}
        for side, parts in {"shadows": leakage.SHADOWS, "victims": (leakage.VICTIMS,)}.items()
    }
    assert made["victims"] == set(scene.subjects("clients")) and made["shadows"]
    assert made["shadows"] <= {*scene.subjects("base"), *scene.subjects("validation")}
    assert not made["shadows"] & (made["victims"] | set(scene.subjects("test")))


@pytest.mark.parametrize(
    ("flag", "value", "fault"), [("--model", "cmfnet", "has no experts"), ("--clients", "0", "at least 1")]
)
def test_what_there_is_nothing_to_measure_of_is_refused(flag: str, value: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"{flag} .*{fault}"):
        measure_leakage.main([flag, value, "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_the_study_says_of_every_attacker_what_he_tells_of_each_client(
    simulation_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MCOE_CACHE", str(simulation_cache))
    monkeypatch.setattr(measure_leakage, "SEEN", (1, 2))
    sizes = ["--subjects", "6", "--sequences", "3", "--size", "24", "--base-epochs", "1", "--workers", "1"]
    measure_leakage.main([*sizes, "--clients", "2", "--out", str(tmp_path / "run"), "--json"])
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    levels = ("nothing", *leakage.LEVELS, measure_leakage.UPDATE)
    rows = {row["attacker"]: row for row in summary["attackers"]}
    assert list(rows) == [f"{level}, {rounds}" for rounds in ("1 round", "2 rounds") for level in levels]
    for row in rows.values():
        for measure in leakage_tables.MEASURES:
            assert 0 <= row[measure] <= 1 and row[f"{measure}_low"] <= row[f"{measure}_high"]
    assert rows["nothing, 1 round"]["mix_off_low"] == rows["nothing, 1 round"]["mix_off_high"] == 0
    kinds = itertools.product(("base", "last round"), ("load", "gate"), ("lighting", "emotion", "subject"))
    assert [(row["model"], row["routed"], row["separates"]) for row in summary["separation"]] == list(kinds)
    assert all(0 <= row["share"] <= 1 and 0 < row["p"] <= 1 for row in summary["separation"])
    exact, *others = summary["cost"]
    assert exact["difference"] == exact["low"] == exact["high"] == 0
    assert [row["level"] for row in (exact, *others)] == list(leakage.LEVELS)
    for row in others:
        assert row["war"] == pytest.approx(exact["war"] + row["difference"])
    for table, of in {name: summary[name] for name in ("separation", "attackers", "cost")}.items():
        assert (tmp_path / "run" / f"{table}.csv").read_text().count("\n") == 1 + len(of)
    _rounds_ask_what_the_server_asked(tmp_path / "run" / "seed-0")
    _bins_are_what_the_rule_knew(tmp_path / "run" / "seed-0" / "cost")


def _rounds_ask_what_the_server_asked(folder: Path) -> None:
    """A client's update is that of the round: its model, its rate and the load of the round before."""
    asked, registry = leakage.rounds_asked(folder), open_registry(folder)
    first = registry.rounds()[0]
    load = np.sum([client.routed for client in registry.router_statistics(first.id).values()], axis=0)
    np.testing.assert_allclose(asked[1].expert_load, load / load.sum())
    assert asked[0].expert_load == () and len(asked) == 2
    assert file_sha256(asked[0].model) == file_sha256(Paths(folder).base)
    assert asked[1].model == published(folder)["round-1"]
    assert asked[1].recipe.learning_rate == pytest.approx(0.94 * asked[0].recipe.learning_rate)
    (client, *_) = leakage.make_clients(folder, ("clients",), 2)
    changes = leakage.update_features(folder, asked, [client])
    assert changes.shape[:2] == (1, 2) and (changes != 0).any(axis=2).all() and (changes[0, 0] != changes[0, 1]).any()
    np.testing.assert_array_equal(leakage.update_features(folder, asked[:1], [client])[0, 0], changes[0, 0])


def _bins_are_what_the_rule_knew(folder: Path) -> None:
    """All three have the base and the first round's updates in common, and combine them each in its own way."""
    runs = [folder / level.replace(" ", "-") for level in leakage.LEVELS]
    assert len({file_sha256(Paths(run).base) for run in runs}) == 1
    first = [open_registry(run).contributions(1) for run in runs]
    assert first[0] == first[1] == first[2]
    assert len({file_sha256(published(run)["round-1"]) for run in runs}) == 3


def test_four_bins_weigh_an_expert_by_the_middle_of_its_share() -> None:
    mass = ((0.4, 1.0, 3.6, 3.0), (2.0, 2.0, 2.0, 2.0))
    senders = [Contribution(f"{k}", f"{k}", 8, RouterStatistics(8, 2, (4, 4, 4, 4), of)) for k, of in enumerate(mass)]
    shared = Block(None, (), senders, [])
    known: list[Block] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExpertWeightedMean, "plan", lambda *_: known.append)
        FourBins().plan(shared, RuleSettings(), None)(shared)
    assert [sender.router.gate_mass for sender in known[0].senders] == [(0.5, 1.5, 3.0, 3.0), (3.0, 3.0, 3.0, 3.0)]
    assert [sender.examples for sender in known[0].senders] == [8, 8]
