"""The rows of a family's table of tensors: the names, the size and the cut over ranks of each.
Knows no files, no kernels and no family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from dllama.config import ModelConfig


class Axis(StrEnum):
    """The unit that one side of a tensor counts; each value names a size of ModelConfig.

    The axis also says how a side is cut: HEADS, QUERY_HEADS, GATED_HEADS (each head's queries, then
    its gate), KV_HEADS, and of latent attention QUERIES and KEY_UP, by the key/value heads of a
    rank, HIDDEN by its columns of the feed-forward (of each expert), SHARED by its columns of the
    shared expert, DENSE by its columns of a mixture's dense layers, VOCAB by its part of the
    vocabulary, DELTA_KEYS, DELTA_VALUES, DELTA_HEADS and DELTA_GATES (the betas and the alphas of
    each key head) by the heads of its gated delta nets. Other axes are not cut; KEYS are rows in
    files alone.
    """

    DIM = "dim"
    HEADS = "q_dim"
    KV_HEADS = "kv_dim"
    HEAD = "head_dim"
    QUERY_HEADS = "n_heads"
    HIDDEN = "hidden_dim"
    SHARED = "shared_hidden_dim"
    DENSE = "dense_hidden_dim"
    QUERIES = "query_dim"
    KEY_UP = "key_up_dim"
    KEYS = "latent_key_dim"
    NOPE = "nope_dim"
    KV_RANK = "kv_rank"
    Q_RANK = "q_rank"
    LATENT = "latent_dim"
    VALUE = "value_dim"
    EXPERTS = "n_experts"
    SHARED_GATE = "n_shared_gates"
    VOCAB = "vocab_size"
    GATED_HEADS = "gated_q_dim"
    DELTA_KEYS = "delta_key_dim"
    DELTA_VALUES = "delta_value_dim"
    DELTA_HEADS = "n_delta_heads"
    DELTA_GATES = "n_delta_gates"
    DELTA_HEAD = "delta_head_dim"
    CONV = "conv_len"

    def size(self, config: ModelConfig) -> int:
        """Returns the number of values of the axis in a model."""
        size: int = getattr(config, self.value)
        return size


Condition = Callable[[ModelConfig, int], bool]
"""Whether a layer of a model, by its index, has a tensor; the index is -1 outside of layers."""


def always(config: ModelConfig, layer: int) -> bool:
    """The condition of a tensor that every layer has."""
    return True


def has(flag: str) -> Condition:
    """The condition of a tensor that a model has if a field of its ModelConfig is true."""

    def is_set(config: ModelConfig, layer: int) -> bool:
        return bool(getattr(config, flag))

    return is_set


@dataclass(frozen=True, slots=True)
class Tensor:
    """One row of a family's table.

    Matrices are (rows, cols) and, with `experts`, that many of them one after the other. Vectors
    have `rows` None and are stored as one row. Tensors of a layer with the same `joined` read the
    same input and are packed as one, in the table's order (vectors are joined end to end).

    Matrices of a layer that have the same name in a format lie there in one tensor, below each
    other in the table's order; those of several experts lie so for each expert. The name in
    checkpoints may end in `[0::2]` or `[1::2]`: theirs has the rows of two of ours by turns (of
    vectors the values); or in `[0/2]` or `[1/2]`: one after the other. A name there without {e} is
    of all experts; where it does not end in `.weight` their inputs come before their outputs.
    """

    name: str  # ours; tensors of a layer are called `layers.{i}.` + name
    gguf: str  # the name in GGUF; of a layer what follows `blk.{i}.`
    hf: str  # the name in Hugging Face checkpoints; of a layer what follows `model.layers.{i}.`,
    # with {e} for the number of an expert
    rows: Axis | None
    cols: Axis
    joined: str = ""
    m: int | None = None  # place in a layer of distributed-llama's .m files; None: not in them
    has_pairs: bool = False  # rows (of a vector: columns) carry rotary pairs
    experts: Callable[[ModelConfig], int] | None = None
    rows_each: Axis | None = None  # of a matrix for each head, one after the other: rows of one
    when: Condition = always
    is_table: bool = False  # numbers by which rows are changed, and no matrix of a product
    is_by_head: bool = False  # a vector that GGUF files have in rows of a head each
    is_once: bool = False  # held by the rank of the first hidden columns: a sum has it once

    @property
    def is_vector(self) -> bool:
        return self.rows is None

    @property
    def is_flat(self) -> bool:
        """Whether it is a single vector, and not one of each expert."""
        return self.is_vector and self.experts is None

    def shape(self, config: ModelConfig) -> tuple[int, int]:
        """(rows, cols) in the file; the matrices of all experts below each other."""
        rows = 1 if self.rows is None else self.rows.size(config)
        return rows * self.n_experts(config), self.cols.size(config)

    def n_matrices(self, config: ModelConfig, n_rows: int) -> int:
        """Returns the number of matrices in `n_rows` rows: of experts, or of a rank's heads."""
        each = self.rows_each
        return self.n_experts(config) if each is None else n_rows // each.size(config)

    def n_experts(self, config: ModelConfig) -> int:
        """Returns the number of matrices, all of the same shape, that the tensor holds."""
        return 1 if self.experts is None else self.experts(config)
