"""A weight type with the kernels made for it."""

from __future__ import annotations

from typing import Any, NamedTuple

from kernels.emit.jit import kernel_of
from kernels.matmul import expanded, expanded_floats
from kernels.matmul.blocks import block_matmul
from kernels.matmul.floats import float_matmul
from kernels.weights.dequantize import block_dequantizer, float_dequantizer
from kernels.weights.layout import BlockType, FloatType
from kernels.weights.packing_tiles import packer


class Format(NamedTuple):
    """A type's layout and kernels: dequantize of (raw, out), or (raw, (quants, scales, out)) for a
    quant type, and pack, multiply and multiply_many of (team, arguments). multiply_many is None
    where any number of tokens takes the same kernel. More columns than `max_cols` do not fit a
    thread's scratch buffer."""

    layout: BlockType | FloatType
    dequantize: Any
    pack: Any
    multiply: Any
    multiply_many: Any = None
    max_cols: int | None = None


def block_format(fmt: BlockType) -> Format:
    """The kernels of a quant type. To be called at the top level of the type's module."""
    return Format(
        fmt,
        dequantize=kernel_of(f"dequantize_{fmt.name}", block_dequantizer(fmt)),
        pack=kernel_of(f"pack_{fmt.name}", packer(fmt)),
        multiply=kernel_of(f"multiply_{fmt.name}", block_matmul(fmt)),
        multiply_many=kernel_of(f"expanded_{fmt.name}", expanded.expanded_matmul(fmt)),
        max_cols=expanded.MAX_COLS,
    )


def float_format(fmt: FloatType) -> Format:
    """The kernels of a type of plain numbers."""
    many = expanded_floats.expanded_float_matmul(fmt) if fmt.is_expanded else None
    return Format(
        fmt,
        dequantize=kernel_of(f"dequantize_{fmt.name}", float_dequantizer(fmt)),
        pack=kernel_of(f"pack_{fmt.name}", packer(fmt)),
        multiply=kernel_of(f"multiply_{fmt.name}", float_matmul(fmt)),
        multiply_many=many and kernel_of(f"expanded_{fmt.name}", many),
        max_cols=expanded_floats.MAX_COLS if many else None,
    )
