"""The number types partial sums cross the wire in. Every codec works row by row, so that a row's
bits never depend on the rows beside it."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import numpy as np


class SyncType(StrEnum):
    F32 = "f32"  # exact
    Q80 = "q80"  # blocks of 32 int8 with a float16 scale: 3.8 times smaller


class SyncCodec(Protocol):
    """Rows of float32 to wire bytes and back."""

    def row_bytes(self, cols: int) -> int: ...

    def encode(self, x: np.ndarray, out: np.ndarray) -> None:
        """Writes x (T, cols) float32 to out (T * row_bytes,) uint8."""
        ...

    def add(self, wire: np.ndarray, out: np.ndarray, *, is_first: bool) -> None:
        """Adds wire's rows to out (T, cols) float32; `is_first` overwrites out instead."""
        ...


class F32Codec:
    """Partials as they are."""

    def row_bytes(self, cols: int) -> int:
        return 4 * cols

    def encode(self, x: np.ndarray, out: np.ndarray) -> None:
        out.view("<f4").reshape(x.shape)[:] = x

    def add(self, wire: np.ndarray, out: np.ndarray, *, is_first: bool) -> None:
        values = wire.view("<f4").reshape(out.shape)
        if is_first:
            out[:] = values
        else:
            out += values


class Q80Codec:
    """Blocks of 32 within a row (the last may be short): first all scales, then all int8."""

    def row_bytes(self, cols: int) -> int:
        return cols + 2 * n_blocks(cols)

    def encode(self, x: np.ndarray, out: np.ndarray) -> None:
        from kernels.wire import q80 as kernels

        scales = np.empty((len(x), n_blocks(x.shape[1])), np.float32)
        kernels.block_scales(x, scales)
        wire_scales, values = _q80_parts(out, x.shape)
        wire_scales[:] = scales
        scales[:] = wire_scales  # the receiver's scales, so that rounding fits them
        kernels.quantize(x, scales, values)

    def add(self, wire: np.ndarray, out: np.ndarray, *, is_first: bool) -> None:
        from kernels.wire import q80 as kernels

        wire_scales, values = _q80_parts(wire, out.shape)
        kernels.add_quantized(values, wire_scales.astype(np.float32), out, is_first)


def n_blocks(cols: int) -> int:
    return -(-cols // 32)


def make_codec(sync_type: SyncType) -> SyncCodec:
    """Returns the codec of a type with its kernels compiled, so that its first call in a step costs
    no more than others."""
    if sync_type is SyncType.F32:
        return F32Codec()
    codec = Q80Codec()
    x = np.zeros((1, 32), np.float32)
    wire = np.zeros(codec.row_bytes(32), np.uint8)
    codec.encode(x, wire)
    codec.add(wire, x, is_first=True)
    return codec


def _q80_parts(wire: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns scales (T, blocks) float16 and values (T, cols) int8 of a wire buffer, as views."""
    rows, cols = shape
    n_scale_bytes = 2 * rows * n_blocks(cols)
    scales = wire[:n_scale_bytes].view("<f2").reshape(rows, -1)
    return scales, wire[n_scale_bytes:].view(np.int8).reshape(rows, cols)
