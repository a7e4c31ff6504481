"""Tensors of several matrices that are stored the other way round: the columns of each as its
rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dllama.config import ModelConfig
from dllama.formats.floats import FLOAT_TYPES
from dllama.formats.mapped_source import Stored, cut_bytes
from dllama.models.tensors import Tensor
from dllama.qtypes import BLOCK, QType
from dllama.weight_source import TensorInfo
from kernels.weights.dequantize import dequantize


@dataclass(frozen=True, slots=True)
class Turned:
    """Matrices (rows, cols) one after the other, each of which `whole` has as (cols, rows). Plain
    numbers stay as they are; of blocks, which cannot be turned, the values are read as F32."""

    info: TensorInfo
    whole: Stored
    rows_each: int

    def read(self, rows: range, cols: range) -> np.ndarray:
        """Returns the numbers of a cut, made anew at each call."""
        n_rows, n_cols = self.rows_each, self.info.cols
        first, end = rows.start // n_rows, -(-rows.stop // n_rows)
        stored = self.whole.read(range(first * n_cols, end * n_cols), range(n_rows))
        values = _plain(stored, self.whole.info).reshape(end - first, n_cols, n_rows)
        turned = values.transpose(0, 2, 1).reshape(-1, n_cols)
        at = rows.start - first * n_rows
        begin, stop = cut_bytes(self.info, cols)
        cut = np.ascontiguousarray(turned[at : at + len(rows)])
        return cut.view(np.uint8)[:, begin:stop]

    def release(self) -> None:
        self.whole.release()


def turned(whole: Stored, name: str, tensor: Tensor, config: ModelConfig) -> Turned:
    """Returns a tensor of the table whose matrices are stored the other way round."""
    rows, cols = tensor.shape(config)
    assert tensor.rows_each is not None, "only tensors of several matrices are turned"
    stored = whole.info.qtype
    qtype = stored if stored in FLOAT_TYPES else QType.F32
    info = replace(whole.info, name=name, qtype=qtype, rows=rows, cols=cols)
    return Turned(info, whole, tensor.rows_each.size(config))


def _plain(raw: np.ndarray, info: TensorInfo) -> np.ndarray:
    """Returns raw rows as numbers: words of those that are plain, float32 of others."""
    rows = np.ascontiguousarray(raw)
    if info.qtype in FLOAT_TYPES:
        return rows.view(f"<u{BLOCK[info.qtype].bytes}")
    values = np.empty((len(rows), info.cols), np.float32)
    dequantize(info.qtype.name.lower(), rows, values)
    return values
