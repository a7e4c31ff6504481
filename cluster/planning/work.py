"""The work of a model, by the units that it is cut in: bytes of weights, products, memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from dllama.config import ModelConfig
from dllama.kv_type import KvType
from dllama.models import FAMILIES, model_tensors
from dllama.models.family import Family
from dllama.models.tensors import Axis, Tensor
from dllama.qtypes import QType
from dllama.sharding.memory import kv_bytes, kv_page_bytes, memory_needed, state_bytes
from dllama.sharding.plan import Shard, aligns_of, plan_shards
from dllama.sharding.units import reads_normed_quants
from dllama.step import PAGE_TOKENS
from dllama.weight_source import TensorInfo

PARTS = ("heads", "delta", "hidden", "experts", "dense", "vocab", "whole")
"""What a matrix is cut by: key/value heads, key heads of gated delta nets, hidden columns, those of
each expert, those of the dense layers of a mixture, vocabulary rows; or not at all."""

_PART_OF = {
    Axis.HEADS: "heads", Axis.KV_HEADS: "heads", Axis.HIDDEN: "hidden", Axis.SHARED: "hidden",
    Axis.DENSE: "dense", Axis.VOCAB: "vocab", Axis.DELTA_KEYS: "delta",
    Axis.DELTA_VALUES: "delta", Axis.DELTA_HEADS: "delta", Axis.DELTA_GATES: "delta",
    Axis.GATED_HEADS: "heads", Axis.QUERIES: "heads", Axis.KEY_UP: "heads",
}  # fmt: skip


CUT = ("kv_heads", "hidden", "dense", "vocab", "delta_heads")
"""The parts of a shard."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a plan has to have memory for."""

    n_pages: int
    max_step_tokens: int
    kv_type: KvType = KvType.F16


class ModelWork:
    """The matrices of a model, counted once: those of a shard are sums over its units.

    `amounts[part]` is (types, 2) float64: bytes and values of each type, of one unit of the part
    in all layers together; `state_head_bytes` those of the state of a key head.
    """

    def __init__(self, config: ModelConfig, tensors: Mapping[str, TensorInfo], room: Room) -> None:
        self.config, self.tensors, self.room = config, tensors, room
        self._aligns = aligns_of(config, tensors)  # once, for all plans that a search tries
        table = model_tensors(config)
        matrices = {
            name: info
            for name, info in tensors.items()
            if name in table and not (table[name].is_vector or table[name].is_table)
            if name != "embed"
        }
        if "wcls" not in matrices:  # the embedding table is the head too
            matrices["wcls"] = tensors["embed"]
        self.types = sorted({info.qtype for info in matrices.values()})
        self.amounts = {part: np.zeros((len(self.types), 2)) for part in PARTS}
        self._units = {
            "heads": config.n_kv_heads, "delta": max(1, n_delta_heads(config)),
            "hidden": config.hidden_dim, "experts": config.hidden_dim,
            "dense": max(1, config.dense_hidden_dim), "vocab": config.vocab_size, "whole": 1,
        }  # fmt: skip
        for name, info in matrices.items():
            part = "vocab" if name == "wcls" else _part_of(table[name])
            both = np.array([info.n_bytes, info.rows * info.cols], float)
            self.amounts[part][self.types.index(info.qtype)] += both / self._units[part]
        embed = tensors["embed"]
        self.embedding_bytes = embed.n_bytes / embed.rows  # of a token, which travel with a step
        self.normed_quants = reads_normed_quants(config, tensors)
        self.state_head_bytes = state_bytes(config, 1)
        self._windows = Counter(config.attention_of(i).window for i in range(config.n_layers))
        self._memory = self._memory_by_unit()

    @property
    def n_syncs(self) -> int:
        """Collectives of a step that all ranks wait for."""
        return self.family.sums_per_layer * self.config.n_layers

    @property
    def family(self) -> Family:
        return FAMILIES[self.config.arch]

    def shards(self, shares: list[float]) -> list[Shard]:
        """Returns the plan of these shares. Raises ShardError."""
        return plan_shards(self.config, shares, **self._aligns)

    def weight_bytes(self) -> int:
        """Returns the bytes that a decoded token reads on all nodes together."""
        return int(self.token_bytes_by_type().sum())

    def token_bytes_by_type(self) -> np.ndarray:
        """Returns the bytes of weights of each type, (types,), that a decoded token reads on all
        nodes together."""
        return sum((self.read(part, 1)[:, 0] * self._units[part] for part in PARTS), np.zeros(1))

    def read(self, part: str, n_rows: int) -> np.ndarray:
        """Returns `amounts[part]` as a step of `n_rows` needs them: bytes that it reads, and values
        that it multiplies each row with. Of experts it reads as many as its rows may take."""
        config, amounts = self.config, self.amounts[part]
        if part != "experts" or not config.n_experts:
            return amounts
        n_read = min(config.n_experts, n_rows * config.n_active_experts)
        return amounts * (np.array([n_read, config.n_active_experts]) / config.n_experts)

    def attended(self, n_rows: int, depth: int) -> tuple[float, float]:
        """Returns of how many tokens a layer reads keys and values in a step of `n_rows` rows after
        `depth` tokens, and how many pairs of a row and a token it weighs: means of all layers."""
        read = seen = 0.0
        for layer_window, n_layers in self._windows.items():
            window = layer_window or depth + n_rows
            n_short = min(max(window - depth, 0), n_rows)  # rows that see everything
            pairs = n_short * depth + n_short * (n_short + 1) / 2 + (n_rows - n_short) * window
            read += n_layers * min(depth + n_rows, window + n_rows - 1)
            seen += n_layers * pairs
        return read / self.config.n_layers, seen / self.config.n_layers

    def memory(self, shard: Shard) -> int:
        """Returns the bytes that a rank needs, exactly; takes milliseconds."""
        return memory_needed(
            self.config, self.tensors, shard, n_pages=self.room.n_pages,
            max_step_tokens=self.room.max_step_tokens, kv_type=self.room.kv_type,
        )  # fmt: skip

    def memory_about(self, shard: Shard) -> float:
        """Returns nearly the same at once: memory grows by units of the cut. It is some 5 % less
        than the true one for a rank of little, whose peak is a tensor that arrives, and for one
        that keeps the scales of blocks which are cut between it and the next."""
        fixed, slopes = self._memory
        return fixed + sum(slopes[name] * len(getattr(shard, name)) for name in CUT)

    def token_bytes(self, n_heads: int) -> float:
        """Returns the bytes of a token's keys and values of some heads, in all layers together."""
        config = self.config
        return kv_page_bytes(config, config.n_kv_layers, n_heads, self.room.kv_type) / PAGE_TOKENS

    def kv_bytes(self, shard: Shard) -> int:
        """Returns the bytes of a rank's keys and values, and of its states."""
        pages = kv_bytes(
            self.config, len(shard.kv_heads), n_pages=self.room.n_pages,
            max_step_tokens=self.room.max_step_tokens, kv_type=self.room.kv_type,
        )  # fmt: skip
        return pages + self.config.n_slots * state_bytes(self.config, len(shard.delta_heads))

    def _memory_by_unit(self) -> tuple[float, dict[str, float]]:
        """Returns the memory of a rank without anything, and that of one unit more of each part."""
        (whole,) = self.shards([1.0])
        at_full = self.memory(whole)
        slopes = dict.fromkeys(CUT, 0.0)
        for name in CUT:
            all_of_it: range = getattr(whole, name)
            half = all_of_it[: max(1, len(all_of_it) // 2)]
            if len(half) < len(all_of_it):
                less = at_full - self.memory(replace(whole, **{name: half}))  # type: ignore[arg-type]
                slopes[name] = less / (len(all_of_it) - len(half))
        rest = sum(slopes[name] * len(getattr(whole, name)) for name in CUT)
        return at_full - rest, slopes


def n_delta_heads(config: ModelConfig) -> int:
    """Returns the key heads of gated delta nets, which are cut over ranks; 0 where there are
    none."""
    return 0 if config.delta is None else config.delta.n_key_heads


def _part_of(tensor: Tensor) -> str:
    if tensor.experts is not None:
        return "experts"
    for axis in (tensor.rows, tensor.cols):
        if axis in _PART_OF:
            return _PART_OF[axis]
    return "whole"


def described_tensors(config: ModelConfig, qtype: QType) -> dict[str, TensorInfo]:
    """Returns the tensors of a model that is no file: all matrices of one type, routers in F32."""
    found = {}
    for name, tensor in model_tensors(config).items():
        rows, cols = tensor.shape(config)
        is_plain = tensor.is_vector or tensor.rows in (Axis.EXPERTS, Axis.SHARED_GATE)
        kind = QType.F32 if is_plain else qtype
        found[name] = TensorInfo(name, kind, rows, cols, n_experts=tensor.n_experts(config))
    return found
