"""Differential privacy: what one client can move, the noise on it, what that costs, and which settings break it."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_fleet import EXPERTS, expectation, honest_reply, toy_model
from toy_updates import TRAINABLE, flat, sent

import server.aggregation.block
from mcoe_model.errors import MissingExtra, RoundFailed, SettingsError
from mcoe_model.model_file import Tensors, tensors_sha256
from mcoe_model.protocol import TrainReport, TrainTask
from mcoe_model.streams import stream
from mcoe_model.update import TensorSpec
from server.acceptance import Accepted, judge
from server.aggregation import aggregate
from server.aggregation.private_mean import PrivateMean, PrivateMeanSettings, noise_key
from server.aggregation.rule import Contribution, RuleSettings
from server.privacy_accounting import assumption_faults, epsilon, epsilon_table, rounds_left, withheld
from server.registry.tables import Base
from server.spool import write_update

ALL = tuple(range(EXPERTS))
KEY = noise_key(b"sixteen bytes ok", "toy", 1)
SILENT = 1e-13  # a noise multiplier whose noise is far below what the tests compare
DOCS = Path(__file__).parents[2] / "docs" / "privacy.md"


def publish(
    folder: Path,
    updates: list[Tensors],
    private: PrivateMeanSettings,
    *,
    key: bytes = KEY,
    base: Tensors | None = None,
    order: list[int] | None = None,
    settings: RuleSettings | None = None,
) -> Tensors:
    """What the round adds to a base of zeros, in float64, unless another base is given."""
    listed = [contribution for contribution, _ in sent([ALL] * len(updates))]
    for contribution, update in zip(listed, updates, strict=True):
        write_update(folder, contribution.update_id, update)
    specs = {name: TensorSpec(value.shape, "float32") for name, value in updates[0].items()}
    zeros: Tensors = {name: np.zeros(spec.shape, np.float64) for name, spec in specs.items()}
    chosen: list[Contribution] = [listed[index] for index in order or range(len(listed))]
    return aggregate(base or zeros, specs, folder, chosen, PrivateMean(private, key), settings or RuleSettings())


def norm_of(update: Tensors) -> float:
    """Euclidean norm over all tensors."""
    return float(np.linalg.norm(flat(update, sorted(update))))


def wide(clients: int) -> list[Tensors]:
    """Updates of several thousand columns, of very different size."""
    shapes: Mapping[str, tuple[int, ...]] = {"a.weight": (37, 41), "b.weight": (3000,), "z.bias": ()}
    shapes = {**shapes, **{f"moe.experts.{expert}.weight": (2500,) for expert in range(2)}}
    found = []
    for index in range(clients):
        random = stream("wide", index)
        size = 10.0 ** random.integers(-3, 4)
        found.append({n: np.asarray(size * random.normal(size=s), np.float32) for n, s in shapes.items()})
    return found


def test_one_clip_over_shared_tensors_and_experts_together(tmp_path: Path) -> None:
    long: Tensors = {"a": np.array([3, 0], np.float32), "moe.experts.0.w": np.array([[0, 4]], np.float32)}  # norm 5
    short: Tensors = {"a": np.array([0, 1], np.float32), "moe.experts.0.w": np.array([[2, 0]], np.float32)}
    after = publish(tmp_path, [long, short], PrivateMeanSettings(2.5, SILENT, 2))
    np.testing.assert_allclose(after["a"], [(3 / 2 + 0) / 2, (0 + 1) / 2], rtol=0, atol=1e-11)
    np.testing.assert_allclose(after["moe.experts.0.w"], [[(0 + 2) / 2, (4 / 2 + 0) / 2]], rtol=0, atol=1e-11)


def test_no_client_moves_the_sum_by_more_than_the_clip(tmp_path: Path) -> None:
    updates = wide(6)
    private = PrivateMeanSettings(0.75, SILENT, 5)
    for index, update in enumerate(updates):
        alone = publish(tmp_path / str(index), [update], private)
        moved = 5 * norm_of(alone)
        assert moved == pytest.approx(min(0.75, norm_of(update)), rel=1e-6)


def test_the_denominator_is_fixed_and_weights_are_uniform(tmp_path: Path) -> None:
    updates = [update for _, update in sent([ALL] * 3, examples=[1, 500, 1000])]
    private = PrivateMeanSettings(1e6, SILENT, 10)
    for count in (1, 3):
        after = publish(tmp_path / str(count), updates[:count], private)
        for name in TRAINABLE:
            total = sum(update[name].astype(np.float64) for update in updates[:count])
            np.testing.assert_allclose(after[name], total / 10, atol=1e-6)


def test_the_noise_has_the_stated_deviation_on_every_block(tmp_path: Path) -> None:
    names = ("a.weight", "moe.experts.0.weight", "moe.experts.1.weight")
    nothing: Tensors = {name: np.zeros(100_000, np.float32) for name in names}
    private = PrivateMeanSettings(clip=2.0, noise_multiplier=1.5, denominator=5)
    assert private.noise == pytest.approx(0.6)
    after = publish(tmp_path, [nothing] * 2, private)
    for name in names:
        assert after[name].std() == pytest.approx(0.6, rel=0.02)
        assert abs(after[name].mean()) < 6 * 0.6 / math.sqrt(100_000)
        assert np.mean(np.abs(after[name]) < 0.6) == pytest.approx(0.6827, abs=0.01)
    assert np.abs(np.corrcoef([after[name] for name in names]) - np.eye(3)).max() < 0.02


def test_the_noise_hides_updates_as_much_whatever_they_are(tmp_path: Path) -> None:
    private = PrivateMeanSettings(1.0, 2.0, 4)
    for index, updates in enumerate((wide(1), wide(4))):
        noisy = publish(tmp_path / f"{index} noisy", updates, private)
        silent = publish(tmp_path / f"{index} silent", updates, PrivateMeanSettings(1.0, SILENT, 4))
        noise = np.concatenate([(noisy[name] - silent[name]).reshape(-1) for name in noisy])
        assert noise.std() == pytest.approx(0.5, rel=0.05)


def test_the_same_key_gives_the_same_bits_and_another_others(tmp_path: Path) -> None:
    secret, private = b"0123456789abcdef", PrivateMeanSettings(1.0, 1.0, 4)
    keys = [noise_key(secret, "fleet", 1, 1), noise_key(secret, "fleet", 2, 1), noise_key(secret, "fleet", 1, 2)]
    keys.append(noise_key(b"0123456789abcdeF", "fleet", 1, 1))
    found = [tensors_sha256(publish(tmp_path, wide(3), private, key=key)) for key in keys]
    assert len(set(found)) == len(keys)
    assert tensors_sha256(publish(tmp_path, wide(3), private, key=noise_key(secret, "fleet", 1, 1))) == found[0]


@pytest.mark.parametrize("change", ["a client is missing", "a client sent another update"])
def test_a_round_repeated_with_other_updates_shows_none_of_them_by_its_difference(change: str, tmp_path: Path) -> None:
    before = wide(3)
    after = before[:2] if change == "a client is missing" else [*before[:2], {n: -2 * v for n, v in before[2].items()}]
    private = PrivateMeanSettings(1.0, 1.0, 4)
    both = [publish(tmp_path / name, updates, private) for name, updates in (("1", before), ("2", after))]
    difference = np.concatenate([(both[0][name] - both[1][name]).reshape(-1) for name in both[0]])
    assert difference.std() == pytest.approx(math.sqrt(2) * private.noise, rel=0.05)


def test_neither_the_width_of_chunks_nor_the_order_changes_a_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = set()
    for width in (1, 80_000, 130_000, 32 << 20):
        monkeypatch.setattr(server.aggregation.block, "CHUNK_BYTES", width)
        for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
            after = publish(tmp_path, wide(5), PrivateMeanSettings(1.0, 1.0, 5), order=order)
            found.add(tensors_sha256(after))
    assert len(found) == 1


def test_the_next_model_has_the_bases_dtypes_and_leaves_the_base_alone(tmp_path: Path) -> None:
    base = toy_model()
    before = tensors_sha256(base)
    after = publish(tmp_path, [sent([ALL])[0][1]], PrivateMeanSettings(1.0, 1.0, 1), base=base)
    assert tensors_sha256(base) == before
    assert {name: value.dtype for name, value in after.items()} == {name: value.dtype for name, value in base.items()}
    assert {name for name in base if after[name].tobytes() != base[name].tobytes()} == set(TRAINABLE)


def test_a_kept_router_keeps_its_bits_and_does_not_count_for_the_clip(tmp_path: Path) -> None:
    update = {name: np.zeros(spec.shape, np.float32) for name, spec in TRAINABLE.items()}
    update["projection.weight"] = np.ones_like(update["projection.weight"])
    update["moe.router.weight"] = 1e3 * np.ones_like(update["moe.router.weight"])
    private = PrivateMeanSettings(100.0, SILENT, 1)
    after = publish(tmp_path, [update], private, settings=RuleSettings(router="kept"))
    assert not after["moe.router.weight"].any()
    np.testing.assert_allclose(after["projection.weight"], 1.0, atol=1e-9)


def test_an_update_without_an_expert_is_not_aggregated(tmp_path: Path) -> None:
    contributions = sent([ALL, (0, 2)])
    for contribution, update in contributions:
        write_update(tmp_path, contribution.update_id, update)
    listed = [contribution for contribution, _ in contributions]
    rule = PrivateMean(PrivateMeanSettings(1.0, 1.0, 2), KEY)
    with pytest.raises(RoundFailed, match=r"private-mean needs every expert in every update, .* lacks 2 of them"):
        aggregate(toy_model(), TRAINABLE, tmp_path, listed, rule, RuleSettings())


def test_a_damped_router_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot damp the router"):
        publish(tmp_path, wide(2), PrivateMeanSettings(1.0, 1.0, 2), settings=RuleSettings(router="damped"))


def test_a_large_honest_update_is_clipped_and_not_rejected(tmp_path: Path) -> None:
    expected = expectation(norm_bound=None)
    reply = honest_reply(expected, "a", experts=ALL, scale=1e6)
    assert isinstance(judge(reply, expected), Accepted)
    after = publish(tmp_path, [reply.update], PrivateMeanSettings(1.0, SILENT, 1))
    assert norm_of(after) == pytest.approx(1.0, rel=1e-6)
    direction = flat(reply.update, TRAINABLE) / norm_of(reply.update)
    np.testing.assert_allclose(flat(after, TRAINABLE), direction, atol=1e-9)


def test_wrong_settings_are_reported_together_and_short_secrets_refused() -> None:
    with pytest.raises(SettingsError) as caught:
        PrivateMeanSettings(clip=0.0, noise_multiplier=math.inf, denominator=0)
    assert len(caught.value.faults) == 3
    with pytest.raises(SettingsError, match="16 random bytes, not 15"):
        noise_key(b"x" * 15, "fleet", 1)
    with pytest.raises(SettingsError, match="16 bytes, not 1"):
        PrivateMean(PrivateMeanSettings(1.0, 1.0, 1), b"0")


def test_a_printed_rule_does_not_show_its_key() -> None:
    assert repr(KEY) not in repr(PrivateMean(PrivateMeanSettings(1.0, 1.0, 1), KEY))


@pytest.mark.parametrize("noise_multiplier", [0.7, 1.0, 5.0])
def test_epsilon_is_that_of_the_composed_event_and_grows_with_rounds(noise_multiplier: float) -> None:
    grown = [epsilon(noise_multiplier, rounds, 1e-5) for rounds in (0, 1, 2, 10, 100)]
    assert grown[0] == 0.0 and grown == sorted(set(grown))
    from dp_accounting import GaussianDpEvent, SelfComposedDpEvent  # SciPy: seconds, for whoever only collects tests
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant()
    accountant.compose(SelfComposedDpEvent(GaussianDpEvent(noise_multiplier), 10))
    assert grown[3] == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-12)
    assert epsilon(noise_multiplier, 10, 1e-7) > grown[3] > epsilon(2 * noise_multiplier, 10, 1e-5)


def normal_cdf(value: float) -> float:
    return math.erfc(-value / math.sqrt(2)) / 2


def test_epsilon_is_above_the_exact_one_of_the_gaussian_mechanism_and_not_far() -> None:
    """Balle and Wang 2018, theorem 8: the delta of a Gaussian mechanism at an epsilon."""

    def delta(noise: float, at: float) -> float:
        half = 1 / (2 * noise)
        return normal_cdf(half - at * noise) - math.exp(at) * normal_cdf(-half - at * noise)

    for rounds in (1, 16):
        spent, noise = epsilon(4.0, rounds, 1e-5), 4.0 / math.sqrt(rounds)  # rounds compose to one with less noise
        assert delta(noise, spent) <= 1e-5 < delta(noise, 0.8 * spent)


@pytest.mark.parametrize(("noise_multiplier", "cap"), [(1.0, 8.0), (4.0, 8.0), (8.0, 2.0)])
def test_rounds_left_is_the_last_round_below_the_cap(noise_multiplier: float, cap: float) -> None:
    rounds = rounds_left(noise_multiplier, cap, 1e-5)
    assert rounds >= 1
    assert epsilon(noise_multiplier, rounds, 1e-5) <= cap < epsilon(noise_multiplier, rounds + 1, 1e-5)


def test_no_round_is_left_when_the_first_would_be_above_the_cap() -> None:
    assert rounds_left(0.5, 1.0, 1e-5) == 0


@pytest.mark.parametrize("wrong", [(0.0, 1, 1e-5), (1.0, -1, 1e-5), (1.0, 1, 0.0), (1.0, 1, 1.0), (math.nan, 1, 1e-5)])
def test_epsilon_of_nonsense_is_refused(wrong: tuple[float, int, float]) -> None:
    with pytest.raises(SettingsError):
        epsilon(*wrong)


@pytest.mark.parametrize("cap", [0.0, math.inf, math.nan])
def test_a_cap_that_caps_nothing_is_refused(cap: float) -> None:
    with pytest.raises(SettingsError, match="epsilon cap"):
        rounds_left(1.0, cap, 1e-5)


def test_the_server_does_without_dp_accounting_until_it_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = "import sys, server.privacy_accounting; sys.exit('dp_accounting' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mcoe\[server\]'"):
        epsilon(1.0, 1, 1e-5)


FAITHFUL: dict[str, Any] = {
    "rule": "private-mean",
    "router": "averaged",
    "all_experts_sent": True,
    "norm_bound_learned": False,
    "router_statistics_released": False,
    "losses_released": False,
    "first_k": False,
    "delta": 1e-5,
    "clients": 100,
}
BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"rule": "expert-weighted-mean"}, "gate mass"),
    ({"rule": "fltrust"}, "the server's own update"),
    ({"rule": "median"}, "rule must be private-mean"),
    ({"router": "damped"}, "damped"),
    ({"all_experts_sent": False}, "all experts"),
    ({"norm_bound_learned": True}, "norm bound"),
    ({"router_statistics_released": True}, "router statistics"),
    ({"losses_released": True}, "losses"),
    ({"first_k": True}, "first K"),
    ({"delta": 0.01}, "delta"),
    ({"delta": 0.0}, "delta"),
    ({"clients": 0}, "clients must be at least 1"),
]


def test_settings_that_keep_every_assumption_have_no_fault() -> None:
    assert assumption_faults(**FAITHFUL) == []
    assert assumption_faults(**FAITHFUL | {"router": "kept"}) == []


@pytest.mark.parametrize(("change", "says"), BROKEN)
def test_every_broken_assumption_is_named(change: dict[str, Any], says: str) -> None:
    (fault,) = assumption_faults(**FAITHFUL | change)
    assert says in fault


def test_all_broken_assumptions_are_named_together() -> None:
    changes = {name: value for change, _ in BROKEN[1:10] for name, value in change.items()}
    assert len(assumption_faults(**FAITHFUL | changes)) == 8


def test_what_is_withheld_exists_and_nothing_that_a_client_reports_is_left_out() -> None:
    columns = {f"{table.name}.{column.name}" for table in Base.metadata.tables.values() for column in table.columns}
    existing = columns | set(Base.metadata.tables) | {f"TrainTask.{field.name}" for field in fields(TrainTask)}
    assert withheld().keys() <= existing
    reported = {field.name for field in fields(TrainReport)} - {"router"}
    assert {f"replies.{name}" for name in reported} | {"router_statistics"} <= withheld().keys()


def test_the_page_shows_the_table_that_its_command_prints() -> None:
    page = DOCS.read_text()
    assert epsilon_table((1, 2, 4, 8), (1, 10, 30, 100, 300, 1000), 1e-5) in page
