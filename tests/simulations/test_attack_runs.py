"""Runs of an attacks' comparison are kept as they end and not done twice; the two engines that only it has."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mcoe_model.data.see import read_see
from mcoe_model.errors import NotResumable
from mcoe_model.workers import spawn_pool
from simulations.attack_engines import Trusting, Undefended
from simulations.attack_runs import NOBODY, PLAIN, KeptRun, keep, read_run, read_runs, run_path, run_seed
from simulations.attacks import Attack, run_attack
from simulations.coordination import open_registry
from simulations.scene import open_scene
from simulations.variants import begin_variant


def test_a_run_that_is_there_is_not_done_again(prepared_base: Path, tmp_path: Path) -> None:
    settings = open_scene(prepared_base).settings
    shutil.copytree(prepared_base, tmp_path / "seed-0" / "base")
    said: list[str] = []
    run_seed(tmp_path, settings, [NOBODY], [PLAIN], said.append)
    (first,) = read_runs(tmp_path)
    known = run_path(tmp_path, 0, NOBODY, PLAIN)
    before = known.read_bytes(), known.stat().st_mtime_ns
    run_seed(tmp_path, settings, [NOBODY], ["undefended", PLAIN, "median", "krum"], said.append)
    heard = [line.split(": ")[1] for line in said]
    assert heard == [f"{NOBODY}, {PLAIN}", f"{NOBODY}, median"], "krum would need five clients"
    assert before == (known.read_bytes(), known.stat().st_mtime_ns)
    assert [run.rule for run in read_runs(tmp_path)] == [PLAIN, "median"]
    tested = open_scene(prepared_base).indices("test")
    records = open_scene(prepared_base).clips.records
    outcome = first.outcome
    assert outcome.names.tolist() == [records[index].name for index in tested]
    assert outcome.subjects.tolist() == [records[index].subject for index in tested]
    assert outcome.labels.tolist() == [records[index].class_index for index in tested]
    np.testing.assert_allclose([outcome.clean.sum(1), outcome.patched.sum(1)], 1)
    keep(tmp_path / "again", first)
    assert run_path(tmp_path / "again", 0, NOBODY, PLAIN).read_bytes() == before[0]
    with pytest.raises(NotResumable, match="runs with another rounds; name another folder with --out"):
        run_seed(tmp_path, replace(settings, rounds=3, seed=1), [NOBODY], [PLAIN], said.append)
    keep(tmp_path, KeptRun(NOBODY, PLAIN, 0, str(Attack("flip", 1)), outcome))
    with pytest.raises(NotResumable, match="is of Attack"):
        run_seed(tmp_path, settings, [NOBODY], [PLAIN], said.append)


def test_a_file_that_holds_no_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(NotResumable, match=r"torn.npz holds no run"):
        read_run(tmp_path / "torn.npz")


def test_fltrust_has_the_validation_clips_and_undefended_no_bound(prepared_base: Path, tmp_path: Path) -> None:
    with spawn_pool(1) as pool:
        for name, engine in (("trusting", Trusting), ("undefended", Undefended)):
            begin_variant(prepared_base, tmp_path / name, rounds=1)
            run_attack(tmp_path / name, Attack("flip", 1, 10.0), pool, engine)
    (trusting,), (undefended,) = (open_registry(tmp_path / name).rounds() for name in ("trusting", "undefended"))
    assert trusting.settings["rule"] == "fltrust" and trusting.norm_bound is not None
    assert undefended.settings["rule"] == PLAIN and undefended.norm_bound is None
    index = read_see(tmp_path / "trusting" / "trusted")
    assert sorted(one.name for one in index.records) == sorted(open_scene(prepared_base).parts.validation)
    assert trusting.published_sha256 != undefended.published_sha256
