"""Products of pairs of bfloat16 in one instruction have the bits of two fused steps: kernels take
whichever is quicker on a processor."""

from __future__ import annotations

import ctypes
from functools import partial
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir

from kernels.arrays import aligned
from kernels.cpu import cpu_features, isa
from kernels.formats.floats import BF16_BY_COLUMNS, BF16_BY_PAIRS
from kernels.machine_code import target_machine
from kernels.matmul.floats import emit_float_tile
from kernels.matmul.runs import Pointers, run_function
from kernels.matmul.sums import NO_UNIT, Kind, SumArgs
from kernels.weights.layout import GROUP, FloatType

TOKENS, PAIRS = 3, 40
HAS_INSTRUCTION = isa() == "avx512vnni" and "avx512bf16" in cpu_features()


def bf16(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """The bits of random bfloat16 numbers of very different sizes."""
    numbers = rng.standard_normal(shape) * np.exp2(rng.integers(-12, 12, shape))
    return (numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def product(fmt: FloatType, weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """(TOKENS, GROUP) float32 of weights (PAIRS, GROUP, 2) bfloat16 and inputs as the type reads
    them."""
    module = ir.Module("tile")
    module.triple = llvm.get_process_triple()
    tile = partial(emit_float_tile, fmt)
    function = run_function(module, fmt.name, tile, TOKENS, 1)
    function.linkage = "external"
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), target_machine())
    engine.finalize_object()
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * Pointers.N_ARGS)
    run: Any = kind(engine.get_function_address(function.name))
    w, out = aligned(weights.shape, np.uint16), np.zeros((TOKENS, GROUP), np.float32)
    w[...] = weights
    sums = SumArgs(NO_UNIT, int(Kind.PLAIN), 0, 0, 0)
    run(PAIRS, 1, w.ctypes.data, 0, w.nbytes, 0, inputs.ctypes.data, 0, 0, 0, out.ctypes.data,
        out.strides[0], 0, 0, 0, 0, *sums)  # fmt: skip
    return out


@pytest.mark.skipif(not HAS_INSTRUCTION, reason="this processor has no such instruction")
def test_a_pair_in_one_instruction_is_two_fused_steps() -> None:
    rng = np.random.default_rng(3)
    weights, inputs = bf16(rng, (PAIRS, GROUP, 2)), bf16(rng, (PAIRS, TOKENS, 2))
    by_pairs = product(BF16_BY_PAIRS, weights, inputs.view(np.uint32).copy())
    columns = np.ascontiguousarray(inputs.transpose(0, 2, 1)[:, ::-1]).astype(np.uint32) << 16
    by_columns = product(BF16_BY_COLUMNS, weights, columns)
    assert by_pairs.any() and np.array_equal(by_pairs, by_columns)
    other_way = product(BF16_BY_COLUMNS, weights[..., ::-1].copy(), columns[:, ::-1].copy())
    assert not np.array_equal(by_pairs, other_way), "the order of the two shows"
