"""Partial sums quantized for the wire. All ranks must get the same bits, whatever processor they
run on."""

from __future__ import annotations

import numpy as np

from kernels.emit.jit import kernel

MAX_SCALE = np.float32(65504.0)  # the largest float16


@kernel
def block_scales(x, scales):
    """scales (T, blocks) = the largest magnitude of each block of x (T, cols) / 127."""
    rows, cols = x.shape
    for t in range(rows):
        for b in range(scales.shape[1]):
            largest = np.float32(0.0)
            for i in range(32 * b, min(cols, 32 * b + 32)):
                largest = max(largest, abs(x[t, i]))
            scales[t, b] = min(largest / np.float32(127.0), MAX_SCALE)


@kernel
def quantize(x, scales, values):
    """values (T, cols) int8 = x / its block's scale, rounded to even and clipped to +-127."""
    rows, cols = x.shape
    for t in range(rows):
        for b in range(scales.shape[1]):
            scale = scales[t, b]
            inverse = np.float32(1.0) / scale if scale > 0 else np.float32(0.0)
            for i in range(32 * b, min(cols, 32 * b + 32)):
                rounded = np.rint(x[t, i] * inverse)
                values[t, i] = np.int8(min(max(rounded, np.float32(-127.0)), np.float32(127.0)))


@kernel
def add_quantized(values, scales, out, is_first):
    """out (T, cols) += values * scales; `is_first` overwrites out instead."""
    rows, cols = out.shape
    for t in range(rows):
        for i in range(cols):
            value = np.float32(values[t, i]) * scales[t, i // 32]
            out[t, i] = value if is_first else out[t, i] + value
