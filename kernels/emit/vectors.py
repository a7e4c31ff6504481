"""The LLVM types that kernels are emitted in."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

I8, I16, I32, I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
F32, F16 = ir.FloatType(), ir.HalfType()
F32X16, I32X16 = ir.VectorType(F32, 16), ir.VectorType(I32, 16)
F16X16, I16X16 = ir.VectorType(F16, 16), ir.VectorType(I16, 16)
I8X16, I8X64 = ir.VectorType(I8, 16), ir.VectorType(I8, 64)


class BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite has no name for."""

    def __str__(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


BF16X32 = ir.VectorType(BFloat(), 32)

Value = Any  # llvmlite's values carry no useful static types
