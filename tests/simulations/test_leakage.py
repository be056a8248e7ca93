"""The attacker on router statistics: what he is given, and that he finds what is there and nothing that is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mcoe_model.names import EMOTIONS, LIGHTINGS
from simulations import leakage, measure_leakage
from simulations.scene import open_scene


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
        name: leakage.statistics_features([one], [(gate, chosen)], {clip: clip for clip in range(10)}, level)[0]
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


def test_the_study_says_of_every_attacker_what_he_tells_of_each_client(
    simulation_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MCOE_CACHE", str(simulation_cache))
    monkeypatch.setattr(measure_leakage, "SEEN", (1, 2))
    monkeypatch.setattr(leakage, "CLIENTS_OF_EACH", 2)
    sizes = ["--subjects", "6", "--sequences", "3", "--size", "24", "--base-epochs", "1", "--workers", "1"]
    measure_leakage.main([*sizes, "--out", str(tmp_path / "run"), "--json"])
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    levels = ("nothing", *leakage.LEVELS)
    asked = [f"{level}, {rounds}" for rounds in ("1 round", "2 rounds") for level in levels]
    rows = {row["attacker"]: row for row in summary["attackers"]}
    assert list(rows) == [*asked, "the update itself, 1 round"]
    for row in rows.values():
        for measure in ("mix_off", "most_frequent", "lighting"):
            assert 0 <= row[measure] <= 1 and row[f"{measure}_low"] <= row[f"{measure}_high"]
    assert rows["nothing, 1 round"]["mix_off_low"] == rows["nothing, 1 round"]["mix_off_high"] == 0
    assert (tmp_path / "run" / "leakage.csv").read_text().count("\n") == 1 + len(rows)
