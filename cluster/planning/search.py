"""Searches the nodes and the shares that answer soonest, among those that have the memory. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from cluster.planning.predict import PlanNode, Prediction, Predictor
from dllama.errors import ShardError
from dllama.sharding.memory import NodeMemory, short_by_machine, short_of_memory
from dllama.sharding.plan import Shard

PROMPT_TOKENS, ANSWER_TOKENS = 512, 128  # of the request whose time is made small
MAX_EVERY_SUBSET = 5  # workers, up to which all subsets are tried
MIN_GAIN = 0.05  # that a node has to bring: less is noise, and one node less may fail
STEPS = (0.08, 0.03, 0.01)  # of the whole, that shares are moved by
SHARE_DIGITS = 4
MOST_TRIES = 640  # moves of one size that are tried, but three rounds at least
CORRECTIONS = 3  # searches more, where shares seemed to fit that do not
SLOWEST = 2  # ranks that give something away: the slowest half layers may be of two


@dataclass(frozen=True, slots=True)
class Plan:
    """Some nodes by position, the root first, their shares, and what they would do."""

    nodes: tuple[int, ...]
    shares: tuple[float, ...]
    shards: tuple[Shard, ...]
    prediction: Prediction
    needed_bytes: tuple[int, ...]
    fits: bool
    is_equal: bool = False  # shares were not searched

    @property
    def request_s(self) -> float:
        return request_s(self.prediction)


def request_s(prediction: Prediction) -> float:
    """Returns the time of a request: a prompt and an answer."""
    per_token = prediction.prompt.total / prediction.prompt_tokens
    return per_token * PROMPT_TOKENS + prediction.decode.total * ANSWER_TOKENS


def node_memories(
    nodes: Sequence[PlanNode], chosen: Sequence[int], needed: Sequence[int]
) -> list[NodeMemory]:
    """Returns what some of the nodes need, and what their machines have free."""
    return [
        NodeMemory(nodes[node].label, nodes[node].machine, n_bytes, nodes[node].free_bytes)
        for node, n_bytes in zip(chosen, needed, strict=True)
    ]


class _Cost(NamedTuple):
    """What is made small: first the bytes that memory is short of, then a request's seconds."""

    short_bytes: float
    request_s: float
    rank_s: tuple[float, ...]  # of a decoded token


class Search:
    """The plans of one model over some nodes, of which the first is the root and always there."""

    def __init__(self, predictor: Predictor, prompt_tokens: int = PROMPT_TOKENS) -> None:
        self._predictor, self._prompt_tokens = predictor, prompt_tokens
        self._work, self._nodes = predictor.work, predictor.nodes
        self._more: dict[int, float] = {}  # bytes that nodes need beside `memory_about`

    def plans(self) -> list[Plan]:
        """Returns the root alone, every sensible subset with its best shares, and all nodes with
        equal ones. Nodes that a model cannot be cut for are in no plan."""
        found = []
        for nodes in self._subsets():
            plan = self.best(nodes)
            if plan is not None:
                found.append(plan)
            if self._is_many and _is_past_best(found):
                break
        everyone = tuple(range(len(self._nodes)))
        if found and all(plan.nodes != everyone for plan in found):
            found += filter(None, [self.best(everyone)])
        equal = self.plan(everyone, [1.0] * len(everyone), is_equal=True)
        if equal is not None and len(everyone) > 1:
            found.append(equal)
        return found

    @property
    def _is_many(self) -> bool:
        return len(self._nodes) - 1 > MAX_EVERY_SUBSET

    def best(self, nodes: tuple[int, ...]) -> Plan | None:
        """Returns the plan of these nodes with the best shares; None where they cannot be cut."""
        self._more.clear()
        shares = self._first_shares(nodes)
        if self._cost(nodes, shares) is None:
            return None
        found = None
        for _ in range(1 + CORRECTIONS):
            for step in STEPS:
                shares = self._climb(nodes, shares, step)
            found = self.plan(nodes, shares)
            if found is None or found.fits or not self._correct(found):
                break
        return found

    def _correct(self, plan: Plan) -> bool:
        """Counts more memory for the ranks of a plan that does not fit it, where it seemed to fit;
        returns whether it did."""
        cost = self._cost(plan.nodes, plan.shares)
        if cost is None or cost.short_bytes > 0:
            return False
        for node, shard, n_bytes in zip(plan.nodes, plan.shards, plan.needed_bytes, strict=True):
            more = n_bytes - self._work.memory_about(shard)
            self._more[node] = max(self._more.get(node, 0.0), more)
        return True

    def plan(
        self, nodes: tuple[int, ...], shares: Sequence[float], *, is_equal: bool = False
    ) -> Plan | None:
        """Returns the plan of given shares; None where the model cannot be cut like that."""
        least = 10.0**-SHARE_DIGITS  # a rank with less would be no rank
        rounded = [max(least, round(share / sum(shares), SHARE_DIGITS)) for share in shares]
        try:
            shards = self._work.shards(rounded)
        except ShardError:
            return None
        needed = tuple(self._work.memory(shard) for shard in shards)
        return Plan(
            nodes, tuple(rounded), tuple(shards),
            self._predictor.predict(nodes, shards, self._prompt_tokens), needed,
            not short_of_memory(node_memories(self._nodes, nodes, needed)), is_equal,
        )  # fmt: skip

    def _subsets(self) -> Iterator[tuple[int, ...]]:
        """Yields the root with every subset of few workers; of many those that a fast worker is
        not left out of for a slow one."""
        workers = range(1, len(self._nodes))
        if not self._is_many:
            seen, kind = set(), {worker: self._kind(worker) for worker in workers}
            for n in range(len(workers) + 1):
                for subset in combinations(workers, n):
                    kinds = tuple(sorted(kind[worker] for worker in subset))
                    if kinds not in seen:  # another one of equal machines
                        yield (0, *subset)
                    seen.add(kinds)
            return
        alone = {w: self._alone_s(w) for w in workers}
        fastest = sorted(workers, key=lambda w: (alone[w], w))
        for n in range(len(fastest) + 1):
            yield (0, *sorted(fastest[:n]))

    def _kind(self, node: int) -> int:
        """Returns the first worker that any plan may have in place of this one."""
        return next((other for other in range(1, node) if self._are_alike(other, node)), node)

    def _are_alike(self, one: int, other: int) -> bool:
        """Returns whether two workers are as fast, as large, each alone on its machine, and linked
        to every other node alike."""
        nodes, network = self._nodes, self._predictor.network
        machines = [node.machine for node in nodes]
        return (
            nodes[one].speeds == nodes[other].speeds
            and nodes[one].free_bytes == nodes[other].free_bytes
            and machines.count(machines[one]) == machines.count(machines[other]) == 1
            and all(
                network.between(one, third) == network.between(other, third)
                for third in range(len(nodes))
                if third not in (one, other)
            )
        )

    def _alone_s(self, node: int) -> float:
        """Returns the time of a request on one node, had it the memory."""
        shards = self._work.shards([1.0])
        return request_s(self._predictor.predict([node], shards, self._prompt_tokens))

    def _first_shares(self, nodes: tuple[int, ...]) -> list[float]:
        """Returns shares by speed, lowered where a node has not the memory."""
        shares = [1.0 / self._alone_s(node) for node in nodes]
        shares = [share / sum(shares) for share in shares]
        for _ in range(8):
            try:
                shards = self._work.shards(shares)
            except ShardError:
                return [1.0 / len(nodes)] * len(nodes)
            over = [
                self._memory_about(node, shard) / max(1, self._nodes[node].free_bytes)
                for node, shard in zip(nodes, shards, strict=True)
            ]
            if max(over) <= 1.0:
                break
            shares = [s / max(1.0, o * 1.02) for s, o in zip(shares, over, strict=True)]
            shares = [share / sum(shares) for share in shares]
        return shares

    def _climb(self, nodes: tuple[int, ...], shares: list[float], step: float) -> list[float]:
        """Moves parts of the model from one node to another as long as a request gets faster."""
        best = self._cost(nodes, shares)
        for _ in range(max(3, MOST_TRIES // (SLOWEST * len(nodes)))):
            moved = False
            for giver in self._givers(nodes, best):
                for taker in range(len(nodes)):
                    if giver == taker or shares[giver] <= step:
                        continue
                    tried = list(shares)
                    tried[giver] -= step
                    tried[taker] += step
                    cost = self._cost(nodes, tried)
                    if cost is not None and (best is None or cost < best):
                        best, shares, moved = cost, tried, True
            if not moved:
                break
        return shares

    def _givers(self, nodes: Sequence[int], cost: _Cost | None) -> list[int]:
        """Returns the ranks that may give something away: the slowest, for which all wait; any of
        them where memory is short."""
        ranks = list(range(len(nodes)))
        if cost is None or cost.short_bytes > 0:
            return ranks
        return sorted(ranks, key=lambda r: -cost.rank_s[r])[:SLOWEST]

    def _cost(self, nodes: Sequence[int], shares: Sequence[float]) -> _Cost | None:
        """Returns None where the model cannot be cut like that."""
        try:
            shards = self._work.shards(list(shares))
        except ShardError:
            return None
        needed = [self._memory_about(*each) for each in zip(nodes, shards, strict=True)]
        short = sum(short_by_machine(node_memories(self._nodes, nodes, needed)).values())
        prediction = self._predictor.predict(nodes, shards, self._prompt_tokens)
        ranks = tuple(rank.total for rank in prediction.decode.ranks)
        return _Cost(short, request_s(prediction), ranks)

    def _memory_about(self, node: int, shard: Shard) -> int:
        return int(self._work.memory_about(shard) + self._more.get(node, 0.0))


def _is_past_best(plans: Sequence[Plan]) -> bool:
    """Returns whether plans of up to twice as many nodes as the fastest one, each with a node more
    than the one before, are slower by more than noise. Heads are whole: twice as many nodes may be
    faster again where one more is not."""
    fitting = [plan for plan in plans if plan.fits]
    if not fitting:
        return False
    fastest = min(fitting, key=lambda plan: plan.request_s)
    slower = [p for p in fitting if p.request_s > fastest.request_s * (1 + MIN_GAIN)]
    return sum(len(p.nodes) > len(fastest.nodes) for p in slower) >= len(fastest.nodes)


def choose(plans: Sequence[Plan]) -> Plan | None:
    """Returns the fastest plan that fits, and of nearly equal ones that with the fewest nodes;
    None where nothing fits."""
    fitting = [plan for plan in plans if plan.fits]
    if not fitting:
        return None
    fastest = min(plan.request_s for plan in fitting)
    near = [plan for plan in fitting if plan.request_s <= fastest * (1 + MIN_GAIN)]
    return min(near, key=lambda plan: (len(plan.nodes), plan.request_s))


def with_everyone(plans: Sequence[Plan]) -> Plan | None:
    """Returns the fastest plan that fits and leaves the fewest nodes out; None where none fits."""
    fitting = [plan for plan in plans if plan.fits]
    if not fitting:
        return None
    most = max(len(plan.nodes) for plan in fitting)
    return min((p for p in fitting if len(p.nodes) == most), key=lambda plan: plan.request_s)
