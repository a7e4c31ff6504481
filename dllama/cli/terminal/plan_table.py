"""Plans of a cluster as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cluster.planning.report import NamedLink, PlanReport
from cluster.planning.search import Plan

if TYPE_CHECKING:
    from rich.console import RenderableType

MAX_PLANS = 16  # rows; the fastest of more
MAX_LINKS = 12


def plan_view(report: PlanReport) -> Group:
    """Returns the nodes, the links, the plans, and what follows from them."""
    parts: list[RenderableType] = [_nodes(report)]
    if report.links:
        parts += [Text(), _links(report.links[:MAX_LINKS])]
    parts += [Text(), _plans(report), Text(report.verdict)]
    for label, reason in report.left_out().items():
        parts.append(Text(f"{label} is left out: {reason}."))
    if report.is_simulated:
        parts.append(Text("Simulated: nodes and links are described, not measured.", "yellow"))
    return Group(*parts)


def _nodes(report: PlanReport) -> Table:
    table = _table("node", "free memory", "type", "GB/s", "Gop/s", "half layer")
    for node in report.nodes:
        for i, each in enumerate(report.types_of(node)):
            first = (node.label, f"{node.free_bytes / 1e9:.1f} GB") if i == 0 else ("", "")
            overhead = f"{node.speeds.half_layer_us:.0f} µs" if i == 0 else ""
            table.add_row(
                *first, each.qtype.name, f"{each.read_gb_per_s:.1f}",
                f"{each.multiply_gop_per_s:.0f}", overhead,
            )  # fmt: skip
    return table


def _links(links: Sequence[NamedLink]) -> Table:
    table = _table("link", "through", "latency", "99 %", "Gbit/s")
    for link in links:
        speed, gbit = link.speed, link.speed.gbit_per_s
        table.add_row(
            " - ".join(link.between), speed.interface or "?", f"{speed.latency_us:.0f} µs",
            f"{speed.latency_p99_us:.0f} µs", "?" if gbit is None else f"{gbit:.3g}",
        )  # fmt: skip
    return table


def _plans(report: PlanReport) -> Table:
    table = _table(
        "nodes", "shares", "memory", "with KV", "prompt t/s", "decode t/s", "network", ""
    )
    for plan in _shown(report):
        shares = ":".join(f"{share * 100:.0f}" for share in plan.shares)
        largest = max(range(len(plan.nodes)), key=lambda i: plan.needed_bytes[i])
        kv = report.work.kv_bytes(plan.shards[largest])
        found = plan.prediction
        table.add_row(
            ", ".join(report.nodes[node].label for node in plan.nodes),
            f"{shares} (equal)" if plan.is_equal else shares,
            f"{plan.needed_bytes[largest] / 1e9:.1f} GB",
            f"{kv / 1e9:.2f} GB",
            f"{found.prompt_per_s:.1f}",
            f"{found.decode_per_s:.2f}",
            f"{found.decode.network * 1e3:.1f} ms",
            _mark(report, plan),
            style="bold" if plan is report.chosen else "" if plan.fits else "dim",
        )
    return table


def _mark(report: PlanReport, plan: Plan) -> str:
    if plan is report.chosen:
        return "<- used"
    return "" if plan.fits else "no memory"


def _shown(report: PlanReport) -> list[Plan]:
    """Returns the plans in their order; of too many the fastest, one node and all."""
    if len(report.plans) <= MAX_PLANS:
        return list(report.plans)
    fastest = sorted(report.plans, key=lambda plan: plan.request_s)[: MAX_PLANS - 2]
    most = max(len(plan.nodes) for plan in report.plans)
    return [p for p in report.plans if p in fastest or len(p.nodes) in (1, most)]


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in names:
        is_text = name in ("node", "link", "through", "nodes", "shares", "type", "")
        table.add_column(name, justify="left" if is_text else "right")
    return table
