"""Rows of raw blocks to float32: embeddings, norms and biases, which no matmul reads."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.emit.jit import jitted, named
from kernels.formats import format_of
from kernels.weights.layout import BlockType, FloatType


def block_dequantizer(fmt: BlockType) -> Any:
    """A jitted function f(raw, (quants, scales, out)) for one quant type: quants (values,) uint8
    and scales (2, values / 16) float32 are scratch buffers."""
    read_quants, read_scales, value = fmt.read_quants, fmt.read_scales, _value_of(fmt)
    n_values, raw_bytes = fmt.values, fmt.raw_bytes

    @jitted
    @named(f"dequantize_rows_{fmt.name}")
    def dequantize_rows(raw, args):
        q, scales, out = args
        scale, minimum = scales[0], scales[1]
        for t in range(raw.shape[0]):
            for unit in range(raw.shape[1] // raw_bytes):
                read_quants(raw[t], unit * raw_bytes, q)
                read_scales(raw[t], unit * raw_bytes, scale, minimum)
                for i in range(n_values):
                    out[t, unit * n_values + i] = scale[i // 16] * value(q[i]) + minimum[i // 16]

    return dequantize_rows


def _value_of(fmt: BlockType) -> Any:
    """A jitted function of a quant: its value before scaling."""
    if fmt.table is not None:
        table = np.array(fmt.table, np.float32)

        @jitted
        @named(f"value_of_{fmt.name}")
        def from_table(q):
            return table[q]

        return from_table
    offset = fmt.offset

    @jitted
    @named(f"value_of_{fmt.name}")
    def plain(q):
        return np.float32(np.int32(q) - offset)

    return plain


def float_dequantizer(fmt: FloatType) -> Any:
    """A jitted function f(raw, out) for one type of plain numbers."""
    read, item_bytes = fmt.read, fmt.item_bytes

    @jitted
    @named(f"dequantize_rows_{fmt.name}")
    def dequantize_rows(raw, out):
        for t in range(raw.shape[0]):
            for i in range(raw.shape[1] // item_bytes):
                out[t, i] = read(raw[t], item_bytes * i)

    return dequantize_rows


def dequantize(fmt: str, raw: np.ndarray, out: np.ndarray) -> None:
    """Writes rows of raw blocks, uint8 (T, bytes of a row), to out (T, cols) float32."""
    kernels = format_of(fmt)
    layout = kernels.layout
    if isinstance(layout, FloatType):
        kernels.dequantize(raw, out)
        return
    quants = np.empty(layout.values, np.uint8)
    scales = np.empty((2, layout.values // 16), np.float32)
    kernels.dequantize(raw, (quants, scales, out))
