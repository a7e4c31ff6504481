"""Predicts what a step takes on given nodes with given shards. Pure arithmetic.

A step is two half layers a layer and the head, and all ranks wait for the slowest after each half
layer. A rank's time is what its kernels take for its matrices, plus a constant a half layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cluster.mesh.sync_type import SyncType
from cluster.planning.links import Network
from cluster.planning.work import ModelWork
from dllama.sharding.plan import Shard
from dllama.speeds import KernelSpeeds

SYNC_BYTES = {SyncType.EXACT: 4.0, SyncType.F32: 4.0, SyncType.BF16: 2.0, SyncType.Q80: 34 / 32}
"""Bytes of a value of a partial sum on the wire."""


@dataclass(frozen=True, slots=True)
class PlanNode:
    """A node that may take part. Nodes on one `machine` share its free memory."""

    label: str
    machine: str
    speeds: KernelSpeeds
    free_bytes: int


class RankTime(NamedTuple):
    """Seconds of a rank's computing in a step: of all its half layers, and of the head."""

    attention: float
    feed_forward: float
    head: float

    @property
    def total(self) -> float:
        return self.attention + self.feed_forward + self.head


class StepTime(NamedTuple):
    """A step's seconds: `compute` of the slowest rank in each half layer, and the network's."""

    compute: float
    network: float
    ranks: tuple[RankTime, ...]

    @property
    def total(self) -> float:
        return self.compute + self.network


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a plan would do: a decoded token, a prompt of `prompt_tokens`, one synchronisation."""

    decode: StepTime
    prompt: StepTime
    prompt_tokens: int
    n_syncs: int  # of a step
    sync_s: float  # one of them, of one row

    @property
    def decode_per_s(self) -> float:
        return 1.0 / self.decode.total

    @property
    def prompt_per_s(self) -> float:
        return self.prompt_tokens / self.prompt.total


class Predictor:
    """Predicts the steps of one model over a network of nodes; `nodes` are named by position."""

    def __init__(
        self, work: ModelWork, nodes: Sequence[PlanNode], network: Network, sync_type: SyncType
    ) -> None:
        self.work, self.nodes, self.network = work, nodes, network
        self._sync_bytes = SYNC_BYTES[sync_type]
        self._unit_s: dict[tuple[int, str, int], float] = {}
        self._rates = [_rates(work, node.speeds) for node in nodes]

    def predict(
        self, chosen: Sequence[int], shards: Sequence[Shard], prompt_tokens: int
    ) -> Prediction:
        """Returns the figures of these nodes with these shards, rank by rank."""
        step = min(prompt_tokens, self.work.room.max_step_tokens)
        prompt = [
            self.step(chosen, shards, min(step, prompt_tokens - done), done)
            for done in range(0, prompt_tokens, step)
        ]
        whole = StepTime(
            sum(s.compute for s in prompt), sum(s.network for s in prompt), prompt[-1].ranks
        )
        return Prediction(
            self.step(chosen, shards, 1, prompt_tokens), whole, prompt_tokens, self.work.n_syncs,
            self.sync_s(chosen, 1),
        )  # fmt: skip

    def step(
        self, chosen: Sequence[int], shards: Sequence[Shard], n_rows: int, depth: int
    ) -> StepTime:
        """Returns the time of a step of `n_rows` after `depth` tokens of context."""
        ranks = tuple(
            self._rank(node, shard, n_rows, depth)
            for node, shard in zip(chosen, shards, strict=True)
        )
        compute = sum(max(column) for column in zip(*ranks, strict=True))
        network = 0.0
        if len(chosen) > 1:
            network = self.work.n_syncs * self.sync_s(chosen, n_rows)
            network += self.network.slowest_latency_s(chosen)  # the step out, the logits back
        return StepTime(compute, network, ranks)

    def sync_s(self, chosen: Sequence[int], n_rows: int) -> float:
        """Returns the time of one all-reduce: sent all to all, or scattered and gathered where
        that is faster, and added up."""
        n = len(chosen)
        if n < 2:
            return 0.0
        values = n_rows * self.work.config.dim
        n_bytes = values * self._sync_bytes
        plain = self.network.exchange_s(chosen, n_bytes)
        parts = self.network.exchange_s(chosen, n_bytes / n)
        scattered = parts + self.network.exchange_s(chosen, 4 * values / n)
        adding = max(n_bytes / self.nodes[i].speeds.sum_gb_per_s / 1e9 for i in chosen)
        is_one_row = n_rows < n
        return min(plain + n * adding, float("inf") if is_one_row else scattered + 2 * adding)

    def _rank(self, node: int, shard: Shard, n_rows: int, depth: int) -> RankTime:
        config, speeds = self.work.config, self.nodes[node].speeds
        heads, hidden = len(shard.kv_heads), len(shard.hidden)
        vector_s = n_rows * config.n_layers / speeds.vector_gvalue_per_s / 1e9
        half_s = config.n_layers * speeds.half_layer_us / 1e6
        in_heads = heads * config.head_dim * (2 * config.group_size + 2)
        attention = self._products(node, "heads", heads, n_rows) + half_s
        attention += vector_s * (config.dim + in_heads) + self._attend(node, heads, n_rows, depth)
        feed_forward = self._products(node, "hidden", hidden, n_rows) + half_s
        feed_forward += self._products(node, "experts", hidden, n_rows)
        feed_forward += self._products(node, "whole", 1, n_rows)
        feed_forward += vector_s * (config.dim + 2 * hidden * config.active_blocks)
        head = self._products(node, "vocab", len(shard.vocab), 1) + speeds.half_layer_us / 1e6
        return RankTime(attention, feed_forward, head)

    def _products(self, node: int, part: str, n_units: int, n_rows: int) -> float:
        """The products with some units of a part, for which time grows in proportion."""
        key = (node, part, n_rows)
        if key not in self._unit_s:
            read, multiply = self._rates[node]
            n_bytes, values = self.work.read(part, n_rows).T
            times = np.maximum(n_bytes / read, 2 * n_rows * values / multiply)
            self._unit_s[key] = float(times.sum())
        return self._unit_s[key] * n_units

    def _attend(self, node: int, n_heads: int, n_rows: int, depth: int) -> float:
        """Attention over all earlier tokens: bound by its products for many rows, by reading keys
        and values for one."""
        config, speeds = self.work.config, self.nodes[node].speeds
        seen = n_rows * depth + n_rows * (n_rows + 1) / 2
        values = n_heads * config.head_dim * config.n_layers
        products = 4 * values * config.group_size * seen / speeds.attention_gop_per_s / 1e9
        return max(products, 4 * values * (depth + n_rows) / float(self._rates[node][0].max()))


def _rates(work: ModelWork, speeds: KernelSpeeds) -> tuple[np.ndarray, np.ndarray]:
    """Returns bytes a second and operations a second, (types,) each. A type that was not measured
    counts as the slowest that was."""
    slowest = min(speeds.types, key=lambda each: each.multiply_gop_per_s)
    found = [speeds.of(qtype) or slowest for qtype in work.types]
    read = np.array([each.read_gb_per_s for each in found]) * 1e9
    return read, np.array([each.multiply_gop_per_s for each in found]) * 1e9
