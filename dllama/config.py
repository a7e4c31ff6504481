"""The config of a model: sizes and constants, frozen, the same on every rank. Knows no files."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kernels.gates import Gate


class RopeScalingKind(StrEnum):
    LINEAR = "linear"
    LLAMA3 = "llama3"
    YARN = "yarn"
    LONGROPE = "longrope"


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Scaling of rotary frequencies beyond the context a model was trained on.

    `factor` and `original_max_seq_len` are used by all kinds; `low_freq_factor` and
    `high_freq_factor` by llama3; `attention_factor` by yarn and longrope, whose factors are tables
    (ModelConfig); the betas and what follows them by yarn.
    """

    kind: RopeScalingKind
    factor: float
    original_max_seq_len: int
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    extrapolation: float = 1.0
    attention_factor: float | None = None  # None: 0.1 ln(factor) + 1
    is_rounded: bool = True  # the ramp between kept and stretched pairs begins and ends at a pair


class Gating(StrEnum):
    """How a router's logits become the weights of experts."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    SPARSE_MIXER = "sparse_mixer"  # each chosen one beside those that are near it


@dataclass(frozen=True, slots=True)
class DeltaSizes:
    """The sizes of layers that are gated delta nets, which keep a state in place of keys and
    values; every `interval`-th layer attends.

    Value heads are in bundles: those that read the keys of `bundle` neighbours among the key heads.
    In a bundle the first value heads of all its key heads stand before their second ones. With
    `pairs_gates` the betas of a key head's value heads stand beside their alphas, else those of all
    heads come first.
    """

    n_key_heads: int
    n_value_heads: int
    key_dim: int  # of a head
    value_dim: int
    conv_len: int  # tokens that the convolution before it reads, the last one included
    interval: int
    bundle: int = 1
    pairs_gates: bool = False
    n_slots: int = 32  # states that a rank has room for: of running sequences, and kept ones


@dataclass(frozen=True, slots=True)
class QueryGrowth:
    """Queries that grow with their position: they are multiplied by
    1 + scale * ln(1 + floor((position + first) / length))."""

    scale: float
    length: int
    first: int = 1
    is_everywhere: bool = False  # not in layers without rotary positions alone


@dataclass(frozen=True, slots=True)
class LayerAttention:
    """The attention of one layer, where it is not over all earlier tokens with the model's rotary
    positions."""

    window: int | None = None  # tokens that a row sees, its own the last of them; None: all
    is_chunked: bool = False  # the window is cut off where a multiple of its size begins
    is_rotated: bool = True
    has_local_rope: bool = False  # turns by `local_rope_theta` or `rope_theta`, without scaling


FULL_ATTENTION = LayerAttention()


@dataclass(frozen=True, slots=True)
class Latent:
    """The sizes of multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): what is kept of a
    token and layer is one row for all heads, `kv_rank` compressed values and `rope_dim` rotated
    ones.

    A head's query and key are `nope_dim` values without positions and `rope_dim` with them, its
    value is `value_dim` values.
    """

    kv_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int
    q_rank: int = 0  # of compressed queries; 0: they are not compressed

    @property
    def width(self) -> int:
        """Values that are kept of a token and layer."""
        return self.kv_rank + self.rope_dim


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a Llama-family model.

    RoPE rotates the pairs (j, j + rotary_dim / 2): loaders that meet interleaved pairs undo that
    at the door, so nothing after them knows two styles. `rope_factors`, where a file carries
    them, divide the frequency of each pair (rotary_dim / 2 values); under longrope scaling
    `long_rope_factors` take their place where `max_seq_len` is above the original context. Layers
    with a local rotary base have neither scaling nor factors.

    In a mixture of experts `hidden_dim` are the columns of one expert; the shared expert, which all
    tokens take, has a multiple of them. The first `n_dense_layers` layers of a mixture may have a
    dense feed-forward in its place, with columns of their own number; and so may all but every
    `mixture_interval`-th layer.
    """

    arch: str  # a key of dllama.models.FAMILIES
    name: str
    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    max_seq_len: int
    norm_epsilon: float
    rope_theta: float
    rope_scaling: RopeScaling | None = None
    rope_factors: tuple[float, ...] | None = None
    long_rope_factors: tuple[float, ...] | None = None
    has_qkv_bias: bool = False
    has_qk_norm: bool = False
    has_plain_qk_norm: bool = False  # of each rotated query and key head, without weights
    is_tied: bool = False  # the output head is the embedding table
    partial_rotary_dim: int | None = None  # values of a head that are rotated; None: all
    tokenizer_size: int | None = None  # tokens of the tokenizer; None: as many as the model's
    n_experts: int = 0  # of a layer; 0: the feed-forward is dense
    n_active_experts: int = 0  # that a token takes, the shared one not counted
    shared_hidden_dim: int = 0  # columns of the shared expert; 0: there is none
    has_shared_gate: bool = True  # the shared expert has a weight of its own for each token
    has_expert_norm: bool = False  # the weights of a token's experts add up to expert_scale
    expert_scale: float = 1.0
    weighs_inputs: bool = False  # experts read what their weights multiply, and leave it unweighed
    gate: Gate = Gate.SILU  # of the feed-forward, or of each expert
    gating: Gating = Gating.SOFTMAX
    has_choice_bias: bool = False  # added to the weights by which experts are chosen, to no others
    n_expert_groups: int = 1  # neighbours among the experts; a token takes those of some groups
    n_active_groups: int = 1
    n_dense_layers: int = 0  # of a mixture, from the first layer on
    mixture_interval: int = 1  # of so many layers the last one has experts
    dense_hidden_dim: int = 0  # columns of their feed-forward
    attention_layers: tuple[LayerAttention, ...] = ()  # of each layer; empty: all full
    local_rope_theta: float | None = None
    attention_scale: float | None = None  # of query . key; None: 1 / sqrt(head_dim)
    query_growth: QueryGrowth | None = None
    attention_softcap: float = 0.0  # scores are kept within it; 0: no cap
    final_softcap: float = 0.0  # the same of logits
    embedding_scale: float = 1.0
    has_layer_norm: bool = False  # norms take the mean off before they scale
    residual_scale: float = 1.0  # of what a half layer adds
    logit_scale: float = 1.0
    latent: Latent | None = None  # keys and values are compressed; n_kv_heads is then n_heads
    has_output_gate: bool = False  # attention's result is weighed by a sigmoid, value by value
    delta: DeltaSizes | None = None  # of layers that are gated delta nets; None: all attend

    def is_delta(self, layer: int) -> bool:
        """Returns whether a layer is a gated delta net."""
        return self.delta is not None and (layer + 1) % self.delta.interval != 0

    def is_windowed(self, layer: int) -> bool:
        """Returns whether a layer needs keys and values of its window only, because the context is
        longer."""
        return (self.attention_of(layer).window or self.max_seq_len) < self.max_seq_len

    def place_of(self, layer: int) -> int:
        """Returns the number of layers of the same kind before a layer: where its keys and values,
        or its states, are among those of all layers."""
        kind = self.is_delta(layer), self.is_windowed(layer)
        return sum((self.is_delta(i), self.is_windowed(i)) == kind for i in range(layer))

    @property
    def n_kv_layers(self) -> int:
        """Layers that have keys and values."""
        return sum(not self.is_delta(i) for i in range(self.n_layers))

    @property
    def n_window_layers(self) -> int:
        """Those of them that need no keys and values before their window."""
        return sum(map(self.is_windowed, range(self.n_layers)))

    @property
    def window(self) -> int:
        """The tokens that every such layer sees at most; 0 where there are none."""
        windows = (self.attention_of(i).window for i in range(self.n_layers) if self.is_windowed(i))
        return max((window for window in windows if window), default=0)

    @property
    def n_slots(self) -> int:
        """Slots for the states of sequences; 0 where layers have none."""
        return 0 if self.delta is None else self.delta.n_slots

    @property
    def delta_key_dim(self) -> int:
        """Values of the keys of all heads of a gated delta net."""
        return 0 if self.delta is None else self.delta.n_key_heads * self.delta.key_dim

    @property
    def delta_value_dim(self) -> int:
        return 0 if self.delta is None else self.delta.n_value_heads * self.delta.value_dim

    @property
    def n_delta_heads(self) -> int:
        """Value heads of a gated delta net."""
        return 0 if self.delta is None else self.delta.n_value_heads

    @property
    def n_delta_gates(self) -> int:
        """Numbers that all heads of a gated delta net are told with a row, two each."""
        return 2 * self.n_delta_heads

    @property
    def delta_head_dim(self) -> int:
        """Values of a value head of a gated delta net."""
        return 0 if self.delta is None else self.delta.value_dim

    @property
    def conv_len(self) -> int:
        return 0 if self.delta is None else self.delta.conv_len

    def attention_of(self, layer: int) -> LayerAttention:
        """Returns the attention of a layer."""
        return self.attention_layers[layer] if self.attention_layers else FULL_ATTENTION

    @property
    def n_tokens(self) -> int:
        """Ids that stand for text, from 0 on. A padded vocabulary has rows without a token after
        them, which no answer may name."""
        return self.vocab_size if self.tokenizer_size is None else self.tokenizer_size

    @property
    def rotary_dim(self) -> int:
        """Values of a head that are rotated, from the first on."""
        return self.head_dim if self.partial_rotary_dim is None else self.partial_rotary_dim

    @property
    def value_dim(self) -> int:
        """Values that a head mixes."""
        return self.head_dim if self.latent is None else self.latent.value_dim

    @property
    def attended_dim(self) -> int:
        """Values of a query and of what it attends to."""
        return self.head_dim if self.latent is None else self.latent.width

    @property
    def q_dim(self) -> int:
        """Columns of `wo`: what all heads mix."""
        return self.n_heads * self.value_dim

    @property
    def query_dim(self) -> int:
        """Rows of a latent model's queries."""
        return self.n_heads * self.head_dim

    @property
    def key_up_dim(self) -> int:
        """Rows of the matrices that take a latent model's queries to compressed keys."""
        return self.n_heads * self.kv_rank

    @property
    def latent_key_dim(self) -> int:
        """Rows of the same matrices, where they are stored the other way round."""
        return self.n_heads * self.nope_dim

    @property
    def kv_rank(self) -> int:
        return 0 if self.latent is None else self.latent.kv_rank

    @property
    def q_rank(self) -> int:
        return 0 if self.latent is None else self.latent.q_rank

    @property
    def nope_dim(self) -> int:
        return 0 if self.latent is None else self.latent.nope_dim

    @property
    def latent_dim(self) -> int:
        return 0 if self.latent is None else self.latent.width

    @property
    def gated_q_dim(self) -> int:
        """Values of all heads' queries and gates."""
        return 2 * self.q_dim

    @property
    def kv_dim(self) -> int:
        return self.n_kv_heads * self.head_dim

    @property
    def shared_ratio(self) -> int:
        """Columns of the shared expert for each column of another one."""
        return self.shared_hidden_dim // self.hidden_dim

    @property
    def n_shared_gates(self) -> int:
        """Rows of the matrix that weighs the shared expert."""
        return 1 if self.shared_hidden_dim and self.has_shared_gate else 0

    def is_mixture(self, layer: int) -> bool:
        """Returns whether the feed-forward of a layer is a mixture of experts."""
        is_turn = (layer + 1) % self.mixture_interval == 0
        return self.n_experts > 0 and layer >= self.n_dense_layers and is_turn

    @property
    def n_other_layers(self) -> int:
        """Layers of a mixture that have a dense feed-forward, of `dense_hidden_dim` columns."""
        n_mixtures = sum(self.is_mixture(i) for i in range(self.n_layers))
        return self.n_layers - n_mixtures if self.n_experts else 0

    @property
    def hidden_blocks(self) -> int:
        """Blocks of `hidden_dim` columns that all layers have, in all experts. The dense layers of
        a mixture, whose columns are others, are not counted."""
        return (self.n_layers - self.n_other_layers) * (max(1, self.n_experts) + self.shared_ratio)

    @property
    def active_blocks(self) -> int:
        """Those of them that a token takes."""
        n_active = max(1, self.n_active_experts) + self.shared_ratio
        return (self.n_layers - self.n_other_layers) * n_active

    @property
    def group_size(self) -> int:
        """Query heads that share one key/value head."""
        return self.n_heads // self.n_kv_heads
