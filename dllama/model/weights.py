"""A rank's weights, packed for the kernels: read-only once made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from dllama.config import ModelConfig
from dllama.errors import ModelFileError
from dllama.qtypes import QType
from dllama.rope import rope_frequencies
from dllama.weight_source import TensorInfo
from kernels.dequantize import dequantize
from kernels.layout import BLOCK_FORMATS, GROUP, Needs, Packed
from kernels.packing import pack

Tensor = tuple[TensorInfo, np.ndarray]  # the raw blocks: uint8 (rows, bytes of a row)
NOTHING = np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True)
class Linear:
    """One or more matrices that read the same input and write side by side.

    Matrices of one type are packed as one; `parts` holds (first output column, matrix).
    """

    parts: tuple[tuple[int, Packed], ...]
    cols: int
    out_dim: int

    @property
    def width(self) -> int:
        """Columns the output buffer needs: the last group of rows may reach beyond out_dim."""
        return max(at + -(-w.rows // GROUP) * GROUP for at, w in self.parts)

    @property
    def needs(self) -> Needs:
        """How the input is read."""
        formats = {w.format for _, w in self.parts}
        return Needs(
            quants=not formats.isdisjoint(BLOCK_FORMATS),
            tiles=not formats.isdisjoint(("f32", "f16")),
            pairs="bf16" in formats,
        )

    @property
    def n_bytes(self) -> int:
        return sum(w.n_bytes for _, w in self.parts)


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
        w2 = self.layers[0].w2
        return 0 if w2 is None else w2.cols

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
        self._pending: dict[str, Tensor] = {}
        self._norm: np.ndarray | None = None
        self._wcls: Linear | None = None

    def add(self, info: TensorInfo, raw: np.ndarray) -> None:
        """Takes one tensor; `raw` may be overwritten afterwards."""
        if info.name == "norm":
            self._norm = _vector((info, raw))
        elif info.name == "wcls":
            self._wcls = self._linear([(info, raw)])
        else:
            self._add_to_layer(info, raw)

    def _add_to_layer(self, info: TensorInfo, raw: np.ndarray) -> None:
        prefix, number, name = info.name.split(".")
        if prefix != "layers" or int(number) != len(self._layers):
            raise ModelFileError(
                f"tensor {info.name} arrived while layer {len(self._layers)} was expected; "
                "tensors must come layer by layer"
            )
        # What came over a link is overwritten by the next tensor, and a view of a file would bring
        # pages back into memory that the source has just given up.
        self._pending[name] = (info, raw.copy())
        if name == "w2":  # the last of a layer; every rank holds feed-forward columns
            self._layers.append(self._pack_layer(self._pending))
            self._pending = {}

    def _pack_layer(self, t: Mapping[str, Tensor]) -> Layer:
        def vector(name: str) -> np.ndarray:
            return _vector(t[name]) if name in t else NOTHING

        has_heads = "wq" in t
        biases = [vector(name) for name in ("bq", "bk", "bv")]
        return Layer(
            norm1=vector("norm1"),
            qkv=self._linear([t["wq"], t["wk"], t["wv"]]) if has_heads else None,
            bias=np.concatenate(biases),
            q_norm=vector("q_norm"),
            k_norm=vector("k_norm"),
            wo=self._linear([t["wo"]]) if has_heads else None,
            norm2=vector("norm2"),
            gate_up=self._linear([t["w1"], t["w3"]]) if "w1" in t else None,
            w2=self._linear([t["w2"]]) if "w2" in t else None,
        )

    def _linear(self, tensors: list[Tensor]) -> Linear:
        """Packs matrices side by side, neighbours of one type as one."""
        parts: list[tuple[int, Packed]] = []
        column = 0
        while tensors:
            qtype, run = tensors[0][0].qtype, 1
            while run < len(tensors) and tensors[run][0].qtype is qtype:
                run += 1
            raws = [raw for _, raw in tensors[:run]]
            cols = tensors[0][0].cols
            parts.append((column, pack(self._team, format_name(qtype), raws, cols)))
            column += sum(len(raw) for raw in raws)
            tensors = tensors[run:]
        return Linear(tuple(parts), parts[0][1].cols, column)

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
    """Packs a rank's tensors, which come in feed order (cluster/cut.py)."""
    builder = WeightsBuilder(config, team, vocab_start)
    for info, raw in tensors:
        builder.add(info, raw)
    return builder.build()


def format_name(qtype: QType) -> str:
    """The kernels' name for a storage type."""
    return qtype.name.lower()


def _vector(tensor: Tensor) -> np.ndarray:
    """A norm or a bias as float32 (n,)."""
    info, raw = tensor
    out = np.zeros(info.cols, np.float32)
    dequantize(format_name(info.qtype), raw.reshape(1, -1), out[None])
    return out
