"""Sentences about plans are true, where few nodes fit and where all were asked for too."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.planning.explain import verdict, why_left_out
from cluster.planning.links import LinkSpeed
from cluster.planning.search import Search, choose, with_everyone
from cluster.planning.work import ModelWork
from dllama.qtypes import QType
from dllama.speeds import TypeSpeed
from tests.cluster.planning.clusters import SLOW, llama_1b, node, predictor, work_of

FAST = LinkSpeed.rated(20, 10.0)


def test_one_node_that_nothing_else_fits_beside() -> None:
    nodes = [node("a"), node("b", free_gb=0.05)]
    plans = Search(predictor(nodes, FAST)).plans()
    chosen = choose(plans)
    assert chosen is not None and chosen.nodes == (0,)
    said = verdict(work_of(), plans, chosen, nodes)
    assert said.startswith("a computes alone, as no plan with more nodes fits the memory: a token")
    assert "nodes are best" not in said and "synchronisations" not in said
    assert why_left_out(plans, chosen, 1, nodes) == "no plan with it fits the memory of its nodes"


def test_one_node_of_a_model_that_cannot_be_cut() -> None:
    work = work_of(llama_1b(n_heads=1, n_kv_heads=1, hidden_dim=32, vocab_size=32))
    nodes = [node("a"), node("b")]
    plans = Search(predictor(nodes, FAST, work)).plans()
    chosen = choose(plans)
    assert [p.nodes for p in plans] == [(0,)]
    said = verdict(work, plans, chosen, nodes)
    assert said.startswith("a computes alone, as the model can be cut no further: a token takes")
    assert chosen is not None
    reason = why_left_out(plans, chosen, 1, nodes)
    assert reason == "no plan that was tried has a part of the model for it"


def test_what_it_costs_that_all_were_asked_for() -> None:
    nodes = [node("a"), node("b")]
    plans = Search(predictor(nodes, SLOW)).plans()
    best, everyone = choose(plans), with_everyone(plans)
    assert best is not None and everyone is not None and best.nodes == (0,)
    said = verdict(work_of(), plans, everyone, nodes, uses_all=True)
    ratio = everyone.request_s / best.request_s
    assert ratio > 1.1
    assert said.startswith("Two nodes are used because all were asked for (--use-all): a token")
    assert said.endswith(f"a request takes {ratio:.2f} times what one would need.")


def test_all_that_are_asked_for_may_be_best() -> None:
    nodes = [node("a"), node("b")]
    plans = Search(predictor(nodes, FAST)).plans()
    everyone = with_everyone(plans)
    said = verdict(work_of(), plans, everyone, nodes, uses_all=True)
    assert said.startswith("Two nodes are best") and said.endswith(
        "of the time that one node needs."
    )


def test_use_all_is_not_offered_where_it_is_in_use() -> None:
    """Three fit apart, and two of one machine do not fit together."""
    pair = [replace(node(name, free_gb=0.3), machine="one") for name in "bc"]
    nodes = [node("a"), *pair]
    plans = Search(predictor(nodes, FAST)).plans()
    everyone = with_everyone(plans)
    assert everyone is not None and len(everyone.nodes) == 2
    [out] = {1, 2} - set(everyone.nodes)
    reason = why_left_out(plans, everyone, out, nodes, uses_all=True)
    assert reason.startswith("as many nodes fit without it, and are faster: a prompt of 512")
    assert "--use-all" not in reason
    three, four = replace(everyone, nodes=(0, 2, 1)), replace(everyone, nodes=(0, 3, 4, 5))
    fewer = why_left_out([three, four], four, 2, nodes, uses_all=True)
    assert fewer == "three nodes at most fit the memory with it, and four without"


def test_nodes_of_one_machine_are_short_together() -> None:
    pair = [replace(node(name, free_gb=0.75), machine="one") for name in "ab"]
    nodes = [*pair, node("c", free_gb=0.05)]
    plans = Search(predictor(nodes, FAST)).plans()
    assert choose(plans) is None
    said = verdict(work_of(), plans[1:2], None, nodes)
    both = sum(plans[1].needed_bytes) / 1e9
    assert plans[1].nodes == (0, 1)
    assert said == (
        f"The nodes have not the memory: a and b are on one machine, would need {both:.1f} GB "
        "together and have 0.8 GB free. Add nodes, or lower --ctx-size."
    )
    apart = [replace(each, machine=each.label, free_bytes=each.free_bytes // 2) for each in pair]
    plans = Search(predictor(apart, FAST)).plans()
    assert "a would need" in verdict(work_of(), plans, choose(plans), apart)


def mixed_work() -> ModelWork:
    """A model of Q4_K with some matrices of F32."""
    work = work_of(qtype=QType.Q4_K)
    tensors = dict(work.tensors)
    name = "layers.0.wk"
    tensors[name] = replace(tensors[name], qtype=QType.F32)
    return ModelWork(work.config, tensors, work.room)


@pytest.mark.parametrize("half_layer_us", [8.0, 8000.0])
def test_the_speed_of_reading_is_that_of_all_bytes(half_layer_us: float) -> None:
    """Not that of the fastest type; and it bounds only where it is the larger part."""
    work, [alone] = mixed_work(), [node("a")]
    types = [TypeSpeed(QType.F32, 22.0, 300.0), TypeSpeed(QType.Q4_K, 9.0, 100.0)]
    speeds = replace(alone.speeds, types=types, half_layer_us=half_layer_us)
    nodes = [replace(alone, speeds=speeds)]
    plans = Search(predictor(nodes, FAST, work)).plans()
    said = verdict(work, plans, choose(plans), nodes)
    assert "reading weights at 9.0 GB/s" in said
    assert ("bound by" in said) == (half_layer_us == 8.0)
