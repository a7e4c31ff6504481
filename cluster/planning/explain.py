"""Says in sentences what limits a plan, and why a node is left out of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.planning.predict import PlanNode
from cluster.planning.search import ANSWER_TOKENS, PROMPT_TOKENS, Plan

WORDS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}


def count_word(n: int) -> str:
    """Returns a small number as a word."""
    return WORDS.get(n, str(n))


def synchronisations(plan: Plan) -> str:
    """Returns the synchronisations of a decoded token in words: `64 synchronisations of 0.9 ms`."""
    return f"{plan.prediction.n_syncs} synchronisations of {_ms(plan.prediction.sync_s)}"


def verdict(plans: Sequence[Plan], chosen: Plan | None, nodes: Sequence[PlanNode]) -> str:
    """Returns the sentences below the table of plans: what limits, and what is best."""
    if chosen is None:
        return _no_room(plans, nodes)
    if len(nodes) == 1:
        return f"{nodes[0].label} computes alone: {_compute_bound(chosen, nodes)}."
    alone = plan_of(plans, (0,))
    more = [p for p in plans if len(p.nodes) > len(chosen.nodes) and p.fits and not p.is_equal]
    if len(chosen.nodes) == 1 and more:
        return _slower_than_one(alone or chosen, min(more, key=lambda p: p.request_s))
    sentence = f"{count_word(len(chosen.nodes)).capitalize()} nodes are best: {_limits(chosen)}"
    if alone is not None and alone.fits:
        ratio = alone.request_s / chosen.request_s
        sentence += f"; a request takes {1 / ratio:.2f} of the time that one node needs"
    elif alone is not None:
        sentence += (
            f"; one node has not the memory: {nodes[0].label} would need "
            f"{alone.needed_bytes[0] / 1e9:.1f} GB and has {nodes[0].free_bytes / 1e9:.1f} GB free"
        )
    return sentence + "."


def why_left_out(plans: Sequence[Plan], chosen: Plan, node: int, nodes: Sequence[PlanNode]) -> str:
    """Returns why a node that answers is in no plan that is chosen."""
    with_it = [p for p in plans if node in p.nodes and not p.is_equal]
    fitting = [p for p in with_it if p.fits]
    if not fitting:
        return "no part of the model that others have no room for fits its memory"
    best = min(fitting, key=lambda p: p.request_s)
    what = "would slow the answers down"
    if best.request_s <= chosen.request_s:
        what = "would bring nothing that can be measured"
    return (
        f"it {what}: a prompt of {PROMPT_TOKENS} and an answer of {ANSWER_TOKENS} tokens take "
        f"{best.request_s:.2f} s with it and {chosen.request_s:.2f} s without, since "
        f"{_cost_of(best, node, chosen)}; --use-all takes it all the same"
    )


def plan_of(plans: Sequence[Plan], nodes: tuple[int, ...]) -> Plan | None:
    """Returns the plan of these nodes with the best shares."""
    return next((p for p in plans if p.nodes == nodes and not p.is_equal), None)


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


def _compute_bound(plan: Plan, nodes: Sequence[PlanNode]) -> str:
    step = plan.prediction.decode
    fastest = max((t.read_gb_per_s for t in nodes[0].speeds.types), default=0.0)
    return f"a token takes {_ms(step.total)}, bound by reading weights at {fastest:.1f} GB/s"


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
    least = min(plans, key=lambda plan: sum(_missing(plan, nodes)))
    figures = ", ".join(
        f"{nodes[node].label} would need {n_bytes / 1e9:.1f} GB and has "
        f"{nodes[node].free_bytes / 1e9:.1f} GB free"
        for node, n_bytes in zip(least.nodes, least.needed_bytes, strict=True)
    )
    return f"The nodes have not the memory: {figures}. Add nodes, or lower --ctx-size."


def _missing(plan: Plan, nodes: Sequence[PlanNode]) -> list[int]:
    return [
        max(0, n_bytes - nodes[node].free_bytes)
        for node, n_bytes in zip(plan.nodes, plan.needed_bytes, strict=True)
    ]


def _ms(seconds: float) -> str:
    """Returns a time in milliseconds, with two digits that matter, or in seconds where it is
    long."""
    if seconds >= 2.0:
        return f"{seconds:.1f} s"
    value = seconds * 1e3
    return f"{value:.0f} ms" if value >= 10 else f"{value:.2g} ms"
