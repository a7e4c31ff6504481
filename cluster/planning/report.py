"""A finished plan of a cluster as plain values: what is shown to people, and what JSON holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cluster.planning.explain import verdict, why_left_out
from cluster.planning.links import LinkSpeed
from cluster.planning.predict import PlanNode
from cluster.planning.search import Plan
from cluster.planning.work import ModelWork
from dllama.speeds import TypeSpeed


@dataclass(frozen=True, slots=True)
class NamedLink:
    """A link, and the labels of its two nodes."""

    between: tuple[str, str]
    speed: LinkSpeed


@dataclass(frozen=True, slots=True)
class PlanReport:
    """All plans of a model over some nodes, and which is used. `is_simulated`: nodes and links are
    described and not measured."""

    work: ModelWork
    nodes: Sequence[PlanNode]
    links: Sequence[NamedLink]
    plans: Sequence[Plan]
    chosen: Plan | None
    is_simulated: bool
    uses_all: bool = False  # the chosen plan leaves the fewest nodes out

    @property
    def verdict(self) -> str:
        return verdict(self.work, self.plans, self.chosen, self.nodes, uses_all=self.uses_all)

    def left_out(self) -> dict[str, str]:
        """Returns the nodes that the chosen plan does without, and why."""
        if self.chosen is None:
            return {}
        return {
            node.label: why_left_out(self.plans, self.chosen, i, self.nodes, uses_all=self.uses_all)
            for i, node in enumerate(self.nodes)
            if i not in self.chosen.nodes
        }

    def as_json(self) -> dict[str, object]:
        """Returns one object; times are in milliseconds, sizes in bytes."""
        return {
            "model": self.work.config.name,
            "is_simulated": self.is_simulated,
            "nodes": [self._node_json(node) for node in self.nodes],
            "links": [_link_json(link) for link in self.links],
            "plans": [self._plan_json(plan) for plan in self.plans],
            "verdict": self.verdict,
            "left_out": self.left_out(),
        }

    def types_of(self, node: PlanNode) -> list[TypeSpeed]:
        """Returns the speeds of a node for the types that the model has."""
        return [each for each in node.speeds.types if each.qtype in self.work.types]

    def _node_json(self, node: PlanNode) -> dict[str, object]:
        types = [asdict(each) | {"qtype": each.qtype.name} for each in self.types_of(node)]
        return {
            "node": node.label, "free_bytes": node.free_bytes,
            **asdict(node.speeds), "types": types,
        }  # fmt: skip

    def _plan_json(self, plan: Plan) -> dict[str, object]:
        found = plan.prediction
        return {
            "nodes": [self.nodes[node].label for node in plan.nodes],
            "shares": list(plan.shares),
            "is_equal": plan.is_equal,
            "is_chosen": plan is self.chosen,
            "fits": plan.fits,
            "memory_bytes": list(plan.needed_bytes),
            "kv_bytes": [self.work.kv_bytes(shard) for shard in plan.shards],
            "decode_tokens_per_s": found.decode_per_s,
            "prompt_tokens_per_s": found.prompt_per_s,
            "decode_compute_ms": found.decode.compute * 1e3,
            "decode_network_ms": found.decode.network * 1e3,
            "prompt_network_ms": found.prompt.network * 1e3,
            "synchronisations": found.n_syncs if len(plan.nodes) > 1 else 0,
            "synchronisation_ms": found.sync_s * 1e3,
        }


def _link_json(link: NamedLink) -> dict[str, object]:
    speed = link.speed
    return {
        "between": list(link.between),
        "interface": speed.interface,
        "latency_p50_us": speed.latency_us,
        "latency_p99_us": speed.latency_p99_us,
        "gbit_per_s": speed.gbit_per_s,
        "points": [asdict(point) for point in speed.points],
    }
