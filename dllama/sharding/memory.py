"""The memory that a rank will need, known before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dllama.config import Latent, ModelConfig
from dllama.errors import TooLittleMemory
from dllama.kv_type import KvType
from dllama.models import model_tensors
from dllama.models.tensors import Axis, Tensor
from dllama.qtypes import QType
from dllama.sharding.cut import Cut, cut_manifest
from dllama.sharding.plan import Shard
from dllama.weight_source import TensorInfo
from dllama.windows import window_pages
from kernels.attention.kv_pages import padded, page_bytes
from kernels.attention.latent import latent_page_bytes
from kernels.recurrent.states import state_values

FLOATS = (QType.F32, QType.F16, QType.BF16)

PROCESS_BYTES = 124 << 20  # interpreter, libraries, loaded kernels; compiling takes 100 MB more
WIRE_BYTES = 16 << 20  # weight chunks under way
LOGIT_ROWS = 64  # that are computed at once


@dataclass(frozen=True, slots=True)
class NodeMemory:
    """One rank's need and what its machine has left. Ranks on one `machine` share it."""

    label: str
    machine: str
    needed_bytes: int
    available_bytes: int


def kv_page_bytes(
    config: ModelConfig, n_layers: int, n_kv_heads: int, kv_type: KvType = KvType.F16
) -> int:
    """Returns the bytes of one KV page of some layers on a rank: keys and values of its
    `n_kv_heads` heads, or one row for all of them."""
    if config.latent is not None:
        return latent_page_bytes(kv_type, n_layers, config.latent.width) if n_kv_heads else 0
    return page_bytes(kv_type, n_layers, n_kv_heads, config.head_dim)


def kv_bytes(
    config: ModelConfig, n_kv_heads: int, *, n_pages: int, max_step_tokens: int,
    kv_type: KvType = KvType.F16,
) -> int:  # fmt: skip
    """Returns the bytes of all KV pages on a rank: keys and values of its `n_kv_heads` heads."""
    n_window_pages = window_pages(config, n_pages, max_step_tokens)
    n_full_layers = config.n_kv_layers - config.n_window_layers
    return n_pages * kv_page_bytes(config, n_full_layers, n_kv_heads, kv_type) + (
        n_window_pages * kv_page_bytes(config, config.n_window_layers, n_kv_heads, kv_type)
    )


def state_bytes(config: ModelConfig, n_key_heads: int) -> int:
    """Returns the bytes of one slot on a rank: the states of its heads in all gated delta nets."""
    sizes = config.delta
    if sizes is None:
        return 0
    heads = (n_key_heads, n_key_heads * sizes.n_value_heads // sizes.n_key_heads)
    n_values = state_values(heads, (sizes.key_dim, sizes.value_dim), sizes.conv_len - 1)
    return 4 * n_values * (config.n_layers - config.n_kv_layers)


def memory_needed(
    config: ModelConfig,
    tensors: Mapping[str, TensorInfo],
    shard: Shard,
    *,
    n_pages: int,
    max_step_tokens: int,
    kv_type: KvType = KvType.F16,
) -> int:
    """Returns the bytes a rank will hold at its peak: weights, KV pages, states, scratch, and the
    process itself.

    While loading, one tensor exists twice: as it came, in whole blocks, and as it is packed. KV
    pages and scratch take no memory before that is over, and only as far as they are used.
    """
    cuts = cut_manifest(config, tensors, shard)
    sizes = [cut.info.packed_bytes for cut in cuts]
    arriving = max(cut.info.n_bytes for cut in cuts)
    # The residual stream, its normed form, what ranks add up and its sum, and parts of all these.
    stream = (3.5 + _input_values(cuts)) * config.dim
    row = (
        stream
        + _attention_values(config, shard, cuts)
        + _hidden_values(config, shard, cuts)
        + _delta_row_values(config, shard, cuts)
    )
    logits = len(shard.vocab) * min(max_step_tokens, LOGIT_ROWS)
    scratch = 4 * (int(row) * max_step_tokens + logits)
    kv = kv_bytes(
        config, len(shard.kv_heads), n_pages=n_pages, max_step_tokens=max_step_tokens,
        kv_type=kv_type,
    )  # fmt: skip
    kv += config.n_slots * state_bytes(config, len(shard.delta_heads))
    return sum(sizes) + max(arriving + WIRE_BYTES, kv + scratch) + PROCESS_BYTES


def _input_values(cuts: Sequence[Cut]) -> float:
    """Returns the values of memory that a value of a product's input takes: itself and a byte with
    its share of scales and sums where weights are in blocks, and twice itself for plain numbers."""
    plain = sum(cut.info.n_bytes for cut in cuts if cut.info.qtype in FLOATS)
    return 2.0 if 2 * plain > sum(cut.info.n_bytes for cut in cuts) else 1.5


def _attention_values(config: ModelConfig, shard: Shard, cuts: Sequence[Cut]) -> float:
    """Returns the values of a row's scratch inside of attention."""
    if config.latent is not None:
        return _latent_values(config, config.latent, len(shard.kv_heads), cuts)
    heads = len(shard.kv_heads) * (config.group_size * (1 + 2 * config.has_output_gate) + 2)
    mixed = _widest(cuts, model_tensors(config), Axis.HEADS)
    return heads * config.head_dim + _input_values(cuts) * mixed


def _latent_values(config: ModelConfig, sizes: Latent, n_heads: int, cuts: Sequence[Cut]) -> float:
    """Returns the values of a row's scratch inside of latent attention: compressed queries and all
    heads', and by head what is attended with, its products and their inputs."""
    if n_heads == 0:
        return 0.0
    each = _input_values(cuts)
    of_row = sizes.width + (1 + each) * sizes.q_rank
    products = max(sizes.kv_rank, sizes.value_dim) + (each - 1) * (sizes.nope_dim + sizes.kv_rank)
    of_head: float = config.head_dim + padded(sizes.width) + products
    mixed = _widest(cuts, model_tensors(config), Axis.HEADS)
    return of_row + n_heads * of_head + each * mixed


def _delta_row_values(config: ModelConfig, shard: Shard, cuts: Sequence[Cut]) -> float:
    """Returns the values of a row's scratch inside of gated delta nets."""
    keys, values, heads = (
        len(shard.part(axis, config) or ())
        for axis in (Axis.DELTA_KEYS, Axis.DELTA_VALUES, Axis.DELTA_HEADS)
    )
    mixed = _widest(cuts, model_tensors(config), Axis.DELTA_VALUES)
    return 2 * (keys + values + heads) + _input_values(cuts) * mixed


def _hidden_values(config: ModelConfig, shard: Shard, cuts: Sequence[Cut]) -> float:
    """Returns the values of a row's scratch inside of the feed-forward: of each expert that it
    takes, with its input and its sum, and of a dense layer; or of the only one."""
    table, each = model_tensors(config), _input_values(cuts)
    found = 2 * len(shard.hidden) + each * _widest(cuts, table, Axis.HIDDEN)
    if not config.n_experts:
        return found
    dense = 2 * len(shard.dense) + each * _widest(cuts, table, Axis.DENSE)
    shared = 2 * len(shard.hidden) * config.shared_ratio
    shared += int(each * _widest(cuts, table, Axis.SHARED))
    slots = config.n_active_experts * (found + (1 + each) * config.dim + 4)
    return slots + shared + dense + 2 * config.dim + 2 * config.n_experts


def _widest(cuts: Sequence[Cut], table: Mapping[str, Tensor], axis: Axis) -> int:
    """Returns the columns of the widest input over an axis."""
    widths = (
        len(cut.info.own_cols)
        for cut in cuts
        if (tensor := table.get(cut.info.name)) and tensor.cols is axis and not tensor.is_vector
    )
    return max(widths, default=0)


def short_of_memory(nodes: Sequence[NodeMemory]) -> list[int]:
    """Returns the positions of the nodes whose machine cannot hold all ranks that are on it."""
    short = short_by_machine(nodes)
    return [i for i, node in enumerate(nodes) if short[node.machine] > 0]


def short_by_machine(nodes: Sequence[NodeMemory]) -> dict[str, int]:
    """Returns the bytes that each machine is short of for all ranks that are on it, 0 where they
    fit."""
    needed = needed_by_machine(nodes)
    short = dict.fromkeys(needed, 0)
    for node in nodes:
        lacks = needed[node.machine] - node.available_bytes
        short[node.machine] = max(short[node.machine], lacks)
    return short


def needed_by_machine(nodes: Sequence[NodeMemory]) -> dict[str, int]:
    """Returns the bytes that all ranks of each machine need together."""
    needed: dict[str, int] = {}
    for node in nodes:
        needed[node.machine] = needed.get(node.machine, 0) + node.needed_bytes
    return needed


def check_fits(nodes: Sequence[NodeMemory]) -> None:
    """Raises TooLittleMemory with every node's figures where some machine cannot hold its ranks."""
    short = [nodes[i] for i in short_of_memory(nodes)]
    if not short:
        return
    needed = needed_by_machine(nodes)
    table = "; ".join(
        f"{n.label} needs {_gb(n.needed_bytes)} and has {_gb(n.available_bytes)} free"
        + (
            f" (its machine needs {_gb(needed[n.machine])} for all nodes on it)"
            if needed[n.machine] != n.needed_bytes
            else ""
        )
        for n in nodes
    )
    raise TooLittleMemory(
        f"the model does not fit the memory of {', '.join(n.label for n in short)}: {table}. "
        "Add nodes, give larger ones a larger share (--shares), lower --ctx-size or --kv-tokens, "
        "or keep keys and values in 8 bits (--kv-type q8_0)"
    )


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB"
