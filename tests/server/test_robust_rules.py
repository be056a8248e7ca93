"""Rules that withstand hostile clients, against the papers' formulas written out here as loops over clients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_fleet import EXPERTS, toy_model
from toy_updates import SHARED, TRAINABLE, Sent, combine, flat, mean_update, sent, stepped

from mcoe_model.errors import RoundFailed, SettingsError
from mcoe_model.model_file import Tensors, tensors_sha256
from mcoe_model.router_statistics import RouterStatistics
from server.aggregation import RULES, aggregate
from server.aggregation.rule import RuleSettings
from server.spool import write_update

ROBUST = ("median", "trimmed-mean", "krum", "multi-krum", "fltrust")
ALL = (0, 1, 2, 3)
EXPERT_1 = "moe.experts.1.weight"
ROUTER = "moe.router.weight"


def by_id(contributions: Sent) -> Sent:
    """In update-id order, which is the one that rules see."""
    return sorted(contributions, key=lambda entry: entry[0].update_id)


def common_and_own(contributions: Sent, own: float = 0.3) -> Sent:
    """Honest clients mostly agree: what all have in common, and a part of their own."""
    common = sent((ALL,))[0][1]
    return [
        (contribution, {name: common[name] + np.float32(own) * update[name] for name in update})
        for contribution, update in contributions
    ]


def krum_order(contributions: Sent, faulty: int) -> list[int]:
    """Clients (in update-id order) by Krum's score, the best first, in plain loops."""
    rows = [flat(update) for _, update in by_id(contributions)]
    scores = []
    for i, row in enumerate(rows):
        distances = sorted(float(((row - other) ** 2).sum()) for j, other in enumerate(rows) if j != i)
        scores.append(sum(distances[: len(rows) - faulty - 2]))
    return sorted(range(len(rows)), key=lambda index: scores[index])


def cut(update: Tensors, senders: list[Tensors], expert: int) -> Any:
    """An expert's delta, no longer than the median over its senders."""
    name = f"moe.experts.{expert}.weight"
    bound = np.median([np.linalg.norm(flat(sender, [name])) for sender in senders])
    delta = update[name].astype(np.float64)
    return delta * min(1.0, bound / np.linalg.norm(delta))


@pytest.mark.parametrize("clients", [3, 5, 8, 51])
@pytest.mark.parametrize("faulty", [0, 1, 2, 3])
def test_trimmed_mean_drops_f_on_each_side(clients: int, faulty: int, tmp_path: Path) -> None:
    contributions = sent((ALL,) * clients)
    if clients < 2 * faulty + 1:
        with pytest.raises(RoundFailed, match=f"needs {2 * faulty + 1} updates, not {clients}"):
            combine(tmp_path, contributions, "trimmed-mean", RuleSettings(faulty=faulty))
        return
    after = combine(tmp_path, contributions, "trimmed-mean", RuleSettings(faulty=faulty))
    for name in TRAINABLE:
        columns = np.stack([update[name].astype(np.float64).reshape(-1) for _, update in contributions]).T
        kept = [sorted(column)[faulty : clients - faulty] for column in columns]
        delta = np.array([sum(values) / len(values) for values in kept]).reshape(TRAINABLE[name].shape)
        np.testing.assert_allclose(after[name], stepped(name, delta), rtol=1e-6)


@pytest.mark.parametrize("clients", [3, 10, 50, 200])
def test_median_has_the_bits_of_numpys(clients: int, tmp_path: Path) -> None:
    contributions = sent((ALL,) * clients)
    after = combine(tmp_path, contributions, "median")
    for name in TRAINABLE:
        delta = np.median(np.stack([update[name] for _, update in contributions]).astype(np.float64), axis=0)
        assert after[name].tobytes() == stepped(name, delta).tobytes()


@pytest.mark.parametrize(("clients", "faulty"), [(3, 0), (5, 1), (9, 2), (12, 1)])
def test_krum_follows_the_update_nearest_to_its_neighbours(clients: int, faulty: int, tmp_path: Path) -> None:
    contributions = sent((ALL,) * clients)
    ordered = by_id(contributions)
    _, chosen = ordered[krum_order(contributions, faulty)[0]]
    after = combine(tmp_path, contributions, "krum", RuleSettings(faulty=faulty))
    for name in SHARED:
        np.testing.assert_allclose(after[name], stepped(name, chosen[name].astype(np.float64)), rtol=1e-6)
    for expert in range(EXPERTS):
        name = f"moe.experts.{expert}.weight"
        expected = stepped(name, cut(chosen, [update for _, update in ordered], expert))
        np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("clients", "faulty"), [(3, 0), (5, 1), (9, 2), (12, 1)])
def test_multi_krum_is_the_mean_of_the_best_k_minus_f_minus_2(clients: int, faulty: int, tmp_path: Path) -> None:
    contributions = sent((ALL,) * clients, examples=[10 * (1 + index) for index in range(clients)])
    ordered = by_id(contributions)
    chosen = [ordered[index][1] for index in krum_order(contributions, faulty)[: clients - faulty - 2]]
    after = combine(tmp_path, contributions, "multi-krum", RuleSettings(faulty=faulty))
    for name in SHARED:
        delta = sum(update[name].astype(np.float64) for update in chosen) / len(chosen)
        np.testing.assert_allclose(after[name], stepped(name, delta), rtol=1e-5, atol=1e-6)
    senders = [update for _, update in ordered]
    delta = sum(cut(update, senders, 1) for update in chosen) / len(chosen)
    np.testing.assert_allclose(after[EXPERT_1], stepped(EXPERT_1, delta), rtol=1e-5, atol=1e-6)


def test_krum_lets_the_chosen_decide_for_the_experts(tmp_path: Path) -> None:
    """An expert that the chosen client did not send keeps its value, whoever else sent it."""
    contributions = sent((ALL,) * 6)
    _, update = by_id(contributions)[krum_order(contributions, 1)[0]]
    del update[EXPERT_1]
    after = combine(tmp_path, contributions, "krum")
    np.testing.assert_array_equal(after[EXPERT_1], toy_model()[EXPERT_1])
    assert (after["moe.experts.0.weight"] != toy_model()["moe.experts.0.weight"]).any()


def test_krum_bounds_a_huge_expert_of_a_client_that_is_honest_otherwise(tmp_path: Path) -> None:
    contributions = sent((ALL,) * 6)
    _, update = by_id(contributions)[krum_order(contributions, 1)[0]]
    update[EXPERT_1] *= np.float32(1e6)
    after = combine(tmp_path, contributions, "krum")
    longest = max(np.linalg.norm(flat(other, [EXPERT_1])) for _, other in contributions if other is not update)
    assert np.linalg.norm(after[EXPERT_1] - toy_model()[EXPERT_1]) <= longest * 1.001


@pytest.mark.parametrize("clients", [7, 51])
@pytest.mark.parametrize("rule", ["krum", "multi-krum"])
def test_among_equal_updates_krum_takes_the_first_ids(rule: str, clients: int, tmp_path: Path) -> None:
    """Equal on what everybody sent, told apart by an expert alone; many products of equal rows differ by rounding."""
    contributions = by_id(sent((ALL,) * clients))
    for _, update in contributions[1:]:
        update |= {name: contributions[0][1][name] for name in SHARED}
    unit = [update[EXPERT_1] / np.linalg.norm(update[EXPERT_1]) for _, update in contributions]
    for (_, update), direction in zip(contributions, unit, strict=True):
        update[EXPERT_1] = direction
    taken = 1 if rule == "krum" else clients - 3
    after = combine(tmp_path, contributions[::-1], rule)
    delta = sum(direction.astype(np.float64) for direction in unit[:taken]) / taken
    np.testing.assert_allclose(after[EXPERT_1], stepped(EXPERT_1, delta), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", ["krum", "multi-krum"])
def test_krum_with_fewer_than_2f_plus_3_updates_says_what_it_needs(rule: str, tmp_path: Path) -> None:
    assert RULES[rule].least(RuleSettings(faulty=2)) == 7
    with pytest.raises(RoundFailed, match=f"{rule} against 2 hostile clients needs 7 updates, not 6"):
        combine(tmp_path, sent((ALL,) * 6), rule, RuleSettings(faulty=2))


def test_fltrust_is_the_papers_formula(tmp_path: Path) -> None:
    contributions = common_and_own(sent(((0, 1), (0, 1), (0, 2), (0,), (0, 1))), own=1.0)
    contributions[1] = (contributions[1][0], {name: -value for name, value in contributions[1][1].items()})
    server_side = sent([(0, 1)], examples=[12])[0][1]
    reference = {name: np.float32(0.5) * value for name, value in server_side.items()}
    own = flat(reference)
    trust = []
    for _, update in contributions:
        row = flat(update)
        trust.append(max(0.0, float(row @ own) / float(np.linalg.norm(row) * np.linalg.norm(own))))
    assert trust[1] == 0.0 and sum(value > 0 for value in trust) >= 3
    after = combine(tmp_path, contributions, "fltrust", reference=reference)
    for name in SHARED:
        delta: Any = 0.0
        for weight, (_, update) in zip(trust, contributions, strict=True):
            delta = delta + weight * np.linalg.norm(own) / np.linalg.norm(flat(update)) * update[name].astype(float)
        np.testing.assert_allclose(after[name], stepped(name, delta / sum(trust)), rtol=1e-5, atol=1e-6)
    delta, total = 0.0, 0.0
    for weight, (_, update) in zip(trust, contributions, strict=True):
        if EXPERT_1 in update:
            length = np.linalg.norm(flat(reference, [EXPERT_1])) / np.linalg.norm(flat(update, [EXPERT_1]))
            delta, total = delta + weight * length * update[EXPERT_1].astype(float), total + weight
    np.testing.assert_allclose(after[EXPERT_1], stepped(EXPERT_1, delta / total), rtol=1e-5, atol=1e-6)
    unvouched = "moe.experts.2.weight"
    np.testing.assert_array_equal(after[unvouched], toy_model()[unvouched])


def test_fltrust_without_anybody_to_trust_leaves_the_model_as_it_is(tmp_path: Path) -> None:
    contributions = [(c, {n: np.zeros_like(v) for n, v in update.items()}) for c, update in sent((ALL,) * 3)]
    after = combine(tmp_path, contributions, "fltrust", reference=sent((ALL,))[0][1])
    assert tensors_sha256(after) == tensors_sha256(toy_model())
    still = {name: np.zeros_like(value) for name, value in mean_update(sent((ALL,))).items()}
    after = combine(tmp_path / "still", sent((ALL,) * 3), "fltrust", reference=still)
    assert tensors_sha256(after) == tensors_sha256(toy_model())


def test_fltrust_says_that_it_needs_the_servers_own_update(tmp_path: Path) -> None:
    contributions = sent((ALL,) * 3)
    for contribution, update in contributions:
        write_update(tmp_path, contribution.update_id, update)
    listed = [contribution for contribution, _ in contributions]
    with pytest.raises(SettingsError, match="fltrust needs an update that the server computed"):
        aggregate(toy_model(), TRAINABLE, tmp_path, listed, RULES["fltrust"], RuleSettings())


def scaled(update: Tensors) -> Tensors:
    return {name: np.float32(50) * value for name, value in update.items()}


def huge(update: Tensors) -> Tensors:
    return {name: np.full_like(value, 3e38) for name, value in update.items()}


def flipped(update: Tensors) -> Tensors:
    return {name: np.float32(-10) * value for name, value in update.items()}


@pytest.mark.parametrize("attack", [scaled, huge, flipped])
@pytest.mark.parametrize("rule", [*ROBUST, "weighted-mean"])
def test_f_hostile_clients_move_a_robust_rule_no_further_than_honest_ones_do(
    rule: str, attack: Any, tmp_path: Path
) -> None:
    """Away from the honest mean by at most the honest client that is furthest from it; the mean goes further."""
    honest = common_and_own(sent((ALL,) * 10))
    hostile = [(contribution, attack(update)) for contribution, update in honest[:2]]
    reference = mean_update(honest)
    after = combine(tmp_path, [*hostile, *honest[2:]], rule, RuleSettings(faulty=2), reference=reference)
    for names in (SHARED, *([f"moe.experts.{expert}.weight"] for expert in ALL)):
        moved = flat(after, names) - flat(toy_model(), names)
        middle = flat(reference, names)
        furthest = max(np.linalg.norm(flat(update, names) - middle) for _, update in honest)
        away = np.linalg.norm(moved - middle)
        assert (away > 2 * furthest) if rule == "weighted-mean" else (away <= furthest), names


@pytest.mark.parametrize("rule", ["median", "trimmed-mean", "krum", "multi-krum"])
def test_an_expert_keeps_its_value_below_2f_plus_1_senders_and_when_dead(rule: str, tmp_path: Path) -> None:
    contributions = sent([(0, 1), (0, 1), (0, 1), (0, 1), (0,), (0,), (0,)])
    after = combine(tmp_path, contributions, rule, RuleSettings(faulty=2))
    for expert in (1, 2, 3):
        name = f"moe.experts.{expert}.weight"
        assert after[name].tobytes() == toy_model()[name].tobytes()
    assert (after["moe.experts.0.weight"] != toy_model()["moe.experts.0.weight"]).all()


@settings(max_examples=30)
@given(
    st.permutations(range(9)),
    st.sampled_from(ROBUST),
    st.sampled_from(["averaged", "damped", "kept"]),
)
def test_the_order_of_contributions_changes_no_bit_of_a_robust_rule(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], rule: str, router: Any
) -> None:
    contributions = common_and_own(sent([(0, 1), (0, 2), ALL] * 3))
    contributions[0] = (contributions[0][0], huge(contributions[0][1]))
    wanted = RuleSettings(faulty=2, router=router)
    own = mean_update(contributions[1:])
    expected = combine(tmp_path_factory.mktemp("usual"), contributions, rule, wanted, reference=own)
    permuted = [contributions[index] for index in order]
    found = combine(tmp_path_factory.mktemp("other"), permuted, rule, wanted, reference=own)
    assert tensors_sha256(found) == tensors_sha256(expected)


def routed(contributions: Sent, counts: list[tuple[int, ...]]) -> Sent:
    """The same updates of clients whose clips were routed like this."""
    found = []
    for (contribution, update), count in zip(contributions, counts, strict=True):
        statistics = RouterStatistics(sum(count) // 2, 2, count, tuple(value / 2 for value in count))
        found.append((replace(contribution, router=statistics), update))
    return found


@pytest.mark.parametrize("rule", RULES)
def test_a_kept_router_keeps_its_bits_and_decides_nothing(rule: str, tmp_path: Path) -> None:
    contributions = sent((ALL,) * 5)
    own = mean_update(contributions)
    after = combine(tmp_path / "1", contributions, rule, RuleSettings(router="kept"), reference=own)
    assert after[ROUTER].tobytes() == toy_model()[ROUTER].tobytes()
    for _, update in contributions[1:]:
        update[ROUTER] = np.float32(-1e3) * update[ROUTER]
    other = combine(tmp_path / "2", contributions, rule, RuleSettings(router="kept"), reference=own)
    assert tensors_sha256(other) == tensors_sha256(after)


def test_a_damped_router_moves_as_far_as_a_clients_routing_agrees(tmp_path: Path) -> None:
    counts = [(5, 5, 5, 5), (10, 10, 0, 0), (0, 0, 10, 10)]
    contributions = routed(sent((ALL,) * 3), counts)
    shares = np.array(counts) / 20
    mean = shares.mean(axis=0)
    rho = []
    for share in shares:
        between = (share + mean) / 2
        divergence = sum(
            0.5 * p * np.log2(p / q) for one in (share, mean) for p, q in zip(one, between, strict=True) if p > 0
        )
        rho.append(1 - divergence)
    assert rho[0] == 1.0 and 0.5 < rho[1] < 1.0
    after = combine(tmp_path, contributions, "weighted-mean", RuleSettings(router="damped"))
    delta = sum(r * update[ROUTER].astype(np.float64) for r, (_, update) in zip(rho, contributions, strict=True)) / 3
    np.testing.assert_allclose(after[ROUTER], stepped(ROUTER, delta), rtol=1e-5, atol=1e-6)
    plain = combine(tmp_path, contributions, "weighted-mean")
    for name in set(TRAINABLE) - {ROUTER}:
        np.testing.assert_array_equal(after[name], plain[name])


@pytest.mark.parametrize("rule", RULES)
def test_clients_that_route_alike_damp_nothing(rule: str, tmp_path: Path) -> None:
    contributions = routed(sent((ALL,) * 5), [(4, 8, 2, 6)] * 5)
    averaged = combine(tmp_path, contributions, rule)
    damped = combine(tmp_path, contributions, rule, RuleSettings(router="damped"))
    assert tensors_sha256(damped) == tensors_sha256(averaged)


@pytest.mark.parametrize("rule", ["krum", "multi-krum"])
def test_a_hostile_router_is_seen_when_krum_chooses(rule: str, tmp_path: Path) -> None:
    """The router is a part of what everybody sent, damped or not."""
    contributions = common_and_own(sent((ALL,) * 5))
    for _, update in contributions[:1]:
        update[ROUTER] = np.full_like(update[ROUTER], 1e6)
    for router in ("averaged", "damped"):
        after = combine(tmp_path, contributions, rule, RuleSettings(router=router))  # type: ignore[arg-type]
        assert np.abs(after[ROUTER]).max() < 100
