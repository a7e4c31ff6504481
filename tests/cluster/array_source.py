"""A WeightSource over arrays in memory, for tests that need no file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dllama.config import ModelConfig
from dllama.qtypes import QType, row_bytes
from dllama.weight_source import TensorInfo


def small_config(**changes: object) -> ModelConfig:
    """A llama of a few kilobytes."""
    sizes: dict[str, object] = {
        "arch": "llama",
        "name": "small",
        "dim": 32,
        "hidden_dim": 96,
        "n_layers": 2,
        "n_heads": 8,
        "n_kv_heads": 4,
        "head_dim": 8,
        "vocab_size": 100,
        "max_seq_len": 256,
        "norm_epsilon": 1e-5,
        "rope_theta": 10000.0,
    }
    return ModelConfig(**{**sizes, **changes})  # type: ignore[arg-type]


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Rows and columns of every tensor of a config; vectors have one row."""
    shapes = {"embed": (config.vocab_size, config.dim), "norm": (1, config.dim)}
    if not config.is_tied:
        shapes["wcls"] = (config.vocab_size, config.dim)
    for i in range(config.n_layers):
        layer = {
            "norm1": (1, config.dim),
            "wq": (config.q_dim, config.dim),
            "wk": (config.kv_dim, config.dim),
            "wv": (config.kv_dim, config.dim),
            "wo": (config.dim, config.q_dim),
            "norm2": (1, config.dim),
            "w1": (config.hidden_dim, config.dim),
            "w3": (config.hidden_dim, config.dim),
            "w2": (config.dim, config.hidden_dim),
        }
        if config.has_qkv_bias:
            layer |= {"bq": (1, config.q_dim), "bk": (1, config.kv_dim), "bv": (1, config.kv_dim)}
        if config.has_qk_norm:
            layer |= {"q_norm": (1, config.head_dim), "k_norm": (1, config.head_dim)}
        shapes |= {f"layers.{i}.{name}": shape for name, shape in layer.items()}
    return shapes


class ArraySource:
    """Random bytes, or random float32 where the type is F32."""

    def __init__(self, config: ModelConfig, qtype: QType = QType.F32, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._config = config
        self._tensors: dict[str, TensorInfo] = {}
        self._arrays: dict[str, np.ndarray] = {}
        self.released: list[str] = []
        for name, (rows, cols) in tensor_shapes(config).items():
            kind = QType.F32 if rows == 1 else qtype
            self._tensors[name] = TensorInfo(name, kind, rows, cols)
            if kind is QType.F32:
                values = rng.standard_normal((rows, cols)).astype(np.float32) / np.sqrt(cols)
                self._arrays[name] = values.astype(np.float32).view(np.uint8)
            else:
                shape = (rows, row_bytes(kind, cols))
                self._arrays[name] = rng.integers(0, 256, shape, dtype=np.uint8)

    @property
    def config(self) -> ModelConfig:
        return self._config

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._tensors

    @property
    def stamp(self) -> str:
        return ""

    def read(self, name: str, rows: range | None = None, cols: range | None = None) -> np.ndarray:
        info, array = self._tensors[name], self._arrays[name]
        rows = range(info.rows) if rows is None else rows
        cols = range(info.cols) if cols is None else cols
        assert rows.step == cols.step == 1 and rows.stop <= info.rows and cols.stop <= info.cols
        first, last = row_bytes(info.qtype, cols.start), row_bytes(info.qtype, cols.stop)
        cut: np.ndarray = array[rows.start : rows.stop, first:last]
        return cut

    def release(self, name: str) -> None:
        self.released.append(name)

    def drop_kept(self) -> None:
        pass

    def close(self) -> None:
        pass
