"""Products of quantized weights that this machine computed, with machine code for AArch64 that has
to give the same bits: `write_cases` here, `python -m tests.arm64.tile_cases FILE` there, where no
kernel is compiled but the tiles."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np

from kernels.arrays import aligned
from kernels.cpu import available_isas, isa
from kernels.matmul.runs import Pointers
from kernels.matmul.sums import NO_UNIT, Kind, SumArgs
from kernels.team import Team
from kernels.weights.layout import BLOCK, GROUP
from kernels.weights.packing import pack
from tests.arm64.cross import FLAGS, QUANTS, tile_name, tile_object
from tests.kernels.weights.random_weights import weights

GROUPS, COLS = 3, 512
TOKENS = 3  # a pair and one more
BLOCKS = COLS // BLOCK
UNIT = 128  # columns that exact sums are made of
AHEAD = 64  # bytes that are prefetched
KINDS = {"plain": (NO_UNIT, Kind.PLAIN), "exact": (UNIT // BLOCK, Kind.ROUNDED)}


class Case(NamedTuple):
    """One type: planes of weights and of activations."""

    quants: np.ndarray
    scales: np.ndarray
    a_quants: np.ndarray  # (blocks, tokens, 32) int8
    a_scales: np.ndarray  # (blocks, tokens) float32
    a_sums: np.ndarray  # (blocks, tokens, 3) int32
    a_weighted: np.ndarray  # the same float32


def write_cases(path: Path) -> None:
    """Writes a case of each quant type, its products by this machine, and its code for each family
    of AArch64."""
    arrays: dict[str, np.ndarray] = {}
    for fmt in QUANTS:
        case, run = random_case(fmt), tile_function(tile_object(fmt, TOKENS, isa()), fmt)
        arrays.update({f"{fmt}.{name}": plane for name, plane in case._asdict().items()})
        for kind in KINDS:
            arrays[f"{fmt}.{kind}"] = product(run, fmt, case, kind)
        for family in FLAGS:
            arrays[f"{fmt}.{family}"] = np.frombuffer(tile_object(fmt, TOKENS, family), np.uint8)
    np.savez(path, **arrays)


def random_case(fmt: str) -> Case:
    rng, (raw, _) = np.random.default_rng(len(fmt)), weights(fmt, GROUPS * GROUP, COLS)
    with Team(1) as team:
        packed = pack(team.state, fmt, [raw], COLS)
    a_quants = rng.integers(-127, 128, (BLOCKS, TOKENS, BLOCK), np.int8)
    a_scales = rng.uniform(0.001, 0.02, (BLOCKS, TOKENS)).astype(np.float32)
    halves = a_quants.reshape(BLOCKS, TOKENS, 2, BLOCK // 2).sum(-1, dtype=np.int32)
    sums = -np.concatenate([halves, halves.sum(-1, keepdims=True, dtype=np.int32)], -1)
    return Case(
        packed.quants, packed.scales, a_quants, a_scales, sums,
        sums.astype(np.float32) * a_scales[..., None],
    )  # fmt: skip


# -- on the other processor ------------------------------------------------------------------


def differences(path: Path) -> Iterator[str]:
    """Yields a line for each product by a family of this processor that has other bits; the last
    line says how many products there were."""
    families = [name for name in available_isas() if name in FLAGS]
    n_products, n_wrong = 0, 0
    with np.load(path, allow_pickle=False) as found:
        for fmt in QUANTS:
            case = Case(*(found[f"{fmt}.{field}"] for field in Case._fields))
            for family in families:
                run = tile_function(found[f"{fmt}.{family}"].tobytes(), fmt)
                for kind in KINDS:
                    n_products += 1
                    if not np.array_equal(product(run, fmt, case, kind), found[f"{fmt}.{kind}"]):
                        n_wrong += 1
                        yield f"{fmt} on {family}: other {kind} sums"
    yield f"{n_products} products by {', '.join(families)}, {n_wrong} differ"


def tile_function(code: bytes, fmt: str) -> Any:
    """The function of a tile's object code."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * Pointers.N_ARGS)
    run: Any = kind(engine.get_function_address(tile_name(fmt, TOKENS)))
    run.engine = engine  # the code lives as long as it
    return run


def product(run: Any, fmt: str, case: Case, kind: str) -> np.ndarray:
    """(tokens, rows) float32."""
    out = np.full((TOKENS, GROUPS * GROUP), np.nan, np.float32)
    at = [aligned(plane.shape, plane.dtype) for plane in case]  # as the kernels' planes are
    for copy, plane in zip(at, case, strict=True):
        copy[...] = plane
    unit, how = KINDS[kind]
    run(
        BLOCKS, GROUPS, at[0].ctypes.data, at[1].ctypes.data,
        case.quants.shape[1], case.scales.shape[1], *(plane.ctypes.data for plane in at[2:]),
        out.ctypes.data, out.strides[0], AHEAD, AHEAD, 0, 0,
        *SumArgs(unit, int(how), 0, 0, 0),
    )  # fmt: skip
    return out


if __name__ == "__main__":
    lines = list(differences(Path(sys.argv[1])))
    print("\n".join(lines))
    sys.exit(len(lines) > 1)
