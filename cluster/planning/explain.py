"""Says in sentences what limits a plan, and why a node is left out of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.planning.predict import PlanNode, reading_s
from cluster.planning.search import (
    ANSWER_TOKENS,
    PROMPT_TOKENS,
    Plan,
    choose,
    node_memories,
    with_everyone,
)
from cluster.planning.work import ModelWork
from dllama.sharding.memory import needed_by_machine, short_by_machine

WORDS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}


def count_word(n: int) -> str:
    """Returns a small number as a word."""
    return WORDS.get(n, str(n))


def synchronisations(plan: Plan) -> str:
    """Returns the synchronisations of a decoded token in words: `64 synchronisations of 0.9 ms`."""
    return f"{plan.prediction.n_syncs} synchronisations of {_ms(plan.prediction.sync_s)}"


def verdict(
    work: ModelWork,
    plans: Sequence[Plan],
    chosen: Plan | None,
    nodes: Sequence[PlanNode],
    *,
    uses_all: bool = False,
) -> str:
    """Returns the sentences below the table of plans: what limits, and what is best. `uses_all`:
    the plan was chosen because it leaves the fewest nodes out."""
    if chosen is None:
        return _no_room(plans, nodes)
    if len(nodes) == 1:
        return f"{nodes[0].label} computes alone: {_compute_bound(work, chosen, nodes)}."
    best = choose(plans)
    if uses_all and best is not None and best.nodes != chosen.nodes:
        return _asked_for(chosen, best)
    if len(chosen.nodes) == 1:
        more = [p for p in plans if len(p.nodes) > 1 and p.fits and not p.is_equal]
        if more:
            return _slower_than_one(chosen, min(more, key=lambda p: p.request_s))
        why = "no plan with more nodes fits the memory"
        if all(len(p.nodes) == 1 for p in plans):  # not even equal parts are possible
            why = "the model can be cut no further"
        return f"{nodes[0].label} computes alone, as {why}: {_compute_bound(work, chosen, nodes)}."
    alone = plan_of(plans, (0,))
    sentence = f"{count_word(len(chosen.nodes)).capitalize()} nodes are best: {_limits(chosen)}"
    if alone is not None and alone.fits:
        ratio = chosen.request_s / alone.request_s
        sentence += f"; a request takes {ratio:.2f} of the time that one node needs"
    elif alone is not None:
        sentence += (
            f"; one node has not the memory: {nodes[0].label} would need "
            f"{alone.needed_bytes[0] / 1e9:.1f} GB and has {nodes[0].free_bytes / 1e9:.1f} GB free"
        )
    return sentence + "."


def why_left_out(
    plans: Sequence[Plan],
    chosen: Plan,
    node: int,
    nodes: Sequence[PlanNode],
    *,
    uses_all: bool = False,
) -> str:
    """Returns why a node that answers is in no plan that is chosen; `uses_all` is as above."""
    with_it = [p for p in plans if node in p.nodes]
    if not with_it:
        return "no plan that was tried has a part of the model for it"
    fitting = [p for p in with_it if p.fits and not p.is_equal]
    if not fitting:
        return "no plan with it fits the memory of its nodes"
    if uses_all:
        return _left_out_of_all(fitting, chosen)
    best = min(fitting, key=lambda p: p.request_s)
    what = "would slow the answers down"
    if best.request_s <= chosen.request_s:
        what = "would bring nothing that can be measured"
    return (
        f"it {what}: {_both_take(best, chosen)}, since {_cost_of(best, node, chosen)}; "
        "--use-all takes it all the same"
    )


def plan_of(plans: Sequence[Plan], nodes: tuple[int, ...]) -> Plan | None:
    """Returns the plan of these nodes with the best shares."""
    return next((p for p in plans if p.nodes == nodes and not p.is_equal), None)


def _asked_for(chosen: Plan, best: Plan) -> str:
    """Returns what it costs that no node is left out that could be used."""
    n, fewer = count_word(len(chosen.nodes)), count_word(len(best.nodes))
    ratio = chosen.request_s / best.request_s
    return (
        f"{n.capitalize()} nodes are used because all were asked for (--use-all): "
        f"{_limits(chosen)}; a request takes {ratio:.2f} times what {fewer} would need."
    )


def _left_out_of_all(fitting: Sequence[Plan], chosen: Plan) -> str:
    """Returns why all nodes that are asked for are without one that some plans have room for."""
    best = with_everyone(fitting)
    assert best is not None, "plans without room are told of before"
    if len(best.nodes) < len(chosen.nodes):
        return (
            f"{count_word(len(best.nodes))} nodes at most fit the memory with it, and "
            f"{count_word(len(chosen.nodes))} without"
        )
    return f"as many nodes fit without it, and are faster: {_both_take(best, chosen)}"


def _both_take(with_it: Plan, without: Plan) -> str:
    return (
        f"a prompt of {PROMPT_TOKENS} and an answer of {ANSWER_TOKENS} tokens take "
        f"{with_it.request_s:.2f} s with it and {without.request_s:.2f} s without"
    )


def _slower_than_one(alone: Plan, best: Plan) -> str:
    n = count_word(len(best.nodes))
    saved = alone.prediction.decode.compute - best.prediction.decode.compute
    network = best.prediction.decode.network
    if best.request_s <= alone.request_s:
        return f"{n.capitalize()} nodes are no faster than one here: {_limits(best)}."
    if network > saved:
        why = f"{synchronisations(best)} take {_ms(network)} a token"
        saves = f"save {_ms(saved)} of computing" if saved > 0 else "save no computing"
        return f"{why}, and {n} nodes {saves}: {n} are slower than one here."
    saved = alone.prediction.prompt.compute - best.prediction.prompt.compute
    network = best.prediction.prompt.network
    return (
        f"A prompt of {best.prediction.prompt_tokens} tokens takes {_ms(network)} of network, and "
        f"{n} nodes save {_ms(max(0.0, saved))} of computing: {n} are slower than one here."
    )


def _limits(plan: Plan) -> str:
    """Returns what a decoded token is spent on, the larger part first."""
    step = plan.prediction.decode
    compute = f"{_ms(step.compute)} of computing"
    network = f"{_ms(step.network)} of network ({synchronisations(plan)})"
    first, second = (compute, network) if step.compute >= step.network else (network, compute)
    return f"a token takes {first} and {second}"


def _compute_bound(work: ModelWork, plan: Plan, nodes: Sequence[PlanNode]) -> str:
    """Returns what a token takes on the first node, and whether that is the time of reading its
    weights, at their mean speed over all types."""
    step, read_s = plan.prediction.decode, reading_s(work, nodes[0])
    speed = f"reading weights at {work.weight_bytes() / read_s / 1e9:.1f} GB/s"
    if read_s >= step.total / 2:
        return f"a token takes {_ms(step.total)}, bound by {speed}"
    return f"a token takes {_ms(step.total)}, {_ms(read_s)} of it {speed}"


def _cost_of(plan: Plan, node: int, without: Plan) -> str:
    step, prompt = plan.prediction.decode, plan.prediction.prompt
    if step.total < without.prediction.decode.total:
        return (
            f"a prompt takes {_ms(prompt.network)} of network alone, and "
            f"{_ms(without.prediction.prompt.total)} in all without it"
        )
    if step.network >= step.compute / 2:
        return f"{synchronisations(plan)} take {_ms(step.network)} a token"
    share = plan.shares[plan.nodes.index(node)]
    return (
        f"{share:.0%} of the model is all that it can compute in time, and a token takes "
        f"{_ms(step.network)} of network"
    )


def _no_room(plans: Sequence[Plan], nodes: Sequence[PlanNode]) -> str:
    if not plans:
        return "The model cannot be cut for these nodes."
    least = min(plans, key=lambda plan: _missing(plan, nodes))
    rows = node_memories(nodes, least.nodes, least.needed_bytes)
    needed = needed_by_machine(rows)
    figures = []
    for machine, n_bytes in needed.items():
        own = [row for row in rows if row.machine == machine]
        free = f"{min(row.available_bytes for row in own) / 1e9:.1f} GB free"
        if len(own) == 1:
            figures.append(f"{own[0].label} would need {n_bytes / 1e9:.1f} GB and has {free}")
        else:
            *some, last = (row.label for row in own)
            figures.append(
                f"{', '.join(some)} and {last} are on one machine, would need "
                f"{n_bytes / 1e9:.1f} GB together and have {free}"
            )
    return f"The nodes have not the memory: {'; '.join(figures)}. Add nodes, or lower --ctx-size."


def _missing(plan: Plan, nodes: Sequence[PlanNode]) -> int:
    rows = node_memories(nodes, plan.nodes, plan.needed_bytes)
    return sum(short_by_machine(rows).values())


def _ms(seconds: float) -> str:
    """Returns a time in milliseconds, with two digits that matter, or in seconds where it is
    long."""
    if seconds >= 2.0:
        return f"{seconds:.1f} s"
    value = seconds * 1e3
    return f"{value:.0f} ms" if value >= 10 else f"{value:.2g} ms"
