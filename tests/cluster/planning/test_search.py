from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cluster.mesh.sync_type import SyncType
from cluster.planning.explain import verdict, why_left_out
from cluster.planning.links import LinkPoint, LinkSpeed, Network
from cluster.planning.predict import PlanNode, Predictor
from cluster.planning.search import MIN_GAIN, Plan, Search, choose, with_everyone
from cluster.planning.work import ModelWork
from dllama.qtypes import QType
from tests.cluster.planning.clusters import GB, SLOW, llama_1b, node, predictor, work_of

FAST = LinkSpeed.rated(20, 10.0)


def plans_of(*args: object, **more: object) -> list[Plan]:
    return Search(predictor(*args, **more)).plans()  # type: ignore[arg-type]


def test_equal_nodes_get_equal_shares() -> None:
    chosen = choose(plans_of([node("a"), node("b")], FAST))
    assert chosen is not None and chosen.nodes == (0, 1)
    assert chosen.shares[0] == pytest.approx(0.5, abs=0.02)


def test_of_many_nodes_no_more_are_tried_than_may_help() -> None:
    plans = plans_of([node(f"n{i}") for i in range(24)])
    sizes = {len(plan.nodes) for plan in plans}
    chosen = choose(plans)
    assert chosen is not None
    n = len(chosen.nodes)
    assert sizes == {*range(1, max(sizes - {24}) + 1), 24} and 2 * n in sizes
    assert max(sizes - {24}) <= 2 * n + 2
    everyone = with_everyone(plans)
    assert everyone is not None and len(everyone.nodes) == 24


@pytest.mark.parametrize(("fast", "slow"), [(30.0, 10.0), (40.0, 20.0), (12.0, 36.0)])
def test_uneven_nodes_get_uneven_shares_that_beat_equal_ones(fast: float, slow: float) -> None:
    plans = plans_of([node("a", fast), node("b", slow)], FAST)
    best = next(p for p in plans if p.nodes == (0, 1) and not p.is_equal)
    equal = next(p for p in plans if p.is_equal)
    assert best.request_s < 0.9 * equal.request_s
    assert best.shares[0] == pytest.approx(fast / (fast + slow), abs=0.1)


def test_no_move_of_a_share_makes_a_plan_faster() -> None:
    found = predictor([node("a", 30), node("b", 17), node("c", 9)], FAST)
    search = Search(found)
    best = search.best((0, 1, 2))
    assert best is not None
    for giver in range(3):
        for taker in range(3):
            shares = list(best.shares)
            shares[giver] -= 0.05
            shares[taker] += 0.05
            other = search.plan((0, 1, 2), shares)
            assert other is not None and other.request_s >= 0.995 * best.request_s


def test_a_node_that_slows_the_others_down_is_left_out_and_told_why() -> None:
    nodes = [node("a"), node("b"), node("crawls", 0.4)]
    plans = plans_of(nodes, FAST)
    chosen = choose(plans)
    assert chosen is not None and chosen.nodes == (0, 1)
    reason = why_left_out(plans, chosen, 2, nodes)
    assert "slow the answers down" in reason and "--use-all" in reason
    everyone = with_everyone(plans)
    assert everyone is not None and everyone.nodes == (0, 1, 2)


def test_two_are_slower_than_one_over_a_slow_network() -> None:
    nodes = [node("a"), node("b")]
    plans = plans_of(nodes, SLOW)
    chosen = choose(plans)
    assert chosen is not None and chosen.nodes == (0,)
    said = verdict(work_of(), plans, chosen, nodes)
    assert said.startswith("32 synchronisations of 1.7 ms take 56 ms a token")
    assert said.endswith("two are slower than one here.")


def test_a_prompt_over_a_narrow_link_is_what_costs() -> None:
    """Decoding would be faster with both nodes: it is bound by latency, a prompt by bandwidth."""
    nodes = [node("a", read=8), node("b", read=8)]
    narrow = LinkSpeed([LinkPoint(8192, 100.0, 100.0), LinkPoint(1 << 20, 200e3, 200e3)])
    plans = plans_of(nodes, narrow)
    chosen = choose(plans)
    assert chosen is not None and chosen.nodes == (0,)
    both = next(p for p in plans if len(p.nodes) == 2)
    assert both.prediction.decode_per_s > 1.5 * chosen.prediction.decode_per_s
    said, reason = verdict(work_of(), plans, chosen, nodes), why_left_out(plans, chosen, 1, nodes)
    network_s, alone_s = both.prediction.prompt.network, chosen.prediction.prompt.total
    assert said.startswith(f"A prompt of 512 tokens takes {network_s:.1f} s of network, and two")
    assert f"since a prompt takes {network_s:.1f} s of network alone, and {alone_s:.1f} s" in reason


def test_a_link_of_unknown_bandwidth_brings_no_node() -> None:
    """At 100 Mbit/s one of two is chosen, also where one short exchange is all that is known."""
    nodes = [node("a", 13), node("b", 13)]
    sizes = (2 << 10, 8 << 10, 64 << 10, 256 << 10, 1 << 20)
    whole = LinkSpeed([LinkPoint(n, 200 + 0.08 * n, 900.0) for n in sizes])
    for link in (whole, LinkSpeed(whole.points[:1])):
        chosen = choose(plans_of(nodes, link))
        assert chosen is not None and chosen.nodes == (0,)


def test_memory_needs_a_node_that_slows_down() -> None:
    nodes = [node("a", free_gb=1.0), node("b", free_gb=4)]
    plans = plans_of(nodes, SLOW)
    chosen = choose(plans)
    assert chosen is not None and chosen.nodes == (0, 1)
    for position, n_bytes in enumerate(chosen.needed_bytes):
        assert n_bytes <= nodes[position].free_bytes
    assert "one node has not the memory: a would need" in verdict(work_of(), plans, chosen, nodes)


def test_shares_follow_memory_where_the_fast_node_is_small() -> None:
    nodes = [node("fast", 40, free_gb=0.63), node("slow", 20, free_gb=8)]
    best = choose(plans_of(nodes, FAST))
    assert best is not None and best.nodes == (0, 1)
    assert best.needed_bytes[0] <= 0.63 * GB
    assert best.shares[0] < 0.55  # by speed alone it had two thirds


def small_third() -> tuple[list[PlanNode], ModelWork]:
    """Three nodes of which the last one is small: its peak is a tensor that arrives."""
    nodes = [node("a", free_gb=0.84), node("b", free_gb=0.84), node("c", 5, free_gb=0.172)]
    return nodes, work_of()


def cut_blocks() -> tuple[list[PlanNode], ModelWork]:
    """A mixture on eight nodes, of which two keep the scales of blocks on both sides of a cut."""
    config = llama_1b(
        arch="qwen3moe", hidden_dim=768, n_experts=64, n_active_experts=8, is_tied=False
    )
    nodes = [node(str(i), free_gb=660e6 / GB) for i in range(8)]
    return nodes, work_of(config, QType.Q4_K)


@pytest.mark.parametrize("case", [small_third, cut_blocks])
def test_shares_that_only_seem_to_fit_are_searched_again(
    case: Callable[[], tuple[list[PlanNode], ModelWork]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is estimated while shares are searched, and known of what was found."""
    nodes, work = case()
    everyone = tuple(range(len(nodes)))
    search = Search(predictor(nodes, FAST, work))
    found = search.best(everyone)
    assert found is not None and found.fits
    monkeypatch.setattr("cluster.planning.search.CORRECTIONS", 0)
    first = search.best(everyone)
    assert first is not None and not first.fits
    assert found.request_s < 1.1 * first.request_s


def test_a_node_with_next_to_no_memory_is_in_a_plan_that_does_not_fit() -> None:
    plans = plans_of([node("a"), node("b", free_gb=0.05)], FAST)
    [both] = [p for p in plans if p.nodes == (0, 1) and not p.is_equal]
    assert not both.fits and both.shares[1] > 0


def test_nothing_fits() -> None:
    nodes = [node("a", free_gb=0.3), node("b", free_gb=0.3)]
    plans = plans_of(nodes)
    assert choose(plans) is None and with_everyone(plans) is None
    assert verdict(work_of(), plans, None, nodes).startswith(
        "The nodes have not the memory: a would need"
    )


def test_nodes_of_one_machine_share_its_memory() -> None:
    nodes = [replace(node(name, free_gb=0.9), machine="one") for name in "ab"]
    apart = plans_of([node(name, free_gb=0.9) for name in "ab"])
    together = plans_of(nodes)
    assert [p.fits for p in apart if p.nodes == (0, 1)] == [True, True]
    assert not any(p.fits for p in together if p.nodes == (0, 1))


def test_nodes_with_other_links_between_them_are_not_alike() -> None:
    """1 and 2 are alike, and 3 is not: it has no slow link."""
    nodes = [node(str(i)) for i in range(4)]
    slow = LinkSpeed.rated(1000, 0.01)
    network = Network({(1, 2): slow}, FAST)
    plans = Search(Predictor(work_of(), nodes, network, SyncType.EXACT)).plans()
    tried = [p.nodes for p in plans if not p.is_equal]
    assert tried == [(0,), (0, 1), (0, 3), (0, 1, 2), (0, 1, 3), (0, 1, 2, 3)]
    chosen = choose(plans)
    assert chosen is not None and chosen.nodes == (0, 1, 3)


def test_nodes_of_one_machine_are_like_no_others() -> None:
    """Two of them have less memory than one there and one elsewhere."""
    pair = [replace(node(name, free_gb=0.45), machine="one") for name in "ab"]
    nodes = [node("root", free_gb=0.8), *pair, node("c", free_gb=0.45)]
    plans = Search(predictor(nodes, FAST)).plans()
    fitting = {p.nodes for p in plans if p.fits and not p.is_equal}
    assert (0, 1, 2) not in fitting and {(0, 1, 3), (0, 2, 3)} <= fitting


def test_equal_nodes_are_tried_once() -> None:
    plans = plans_of([node(str(i)) for i in range(6)], FAST)
    assert [len(p.nodes) for p in plans if not p.is_equal] == [1, 2, 3, 4, 5, 6]


def test_a_gain_that_is_noise_takes_no_node_more() -> None:
    plans = plans_of([node("a"), node("b", 1.0)], FAST)
    alone = next(p for p in plans if p.nodes == (0,))
    chosen = choose(plans)
    assert chosen is alone
    assert min(p.request_s for p in plans) > alone.request_s / (1 + 2 * MIN_GAIN)


def test_many_nodes_are_searched_by_speed() -> None:
    nodes = [node("root")] + [node(f"w{i}", 30 - 4 * i) for i in range(7)]
    search = Search(predictor(nodes, FAST, work_of(llama_1b(n_layers=4))))
    found = {p.nodes for p in search.plans() if not p.is_equal}
    assert (0,) in found and tuple(range(8)) in found and (0, 1, 2) in found
    assert len(found) == 8


def test_a_model_that_cannot_be_cut_for_many_nodes() -> None:
    small = llama_1b(dim=64, hidden_dim=96, n_heads=2, n_kv_heads=2, head_dim=32, n_layers=2,
                     vocab_size=64)  # fmt: skip
    nodes = [node(str(i)) for i in range(5)]
    plans = plans_of(nodes, FAST, work_of(small))
    assert plans and max(len(p.nodes) for p in plans) == 3  # three units of hidden columns
