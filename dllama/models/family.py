"""A family of models: its table of tensors, its fields of a config, its two half layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dllama.config import ModelConfig
from dllama.models import blocks
from dllama.models.blocks import EMBED, NORM, WCLS
from dllama.models.tensors import Tensor
from dllama.models.windows import ALL_LAYERS, WindowRule

if TYPE_CHECKING:
    from dllama.formats.gguf_metadata import ArchKeys
    from dllama.runtime.layer import Layer
    from dllama.runtime.ops import Ops

Change = Callable[[np.ndarray], np.ndarray]
"""What is done to the float32 numbers of a stored tensor."""


class Order(NamedTuple):
    """The order of a stored tensor's rows, or columns: our row i is its row places(config)[i]. Of a
    tensor that holds several of ours the rows are those of all, below each other."""

    places: Callable[[ModelConfig], np.ndarray]
    is_of_cols: bool = False  # as in vectors


Block = Callable[["Ops", "Layer"], None]


class HalfLayer(NamedTuple):
    """What a layer does between two sums over all ranks. Where all ranks have to add up something
    before it can be computed, `measure` comes first. Where it has a `begin`, that is the longer
    part of computing: between both parts other rows may enter their half layers."""

    enter: Block  # brings the residual stream up to date and norms it, each row by itself
    compute: Block  # reads the normed rows, leaves this rank's part of a sum in ops.addend
    measure: Block | None = (
        None  # reads the normed rows, leaves its part of a sum in ops.joint_norms
    )
    begin: Block | None = None  # reads the normed rows, leaves what `compute` goes on with


ATTENTION = HalfLayer(blocks.enter_attention, blocks.attention)
JOINTLY_NORMED_ATTENTION = HalfLayer(
    blocks.enter_attention, blocks.jointly_normed_attention, blocks.measure_heads
)
FEED_FORWARD = HalfLayer(
    blocks.enter_feed_forward, blocks.end_feed_forward, begin=blocks.begin_feed_forward
)
PARALLEL = HalfLayer(blocks.enter_parallel, blocks.parallel)
"""Attention and feed-forward of one norm, which are added up together."""


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture. A module of this package makes one; `dllama.models.FAMILIES` lists them."""

    arch: str  # `general.architecture` of GGUF files
    title: str  # its models, as they are commonly called
    layer: tuple[Tensor, ...]  # in the order in which ranks are fed
    outer: tuple[Tensor, ...] = (EMBED, NORM, WCLS)  # outside of layers
    is_interleaved: bool = False  # GGUF keeps rotary pairs side by side
    is_hf_interleaved: bool = False  # Hugging Face checkpoints do
    always: Mapping[str, bool] = field(default_factory=dict)  # fields of every ModelConfig
    hf_types: tuple[str, ...] = ()  # `model_type` in config.json of Hugging Face checkpoints
    hf_defaults: Mapping[str, object] = field(default_factory=dict)
    """Values of keys of config.json that its files may leave out."""
    hf_keys: Mapping[str, str] = field(default_factory=dict)
    """Further keys of config.json, and those of GGUF's metadata (after the architecture) for them.
    """
    hf_known: frozenset[str] = frozenset()
    """Keys of config.json that others refuse, and that the tensors tell of here."""
    hf_renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """For a `model_type` whose checkpoints have other names than its table: theirs, by those."""
    windows: WindowRule = ALL_LAYERS
    activations: tuple[str, ...] = ("silu", "swish")  # of the gate, as config.json calls it
    optional: tuple[str, ...] = ("has_qkv_bias",)
    """Fields of ModelConfig that are true where the tensors are there (`OPTIONAL`)."""
    has_rms_epsilon: bool = False  # files call the norms' epsilon that of root mean squares
    rounds_yarn: bool = True  # the pairs at which YaRN's ramp begins and ends are whole numbers
    divides_logits: bool = False  # by the metadata's logit_scale; others are multiplied with it
    gguf_orders: Mapping[str, Order] = field(default_factory=dict)
    """By the names that the table has for GGUF: those of tensors that are in another order there.
    Rows of one of ours lie together."""
    hf_orders: Mapping[str, Order] = field(default_factory=dict)
    """The same for checkpoints."""
    stored: Mapping[str, Tensor] = field(default_factory=dict)
    """Rows of the table by their names, as checkpoints have them, and GGUF files that lack what the
    table names: under another name, of several matrices perhaps the other way round."""
    hf_changes: Mapping[str, Change] = field(default_factory=dict)
    """By the names that the table has for checkpoints: what is done to numbers that GGUF files have
    as they are computed with, and checkpoints otherwise."""
    has_rope_sections: bool = False  # its GGUF files share rotary pairs among axes of pictures
    m_arch: int | None = None  # distributed-llama's number, where .m files know the family
    attention: HalfLayer = ATTENTION
    feed_forward: HalfLayer | None = FEED_FORWARD  # None: `attention` is the whole layer
    config_of: Callable[[ArchKeys], Mapping[str, object]] | None = None
    """Reads further ModelConfig fields from GGUF metadata. Raises ModelFileError for what the
    family does not compute."""
    keys: frozenset[str] = frozenset()  # metadata keys that others refuse and this one computes

    @property
    def halves(self) -> tuple[HalfLayer, ...]:
        """The half layers of a layer, in their order."""
        return (self.attention, *([] if self.feed_forward is None else [self.feed_forward]))

    @property
    def sums_per_layer(self) -> int:
        """Returns how often all ranks add something up."""
        return sum(1 + (half.measure is not None) for half in self.halves)

    def as_stored(self, row: Tensor) -> Tensor:
        """Returns what stands in the place of a row of the table where it is stored otherwise."""
        return self.stored.get(row.name, row)

    def model_tensors(self, config: ModelConfig) -> tuple[Tensor, ...]:
        """The tensors outside of layers."""
        return tuple(t for t in self.outer if t.when(config, -1))

    def layer_tensors(self, config: ModelConfig, index: int) -> tuple[Tensor, ...]:
        """The tensors of one layer."""
        return tuple(t for t in self.layer if t.when(config, index))
