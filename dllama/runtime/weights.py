"""A rank's weights, packed for the kernels: read-only once made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dllama.config import ModelConfig
from dllama.errors import ModelFileError
from dllama.rope import rope_frequencies
from dllama.runtime.linear import Linear, LinearBuilder, format_name
from dllama.weight_source import TensorInfo
from kernels.weights.dequantize import dequantize

Tensor = tuple[TensorInfo, np.ndarray]  # the raw blocks: uint8 (rows, bytes of a row)
NOTHING = np.zeros(0, np.float32)


JOINED = {"wq": "qkv", "wk": "qkv", "wv": "qkv", "w1": "gate_up", "w3": "gate_up"}
"""Matrices that read the same input are one to the forward pass."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One transformer layer's share. Without heads `qkv` and `wo` are None; without feed-forward
    columns `gate_up` and `w2` are."""

    norm1: np.ndarray  # (dim,)
    qkv: Linear | None
    bias: np.ndarray  # (q_dim + 2 kv_dim,) or empty
    q_norm: np.ndarray  # (head_dim,) or empty
    k_norm: np.ndarray
    wo: Linear | None
    norm2: np.ndarray  # (dim,)
    gate_up: Linear | None
    w2: Linear | None


@dataclass(frozen=True, slots=True)
class Weights:
    """What one rank holds of a model; `vocab_start` is the id of its head's first row."""

    config: ModelConfig
    layers: tuple[Layer, ...]
    norm: np.ndarray  # (dim,)
    wcls: Linear | None
    vocab_start: int
    inv_freq: np.ndarray  # (head_dim / 2,) float64: the angle of each pair per position
    rope_magnitude: float

    @property
    def n_kv_heads(self) -> int:
        qkv = self.layers[0].qkv
        return 0 if qkv is None else qkv.out_dim // ((self.config.group_size + 2) * self.head_dim)

    @property
    def head_dim(self) -> int:
        return self.config.head_dim

    @property
    def hidden_dim(self) -> int:
        gate_up = self.layers[0].gate_up
        return 0 if gate_up is None else gate_up.out_dim // 2

    @property
    def n_vocab(self) -> int:
        return 0 if self.wcls is None else self.wcls.out_dim

    @property
    def n_bytes(self) -> int:
        """Bytes of weights that one decoded token reads."""
        parts = [p for la in self.layers for p in (la.qkv, la.wo, la.gate_up, la.w2)]
        return sum(p.n_bytes for p in [*parts, self.wcls] if p is not None)


class WeightsBuilder:
    """Packs tensors as they arrive in feed order: layer by layer, the last norm, the head."""

    def __init__(self, config: ModelConfig, team: np.ndarray, vocab_start: int) -> None:
        self._config, self._team, self._vocab_start = config, team, vocab_start
        self._layers: list[Layer] = []
        self._vectors: dict[str, np.ndarray] = {}  # of the layer that arrives
        self._matrices: dict[str, LinearBuilder] = {}
        self._norm: np.ndarray | None = None
        self._wcls: Linear | None = None

    def add(self, info: TensorInfo, raw: np.ndarray) -> None:
        """Takes one tensor; `raw` may be overwritten afterwards."""
        if info.name == "norm":
            self._norm = _vector(info, raw)
        elif info.name == "wcls":
            head = LinearBuilder(self._team, info.rows)
            head.add(info, raw)
            self._wcls = head.linear()
        else:
            self._add_to_layer(info, raw)

    def _add_to_layer(self, info: TensorInfo, raw: np.ndarray) -> None:
        prefix, number, name = info.name.split(".")
        if prefix != "layers" or int(number) != len(self._layers):
            raise ModelFileError(
                f"tensor {info.name} arrived while layer {len(self._layers)} was expected; "
                "tensors must come layer by layer"
            )
        if name.startswith("w"):
            joined = JOINED.get(name, name)
            rows = self._expected_rows(name, info.rows)
            empty = LinearBuilder(self._team, rows)
            self._matrices.setdefault(joined, empty).add(info, raw)
        else:
            self._vectors[name] = _vector(info, raw)
        if name == "w2":  # the last of a layer; every rank holds feed-forward columns
            self._layers.append(self._layer())
            self._vectors, self._matrices = {}, {}

    def _expected_rows(self, first: str, rows: int) -> int:
        """Rows of all matrices that will be joined with the first of them."""
        if first == "wq":
            return rows + 2 * (rows // self._config.group_size)
        return 2 * rows if first == "w1" else rows

    def _layer(self) -> Layer:
        def matrix(name: str) -> Linear | None:
            return self._matrices[name].linear() if name in self._matrices else None

        vector = self._vectors
        layer = Layer(
            norm1=vector["norm1"],
            qkv=matrix("qkv"),
            bias=np.concatenate([vector.get(name, NOTHING) for name in ("bq", "bk", "bv")]),
            q_norm=vector.get("q_norm", NOTHING),
            k_norm=vector.get("k_norm", NOTHING),
            wo=matrix("wo"),
            norm2=vector["norm2"],
            gate_up=matrix("gate_up"),
            w2=matrix("w2"),
        )
        self._check_inputs(layer)
        return layer

    def _check_inputs(self, layer: Layer) -> None:
        """Buffers are made for the first layer: no input of another may reach beyond them."""
        group, first = self._config.group_size, self._layers[0] if self._layers else layer
        queries = layer.qkv.out_dim // (group + 2) * group if layer.qkv else 0
        hidden = layer.gate_up.out_dim // 2 if layer.gate_up else 0
        for name, n_own, matrix, example in (
            ("wo", queries, layer.wo, first.wo),
            ("w2", hidden, layer.w2, first.w2),
        ):
            begin, end = (matrix.first_own_col, matrix.cols) if matrix else (0, 0)
            expected = (example.first_own_col, example.cols) if example else (0, 0)
            if begin + n_own > end or (begin, end) != expected:
                raise ModelFileError(
                    f"layers.{len(self._layers)}.{name} has {end} columns, of which this node "
                    f"computes {n_own} from the {begin}th on; the first layer has {expected[1]} "
                    f"and begins at {expected[0]}. The model file or the transfer is damaged"
                )

    def build(self) -> Weights:
        """The finished weights. Raises ModelFileError where tensors are missing."""
        n = self._config.n_layers
        if self._norm is None or len(self._layers) != n:
            raise ModelFileError(
                f"only {len(self._layers)} of {n} layers and "
                f"{'no' if self._norm is None else 'the'} final norm arrived; "
                "the model file or the transfer is incomplete"
            )
        inv_freq, magnitude = rope_frequencies(self._config)
        return Weights(
            self._config, tuple(self._layers), self._norm, self._wcls, self._vocab_start,
            inv_freq, magnitude,
        )  # fmt: skip


def build_weights(
    config: ModelConfig, tensors: Iterable[Tensor], team: np.ndarray, vocab_start: int
) -> Weights:
    """Packs a rank's tensors, which come in feed order (dllama/sharding/cut.py)."""
    builder = WeightsBuilder(config, team, vocab_start)
    for info, raw in tensors:
        builder.add(info, raw)
    return builder.build()


def _vector(info: TensorInfo, raw: np.ndarray) -> np.ndarray:
    """A norm or a bias as float32 (n,)."""
    out = np.zeros(info.cols, np.float32)
    dequantize(format_name(info.qtype), raw.reshape(1, -1), out[None])
    return out
