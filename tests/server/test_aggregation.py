"""The rules against formulas written out here, and what must not change a result: order, chunks, files on the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_fleet import toy_model
from toy_updates import SHARED, TRAINABLE, combine, mean_update, sent, stepped

import server.aggregation.block
from mcoe_model.errors import DataInvalid, DataMissing, RoundFailed, SettingsError
from mcoe_model.model_file import tensors_sha256
from mcoe_model.streams import stream
from mcoe_model.update import TensorSpec, specs_of
from server.aggregation import RULES, aggregate
from server.aggregation.rule import ROUTER_MODES, RouterMode, RuleSettings
from server.spool import open_update, spool_path, write_update

ALL = ((0, 1, 2, 3),) * 5
SOME = ((0, 1), (0, 2), (0,), (0, 1), ())


def test_weighted_mean_weighs_by_examples_up_to_the_cap(tmp_path: Path) -> None:
    contributions = sent(SOME, examples=[4, 10, 16, 1000, 30])
    after = combine(tmp_path, contributions, "weighted-mean", RuleSettings(max_examples=20))
    weights = np.array([4, 10, 16, 20, 20]) / 70
    for name in SHARED:
        deltas = np.stack([update[name].astype(np.float64) for _, update in contributions])
        np.testing.assert_allclose(after[name], stepped(name, np.tensordot(weights, deltas, 1)), rtol=1e-6)
    senders = [contributions[index][1]["moe.experts.1.weight"] for index in (0, 3)]
    expected = stepped("moe.experts.1.weight", (4 * senders[0].astype(float) + 20 * senders[1].astype(float)) / 24)
    np.testing.assert_allclose(after["moe.experts.1.weight"], expected, rtol=1e-6)


def test_expert_weighted_mean_weighs_an_expert_by_gate_mass_with_cap_and_kappa(tmp_path: Path) -> None:
    masses = [(3.0, 7.0, 0.0, 0.0), (1.0, 0.5, 8.5, 0.0), (10.0, 0.0, 0.0, 0.0), (2.0, 8.0, 0.0, 0.0), (5.0, 5.0, 0, 0)]
    contributions = sent(SOME, examples=[10] * 5, masses=masses)
    after = combine(tmp_path, contributions, "expert-weighted-mean", RuleSettings(max_gate_mass=6.0, kappa=2.0))
    for expert, senders in ((0, (0, 1, 2, 3)), (1, (0, 3)), (2, (1,))):
        name = f"moe.experts.{expert}.weight"
        weights = [min(masses[index][expert], 6.0) for index in senders]
        total = sum(w * contributions[i][1][name].astype(np.float64) for w, i in zip(weights, senders, strict=True))
        np.testing.assert_allclose(after[name], stepped(name, total / (sum(weights) + 2.0)), rtol=1e-6)
    plain = combine(tmp_path, contributions, "weighted-mean")
    for name in SHARED:
        np.testing.assert_array_equal(after[name], plain[name])


def test_routing_consistency_weighs_an_expert_by_how_alike_its_clients_lean_on_it(tmp_path: Path) -> None:
    masses = [(5.0, 5.0, 0.0, 0.0), (1.0, 0.0, 9.0, 0.0), (30.0, 10.0, 0.0, 0.0), (10.0, 0.0, 0.0, 0.0)]
    contributions = sent([(0, 1), (0, 2), (0, 1), (0,)], examples=[10, 10, 40, 10], masses=masses)
    after = combine(tmp_path, contributions, "routing-consistency")
    shares = np.array(masses) / np.array([[10], [10], [40], [10]])
    mean = shares.mean(axis=0)
    for expert, senders in ((0, (0, 1, 2, 3)), (1, (0, 2)), (2, (1,))):
        name = f"moe.experts.{expert}.weight"
        weights = [min(shares[k, expert], mean[expert]) / max(shares[k, expert], mean[expert]) for k in senders]
        total = sum(w * contributions[k][1][name].astype(np.float64) for w, k in zip(weights, senders, strict=True))
        np.testing.assert_allclose(after[name], stepped(name, total / sum(weights)), rtol=1e-6)
    plain = combine(tmp_path, contributions, "weighted-mean")
    for name in SHARED:
        np.testing.assert_array_equal(after[name], plain[name])


def test_an_expert_without_any_gate_mass_keeps_its_value_under_routing_consistency(tmp_path: Path) -> None:
    contributions = sent([(0,), (0,)], masses=[(0.0, 10.0, 0.0, 0.0)] * 2)
    after = combine(tmp_path, contributions, "routing-consistency")
    np.testing.assert_array_equal(after["moe.experts.0.weight"], toy_model()["moe.experts.0.weight"])


def test_kappa_pulls_a_rarely_used_expert_towards_its_old_value(tmp_path: Path) -> None:
    contributions = sent([(0,)], examples=[1], masses=[(0.01, 0.99, 0.0, 0.0)])
    moved = {}
    for kappa in (0.0, 1.0, 1e9):
        after = combine(tmp_path, contributions, "expert-weighted-mean", RuleSettings(kappa=kappa))
        moved[kappa] = float(np.abs(after["moe.experts.0.weight"] - toy_model()["moe.experts.0.weight"]).max())
    assert moved[0.0] > 50 * moved[1.0] > 0
    assert moved[1e9] == 0.0


def test_an_expert_without_any_gate_mass_keeps_its_value_even_without_kappa(tmp_path: Path) -> None:
    contributions = sent([(0,), (0,)], masses=[(0.0, 10.0, 0.0, 0.0)] * 2)
    after = combine(tmp_path, contributions, "expert-weighted-mean", RuleSettings(kappa=0.0))
    np.testing.assert_array_equal(after["moe.experts.0.weight"], toy_model()["moe.experts.0.weight"])


def test_median_of_an_odd_and_of_an_even_number(tmp_path: Path) -> None:
    for clients in (5, 4):
        contributions = sent(ALL[:clients])
        after = combine(tmp_path / str(clients), contributions, "median")
        for name in TRAINABLE:
            ordered = np.sort([update[name].astype(np.float64) for _, update in contributions], axis=0)
            middle = (ordered[(clients - 1) // 2] + ordered[clients // 2]) / 2
            np.testing.assert_allclose(after[name], stepped(name, middle), rtol=1e-6)


def test_median_holds_against_f_clients_that_send_anything(tmp_path: Path) -> None:
    contributions = sent(ALL)
    worst = np.float32(3e38)
    for name in TRAINABLE:
        contributions[0][1][name] = np.full_like(contributions[0][1][name], worst)
        contributions[1][1][name] = np.full_like(contributions[1][1][name], -worst)
    after = combine(tmp_path, contributions, "median")
    for name in TRAINABLE:
        honest = np.stack([update[name] for _, update in contributions[2:]])
        delta = after[name] - toy_model()[name]
        assert (delta <= honest.max(axis=0) + 1e-5).all()
        assert (delta >= honest.min(axis=0) - 1e-5).all()


def test_median_leaves_an_expert_alone_below_2f_plus_1_senders(tmp_path: Path) -> None:
    contributions = sent([(0, 1), (0, 1), (0, 1), (0, 1), (0,)])
    after = combine(tmp_path, contributions, "median", RuleSettings(faulty=2))
    np.testing.assert_array_equal(after["moe.experts.1.weight"], toy_model()["moe.experts.1.weight"])
    assert (after["moe.experts.0.weight"] != toy_model()["moe.experts.0.weight"]).all()


@pytest.mark.parametrize("rule", RULES)
def test_what_nobody_sent_keeps_its_bits_and_what_was_sent_moves(rule: str, tmp_path: Path) -> None:
    base = toy_model()
    before = tensors_sha256(base)
    after = combine(tmp_path, sent(((0, 1),) * 5), rule, base=base)
    assert tensors_sha256(base) == before
    assert after.keys() == base.keys()
    moved = {name for name in base if after[name].tobytes() != base[name].tobytes()}
    assert moved == {*SHARED, "moe.experts.0.weight", "moe.experts.1.weight"}
    assert specs_of(after) == specs_of(base)


@pytest.mark.parametrize("rule", RULES)
def test_one_client_alone_is_followed_by_a_rule_that_can_work_with_one(rule: str, tmp_path: Path) -> None:
    contributions = sent([(0,)])
    nobody_hostile = RuleSettings(faulty=0)
    if RULES[rule].least(nobody_hostile) > 1:
        with pytest.raises(RoundFailed, match=f"{rule} against 0 hostile clients needs 3 updates, not 1"):
            combine(tmp_path, contributions, rule, nobody_hostile)
        return
    after = combine(tmp_path, contributions, rule, nobody_hostile)
    for name in SHARED:
        expected = stepped(name, contributions[0][1][name].astype(np.float64))
        np.testing.assert_allclose(after[name], expected, rtol=1e-6)


@settings(max_examples=25)
@given(st.permutations(range(5)), st.sampled_from(sorted(RULES)))
def test_the_order_of_contributions_changes_no_bit(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], rule: str
) -> None:
    contributions = sent(SOME, examples=[7, 7, 11, 13, 17])
    for name in SHARED:  # two that cancel each other: what is added between them loses its digits
        contributions[0][1][name] *= np.float32(1e15)
        contributions[1][1][name] = -contributions[0][1][name]
    own = mean_update(contributions)
    expected = combine(tmp_path_factory.mktemp("usual"), contributions, rule, reference=own)
    permuted = [contributions[index] for index in order]
    found = combine(tmp_path_factory.mktemp("other"), permuted, rule, reference=own)
    assert tensors_sha256(found) == tensors_sha256(expected)


@pytest.mark.parametrize("router", ROUTER_MODES)
@pytest.mark.parametrize("rule", RULES)
def test_the_width_of_chunks_changes_no_bit(
    rule: str, router: RouterMode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of several thousand columns, whose tensors end anywhere in a chunk; values of very different size."""
    shapes = {"a.weight": (37, 41), "b.weight": (3000,), "moe.router.weight": (4, 700), "z.bias": ()}
    shapes |= {f"moe.experts.{expert}.weight": (2500,) for expert in range(2)}
    specs = {name: TensorSpec(shape, "float32") for name, shape in shapes.items()}
    base = {name: np.zeros(shape, np.float64) for name, shape in shapes.items()}  # float32 would hide the last digits
    random = stream(0, "wide")
    listed = [contribution for contribution, _ in sent(((0, 1),) * 7)]
    common = {name: random.normal(size=shape) for name, shape in shapes.items()}
    for update_id in ("reference", *(contribution.update_id for contribution in listed)):
        size = 10.0 ** random.integers(-3, 4)
        update = {name: size * (value + random.normal(size=value.shape)) for name, value in common.items()}
        write_update(tmp_path, update_id, {name: np.asarray(v, np.float32) for name, v in update.items()})
    reference = open_update(tmp_path, "reference")
    found = set()
    for width in (1, 80_000, 130_000, 32 << 20):
        monkeypatch.setattr(server.aggregation.block, "CHUNK_BYTES", width)
        wanted = RuleSettings(router=router)
        found.add(tensors_sha256(aggregate(base, specs, tmp_path, listed, RULES[rule], wanted, reference)))
    assert len(found) == 1 and tensors_sha256(base) not in found


def test_other_float_dtypes_of_the_base_are_kept(tmp_path: Path) -> None:
    base: dict[str, Any] = toy_model()
    base["projection.weight"] = base["projection.weight"].astype(np.float64)
    base["moe.router.weight"] = base["moe.router.weight"].astype(np.float16)
    after = combine(tmp_path, sent(ALL), "weighted-mean", base=base)
    assert specs_of(after) == specs_of(base)


def test_big_endian_and_fortran_arrays_are_spooled_as_their_values(tmp_path: Path) -> None:
    contributions = sent(ALL[:2])
    plain = combine(tmp_path / "plain", contributions, "weighted-mean")
    odd = [
        (c, {n: np.asarray(v.astype(">f4"), order="F") for n, v in update.items()}) for c, update in contributions
    ]
    assert tensors_sha256(combine(tmp_path / "odd", odd, "weighted-mean")) == tensors_sha256(plain)


def test_a_spooled_update_that_is_gone_or_torn_is_named(tmp_path: Path) -> None:
    contributions = sent(ALL[:2])
    combine(tmp_path, contributions, "weighted-mean")
    path = spool_path(tmp_path, contributions[0][0].update_id)
    content = path.read_bytes()
    for torn in (content[:-1], content[:100], content[:4], b"", b"\xff" * len(content)):
        path.write_bytes(torn)
        with pytest.raises(DataInvalid, match=path.name):
            aggregate(
                toy_model(), TRAINABLE, tmp_path, [contributions[0][0]], RULES["weighted-mean"], RuleSettings()
            )
    path.unlink()
    with pytest.raises(DataMissing, match=path.name):
        aggregate(toy_model(), TRAINABLE, tmp_path, [contributions[0][0]], RULES["weighted-mean"], RuleSettings())


def test_rule_settings_name_every_fault() -> None:
    with pytest.raises(SettingsError) as caught:
        RuleSettings(0, max_gate_mass=float("nan"), kappa=-1.0, faulty=-1, router="local")  # type: ignore[arg-type]
    assert len(caught.value.faults) == 5


GROWTH = """
import os, resource, sys
from pathlib import Path
import numpy as np
import server.aggregation.block
from mcoe_model.router_statistics import RouterStatistics
from mcoe_model.update import TensorSpec
from server.aggregation import RULES, aggregate
from server.aggregation.rule import Contribution, RuleSettings
from server.spool import open_update, write_update

os.fsync = lambda descriptor: None  # durability is not the subject here, time is
folder, clients = Path(sys.argv[1]), 100
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
server.aggregation.block.CHUNK_BYTES = 1 << 20
size = 500_000
listed = []
for client in range(clients):
    write_update(folder, f"{client:032x}", {"projection.weight": np.full(size, client, np.float32)})
    listed.append(Contribution(f"{client:032x}", str(client), 10, RouterStatistics.none(0, 2)))
base = {"projection.weight": np.zeros(size, np.float32)}
spec = {"projection.weight": TensorSpec((size,), "float32")}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_update(folder, "reference", {"projection.weight": np.full(size, 49.5, np.float32)})
reference = open_update(folder, "reference")
for rule in RULES.values():
    after = aggregate(base, spec, folder, listed, rule, RuleSettings(), reference)
    assert np.allclose(after["projection.weight"], 49.5, atol=1.5, rtol=0), rule.name  # krum: four updates tie
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_neither_memory_nor_open_files_grow_with_the_cohort(tmp_path: Path) -> None:
    """100 updates of 2 MB, at most 64 open files: less memory than a quarter of the updates take."""
    done = subprocess.run([sys.executable, "-c", GROWTH, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50
