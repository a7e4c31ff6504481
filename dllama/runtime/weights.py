"""A rank's weights, packed for the kernels: read-only once made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dllama.config import ModelConfig
from dllama.errors import ModelFileError
from dllama.growth import growth_factors
from dllama.models import FAMILIES
from dllama.models.family import Family
from dllama.models.tensors import Axis
from dllama.rope import Rotations, rotations
from dllama.runtime.layer import NONE, Layer
from dllama.runtime.linear import Linear, LinearBuilder, format_name
from dllama.runtime.manifest import manifest_by_layer, table_of
from dllama.sharding.units import SumUnits
from dllama.weight_source import TensorFeed, TensorInfo
from kernels.matmul.sums import Kind
from kernels.weights.dequantize import dequantize
from kernels.weights.layout import GROUP


@dataclass(frozen=True, slots=True)
class Weights:
    """One rank's share of a model; `vocab_start` is the id of its head's first row."""

    config: ModelConfig
    family: Family
    layers: tuple[Layer, ...]
    norm: np.ndarray  # (dim,), or with as many biases after them
    wcls: Linear | None
    head_bias: np.ndarray  # (n_vocab,): added to logits; empty: none
    vocab_start: int
    units: SumUnits
    rotations: Rotations
    head_norm: np.ndarray = field(init=False)  # `norm` times the scale of logits
    growth: np.ndarray = field(init=False)  # of queries; see dllama.growth

    def __post_init__(self) -> None:
        object.__setattr__(self, "growth", growth_factors(self.config))
        scale = np.float32(self.config.logit_scale)
        object.__setattr__(self, "head_norm", self.norm if scale == 1 else self.norm * scale)

    @property
    def n_kv_heads(self) -> int:
        """KV heads that this rank holds."""
        config = self.config
        if config.latent is not None:
            return max((w.n_matrices for w in self.linears("wk_b")), default=0)
        heads = config.group_size * (1 + config.has_output_gate) + 2
        return max((w.out_dim for w in self.linears("qkv")), default=0) // (heads * config.head_dim)

    @property
    def n_delta_heads(self) -> int:
        """Value heads of gated delta nets that this rank holds."""
        return max((layer.vector("delta_decay").size for layer in self.layers), default=0)

    @property
    def n_vocab(self) -> int:
        """Rows of the head that this rank holds."""
        return 0 if self.wcls is None else self.wcls.out_dim

    @property
    def n_tokens(self) -> int:
        """Those of them that stand for tokens: the last ones may be padding."""
        return min(self.n_vocab, max(0, self.config.n_tokens - self.vocab_start))

    @property
    def read_bytes(self) -> int:
        """Bytes of this rank's matrices that one decoded token reads: of experts its own ones."""
        head = 0 if self.wcls is None else self.wcls.n_bytes
        n_active = self.config.n_active_experts
        return head + sum(layer.read_bytes(n_active) for layer in self.layers)

    def widest(self, name: str) -> int:
        """Returns the most columns that the output of a matrix of this name has in any layer."""
        return max((linear.width for linear in self.linears(name)), default=0)

    def linears(self, name: str) -> list[Linear]:
        """Returns this rank's matrices of a name, of all layers."""
        return [layer.matrices[name] for layer in self.layers if name in layer.matrices]


class _LayerBuilder:
    """Packs the tensors of one layer as they arrive."""

    def __init__(
        self, config: ModelConfig, index: int, infos: Sequence[TensorInfo], team: np.ndarray,
        units: Mapping[Axis, int],
    ) -> None:  # fmt: skip
        """`infos` are all the tensors that will come of this layer, `units` those of exact sums
        over an axis."""
        self._config, self._index, self._units, self._team = config, index, units, team
        self._table = table = table_of(config, index)
        self._n_expected = len(infos)
        self._n_added = 0
        self._rows: dict[str, int] = {}  # of all matrices packed under a name, of one expert
        for info in infos:
            joined = self._joined(info)
            n_rows = info.rows // table[info.short_name].n_matrices(config, info.rows)
            self._rows[joined] = self._rows.get(joined, 0) + n_rows
        self._vectors: dict[str, list[np.ndarray]] = {}
        self._tables: dict[str, list[np.ndarray]] = {}
        self._matrices: dict[str, LinearBuilder] = {}
        self._unit_of: dict[str, int | None] = {}  # of the columns' sums, by joint name

    @property
    def is_complete(self) -> bool:
        return self._n_added == self._n_expected

    def add(self, info: TensorInfo, raw: np.ndarray) -> None:
        """Packs a tensor, uint8 (rows, bytes of a row). Raises ModelFileError."""
        self._n_added += 1
        joined = self._joined(info)
        tensor = self._table[info.short_name]
        if tensor.is_table:
            self._tables.setdefault(joined, []).append(table_values(info, raw))
            return
        if tensor.is_vector:
            part = vector(info, raw) if tensor.experts is None else vectors(info, raw)
            self._vectors.setdefault(joined, []).append(part)
            return
        if joined not in self._matrices:
            self._matrices[joined] = LinearBuilder(
                self._team, self._rows[joined], tensor.n_matrices(self._config, info.rows),
                is_by_head=tensor.rows_each is not None,
            )  # fmt: skip
        self._unit_of[joined] = self._units.get(tensor.cols)
        self._matrices[joined].add(info, raw)

    def layer(self, previous: Layer | None, constant: Mapping[str, np.ndarray]) -> Layer:
        """The finished layer; `constant` are vectors that no file has."""
        vectors = {name: _joined_vectors(parts) for name, parts in self._vectors.items()}
        matrices = {
            name: builder.linear(self._unit_of.get(name))
            for name, builder in self._matrices.items()
        }
        tables = {name: np.concatenate(parts, axis=1) for name, parts in self._tables.items()}
        vectors |= constant
        place = self._config.place_of(self._index)
        return Layer(self._index, place, vectors, tables, matrices, previous)

    def _joined(self, info: TensorInfo) -> str:
        return self._table[info.short_name].joined or info.short_name


class WeightsBuilder:
    """Packs a rank's tensors as they arrive in the order of their manifest: layer by layer, the
    last norm, the head."""

    def __init__(
        self, config: ModelConfig, manifest: Sequence[TensorInfo], team: np.ndarray,
        vocab_start: int, units: SumUnits, kind: Kind,
    ) -> None:  # fmt: skip
        """Raises ModelFileError where the manifest names tensors that the family does not have."""
        self._config, self._team, self._vocab_start = config, team, vocab_start
        self._family, self._units = FAMILIES[config.arch], units
        is_exact = kind is not Kind.PLAIN
        self._by_axis = units.by_axis(config) if is_exact else {}
        self._of_layer = manifest_by_layer(config, manifest)
        self._layers: list[Layer] = []
        self._builder: _LayerBuilder | None = None
        self._outer: dict[str, np.ndarray] = {}  # vectors outside of layers
        self._wcls: Linear | None = None

    def add(self, info: TensorInfo, raw: np.ndarray) -> None:
        """Takes one tensor; `raw` may be overwritten afterwards. Raises ModelFileError."""
        if info.name == "wcls":
            head = LinearBuilder(self._team, info.rows)
            head.add(info, raw)
            self._wcls = head.linear()
        elif info.layer is None:
            self._outer[info.name] = vector(info, raw)
        else:
            self._add_to_layer(info, raw)

    def _add_to_layer(self, info: TensorInfo, raw: np.ndarray) -> None:
        if info.layer != len(self._layers):
            raise ModelFileError(
                f"tensor {info.name} arrived while layer {len(self._layers)} was expected; "
                "tensors must come layer by layer"
            )
        if self._builder is None:
            infos = self._of_layer[info.layer]
            self._builder = _LayerBuilder(
                self._config, info.layer, infos, self._team, self._by_axis
            )
        self._builder.add(info, raw)
        if self._builder.is_complete:
            previous = self._layers[-1] if self._layers else None
            self._layers.append(self._builder.layer(previous, self._constant(info.layer)))
            self._builder = None

    def _constant(self, layer: int) -> dict[str, np.ndarray]:
        """Returns the weights of norms that have none of their own."""
        config = self._config
        if not config.has_plain_qk_norm or not config.attention_of(layer).is_rotated:
            return {}
        return dict.fromkeys(("q_norm", "k_norm"), np.ones(config.head_dim, np.float32))

    def build(self) -> Weights:
        """The finished weights. Raises ModelFileError where tensors are missing."""
        n, found = self._config.n_layers, self._outer
        n_vocab = 0 if self._wcls is None else self._wcls.out_dim
        sizes = {"norm": self._config.dim, "norm_bias": self._config.dim, "wcls_bias": n_vocab}
        wanted = {t.name: sizes[t.name] for t in self._family.outer if t.name in sizes}
        if {name: len(row) for name, row in found.items()} != wanted or len(self._layers) != n:
            raise ModelFileError(
                f"{len(self._layers)} of {n} layers arrived, and outside of them "
                f"{', '.join(found) or 'nothing'}; expected all, and {', '.join(wanted)} in the "
                "model's sizes; the model file or the transfer is incomplete"
            )
        norm = [found[name] for name in ("norm", "norm_bias") if name in found]
        return Weights(
            self._config, self._family, tuple(self._layers), _joined_vectors(norm), self._wcls,
            found.get("wcls_bias", NONE), self._vocab_start, self._units, rotations(self._config),
        )  # fmt: skip


def build_weights(
    config: ModelConfig, tensors: TensorFeed, team: np.ndarray, vocab_start: int, units: SumUnits,
    kind: Kind,
) -> Weights:  # fmt: skip
    """Packs a rank's tensors. Raises ModelFileError."""
    builder = WeightsBuilder(config, tensors.manifest, team, vocab_start, units, kind)
    for info, raw in tensors:
        builder.add(info, raw)
    return builder.build()


def _joined_vectors(parts: list[np.ndarray]) -> np.ndarray:
    """Vectors joined end to end; those of experts, (n_experts, n), up to whole groups, in which
    they are read."""
    if parts[0].ndim == 1:
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
    n = sum(part.shape[1] for part in parts)
    padding = np.zeros((len(parts[0]), -n % GROUP), np.float32)
    return np.concatenate([*parts, padding], axis=1)


def vector(info: TensorInfo, raw: np.ndarray) -> np.ndarray:
    """A norm or a bias as float32 (n,)."""
    out: np.ndarray = vectors(info, raw.reshape(1, -1))[0]
    return out


def vectors(info: TensorInfo, raw: np.ndarray) -> np.ndarray:
    """A bias of each expert as float32 (n_experts, n)."""
    out = np.zeros((info.n_experts, info.cols), np.float32)
    dequantize(format_name(info.qtype), raw, out)
    return out


def table_values(info: TensorInfo, raw: np.ndarray) -> np.ndarray:
    """A table as float32 (cols, rows): numbers of one column side by side."""
    out = np.zeros((info.rows, info.cols), np.float32)
    dequantize(format_name(info.qtype), raw, out)
    return np.ascontiguousarray(out.T)
