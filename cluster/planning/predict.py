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
from cluster.planning.pipeline import Hops, pipelined_s
from cluster.planning.syncs import Exchanged, exchanged
from cluster.planning.work import ModelWork
from dllama.runtime.executor import FEW_ROWS, least_rows
from dllama.sharding.plan import Shard
from dllama.speeds import KernelSpeeds


@dataclass(frozen=True, slots=True)
class PlanNode:
    """A node that may take part. Nodes on one `machine` share its free memory."""

    label: str
    machine: str
    speeds: KernelSpeeds
    free_bytes: int


def reading_s(work: ModelWork, node: PlanNode) -> float:
    """Returns the seconds in which one node would read all weights of a decoded token."""
    return float((work.token_bytes_by_type() / _rates(work, node.speeds)[0]).sum())


class RankTime(NamedTuple):
    """Seconds of a rank's computing in a step: of all its half layers, and of the head."""

    attention: float
    feed_forward: float
    head: float

    @property
    def total(self) -> float:
        return self.attention + self.feed_forward + self.head


class SyncTime(NamedTuple):
    """A synchronisation's seconds: of a processor (sockets, adding up), and of the wire, by hops.
    Both are those of all groups of rows, of which one is computed while others travel."""

    busy: float
    wires: tuple[float, ...]
    latency: float  # of a hop; a part of its time
    n_groups: int

    @property
    def total(self) -> float:
        return self.busy + sum(self.wires)

    @property
    def hops(self) -> Hops:
        """The time of a group's rows on the wire."""
        sums, normed = (max(0.0, wire / self.n_groups - self.latency) for wire in self.wires)
        return Hops(sums, normed, self.latency)


NO_SYNC = SyncTime(0.0, (), 0.0, 1)
EXPANDED_FROM = 96  # rows of a group, for which weights are expanded (kernels/matmul/tiles.py)
SQUARES_BYTES = 64  # of a row, where norms are over the heads of all ranks


class StepTime(NamedTuple):
    """A step's seconds: `compute` of the slowest rank in each half layer, and what the network adds
    to it."""

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
        self._sync_type = sync_type
        self._unit_s: dict[tuple[int, str, int, int], float] = {}
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
            self.sync(chosen, 1).total,
        )  # fmt: skip

    def step(
        self, chosen: Sequence[int], shards: Sequence[Shard], n_rows: int, depth: int
    ) -> StepTime:
        """Returns the time of a step of `n_rows` after `depth` tokens of context."""
        sent = self._exchanged(len(chosen), n_rows)
        ranks = tuple(
            self._rank(node, shard, n_rows, sent, depth)
            for node, shard in zip(chosen, shards, strict=True)
        )
        *half_layers, head = (max(column) for column in zip(*ranks, strict=True))
        if self.work.family.feed_forward is None:
            half_layers = [sum(half_layers)]  # both are added up at once
        compute = sum(half_layers) + head
        network = 0.0
        if len(chosen) > 1:
            sync, n = self.sync(chosen, n_rows), self.work.config.n_layers
            network = self._beside(sync, [each / n for each in half_layers]) - sum(half_layers)
            n_measured = self.work.n_syncs - n * len(half_layers)
            network += n_measured * self.network.exchange_s(chosen, n_rows * SQUARES_BYTES)
            network += self._outward_s(chosen, n_rows)
        return StepTime(compute, network, ranks)

    def sync(self, chosen: Sequence[int], n_rows: int) -> SyncTime:
        """Returns the time of one all-reduce."""
        n = len(chosen)
        if n < 2:
            return NO_SYNC
        sent = self._exchanged(n, n_rows)
        messages = [n_bytes / sent.n_groups for n_bytes in sent.hops]
        whole = [sent.n_groups * self.network.exchange_s(chosen, each) for each in messages]
        sockets = [sent.n_groups * self.network.cpu_s(chosen, each) for each in messages]
        rate = min(self.nodes[i].speeds.sum_gb_per_s for i in chosen) * 1e9
        return SyncTime(
            sum(sockets) + n * sent.added_bytes / rate,
            tuple(max(0.0, hop - cpu) for hop, cpu in zip(whole, sockets, strict=True)),
            self.network.slowest_latency_s(chosen), sent.n_groups,
        )  # fmt: skip

    def _beside(self, sync: SyncTime, half_layers: Sequence[float]) -> float:
        """Returns what all layers take whose half layers compute for so long, with the network."""
        n_layers, each = self.work.config.n_layers, [half + sync.busy for half in half_layers]
        if sync.n_groups == 1:
            return n_layers * (sum(each) + len(each) * sum(sync.wires))
        has_parts = any(half.begin is not None for half in self.work.family.halves)
        return pipelined_s(each, n_layers, sync.n_groups, sync.hops, has_parts=has_parts)

    def _exchanged(self, world_size: int, n_rows: int) -> Exchanged:
        work, config = self.work, self.work.config
        return exchanged(
            config.dim, n_rows, world_size, self._sync_type, work.normed_quants, least_rows(config)
        )

    def _outward_s(self, chosen: Sequence[int], n_rows: int) -> float:
        """The way of a step and its embeddings to the workers, one after the other, and of the
        logits back."""
        others = chosen[1:]
        n_bytes = n_rows * self.work.embedding_bytes
        wire = sum(self.network.between(chosen[0], i).wire_seconds(n_bytes) for i in others)
        return wire + self.network.slowest_latency_s(chosen)

    def _rank(self, node: int, shard: Shard, n_rows: int, sent: Exchanged, depth: int) -> RankTime:
        config, speeds = self.work.config, self.nodes[node].speeds
        heads, hidden, dense = len(shard.kv_heads), len(shard.hidden), len(shard.dense)
        value_s = 1 / speeds.vector_gvalue_per_s / 1e9
        vector_s = config.n_layers * value_s
        norm_s = vector_s * sent.normed_rows * 2 * config.dim
        half_us = speeds.half_layer_us
        if n_rows > FEW_ROWS:
            half_us = max(half_us, sent.n_groups * speeds.long_half_layer_us)
        half_s = config.n_layers * half_us / 1e6
        in_heads = heads * config.attended_dim * (2 * config.group_size + 2)
        in_heads = in_heads * config.n_kv_layers // config.n_layers  # of an average layer
        attention = self._products(node, "heads", heads, n_rows, sent.n_groups) + half_s
        attention += norm_s + vector_s * n_rows * in_heads
        attention += self._attend(node, heads, n_rows, depth)
        attention += self._delta_nets(node, len(shard.delta_heads), n_rows, sent.n_groups)
        feed_forward = self._products(node, "hidden", hidden, n_rows, sent.n_groups) + half_s
        feed_forward += self._products(node, "experts", hidden, n_rows, sent.n_groups)
        feed_forward += self._products(node, "dense", dense, n_rows, sent.n_groups)
        feed_forward += self._products(node, "whole", 1, n_rows, sent.n_groups)
        values = hidden * config.active_blocks + dense * config.n_other_layers
        feed_forward += norm_s + value_s * n_rows * 2 * values
        if n_rows > FEW_ROWS and self.work.family.feed_forward is not None:
            # the last one is computed for the wanted rows only
            feed_forward *= 1 - 1 / config.n_layers
        head = self._products(node, "vocab", len(shard.vocab), 1) + speeds.step_us / 1e6
        return RankTime(attention, feed_forward, head)

    def _products(
        self, node: int, part: str, n_units: int, n_rows: int, n_groups: int = 1
    ) -> float:
        """The products with some units of a part, for which time grows in proportion; each group
        of many rows expands the weights anew."""
        key = (node, part, n_rows, n_groups)
        if key not in self._unit_s:
            read, multiply, expand_s = self._rates[node]
            n_bytes, values = self.work.read(part, n_rows).T
            read_s = n_groups * n_bytes / read if part != "experts" else n_bytes / read
            times = np.maximum(read_s, 2 * n_rows * values / multiply)
            if n_rows / n_groups >= EXPANDED_FROM and part != "experts":  # those have few rows each
                times += n_groups * values * expand_s
            self._unit_s[key] = float(times.sum())
        return self._unit_s[key] * n_units

    def _delta_nets(self, node: int, n_heads: int, n_rows: int, n_groups: int) -> float:
        """Gated delta nets: their products, and states that are read and written with every row."""
        if not n_heads:
            return 0.0
        moved = 2 * n_heads * self.work.state_head_bytes * n_rows
        return self._products(node, "delta", n_heads, n_rows, n_groups) + moved / float(
            self._rates[node][0].max()
        )

    def _attend(self, node: int, n_heads: int, n_rows: int, depth: int) -> float:
        """Attention over all earlier tokens that a layer sees: bound by its products for many rows,
        by reading keys and values for one."""
        config, speeds = self.work.config, self.nodes[node].speeds
        n_read, seen = self.work.attended(n_rows, depth)
        read = self.work.token_bytes(n_heads) * n_read
        values = n_heads * config.attended_dim * config.n_kv_layers
        products = 4 * values * config.group_size * seen / speeds.attention_gop_per_s / 1e9
        return max(products, read / float(self._rates[node][0].max()))


def _rates(work: ModelWork, speeds: KernelSpeeds) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns bytes a second, operations a second, and seconds of expanding a weight, (types,)
    each. A type that was not measured counts as the slowest that was."""
    slowest = min(speeds.types, key=lambda each: each.multiply_gop_per_s)
    found = [speeds.of(qtype) or slowest for qtype in work.types]
    read = np.array([each.read_gb_per_s for each in found]) * 1e9
    multiply = np.array([each.multiply_gop_per_s for each in found]) * 1e9
    return read, multiply, np.array([each.expand_ns for each in found]) / 1e9
