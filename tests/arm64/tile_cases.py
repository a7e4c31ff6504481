"""Products of quantized weights that this machine computed, with machine code for AArch64 that has
to give the same bits: `write_cases` here, `python -m tests.arm64.tile_cases FILE` there."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np

from kernels.activations import activations, prepare
from kernels.arrays import aligned
from kernels.cpu import available_isas
from kernels.formats import format_of
from kernels.matmul.multiply import matmul
from kernels.matmul.runs import Pointers
from kernels.matmul.sums import NO_UNIT, Kind, SumArgs, Units
from kernels.team import Team
from kernels.weights.layout import Needs, Packed
from kernels.weights.packing import pack
from tests.arm64.cross import FLAGS, QUANTS, tile_name, tile_object

ROWS, COLS = 48, 512
TOKENS = (1, 3)  # 3 are a pair and one more
UNIT = 128  # columns that exact sums are made of
AHEAD = 64


class Case(NamedTuple):
    """One type, some tokens: planes of weights and activations, and the products."""

    quants: np.ndarray
    scales: np.ndarray
    a_quants: np.ndarray
    a_scales: np.ndarray
    a_sums: np.ndarray
    a_weighted: np.ndarray
    plain: np.ndarray  # (tokens, ROWS) float32
    exact: np.ndarray  # the same of exact sums of units


def write_cases(path: Path) -> None:
    """Writes the cases of all quant types, and their code for each family of AArch64."""
    arrays: dict[str, np.ndarray] = {}
    with Team(1) as team:
        for fmt in QUANTS:
            w = _weights(team.state, fmt)
            for n in TOKENS:
                for name, array in _computed(team.state, w, n)._asdict().items():
                    arrays[f"{fmt}.{n}.{name}"] = array
                for family in FLAGS:
                    code = tile_object(fmt, n, family)
                    arrays[f"{fmt}.{n}.{family}"] = np.frombuffer(code, np.uint8)
    np.savez(path, **arrays)


def _weights(team: np.ndarray, fmt: str) -> Packed:
    """Random bits under sane factors."""
    layout, rng = format_of(fmt).layout, np.random.default_rng(len(fmt))
    raw = rng.integers(0, 256, (ROWS, COLS // layout.values, layout.raw_bytes), np.uint8)
    for offset, word in layout.words:
        if word == "f16":
            halfs = rng.uniform(-0.02, 0.02, raw.shape[:2]).astype(np.float16)
            raw[:, :, offset : offset + 2] = halfs[..., None].view(np.uint8)
        elif word == "e8m0":
            raw[:, :, offset] = rng.integers(117, 124, raw.shape[:2])
    return pack(team, fmt, [raw.reshape(ROWS, -1)], COLS)


def _computed(team: np.ndarray, w: Packed, n: int) -> Case:
    a = activations(n, COLS)
    a.rows[:] = np.random.default_rng(n).standard_normal((n, COLS)).astype(np.float32)
    prepare(team, a, n, Needs(quants=True))
    plain, exact = np.zeros((2, n, ROWS), np.float32)
    matmul(team, w, a, n, plain)
    matmul(team, w, a, n, exact, units=Units(UNIT, UNIT))
    return Case(w.quants, w.scales, a.quants, a.scales, a.sums, a.weighted, plain, exact)


# -- on the other processor ------------------------------------------------------------------


def differences(path: Path) -> Iterator[str]:
    """Yields a line for each product of this processor's families that has other bits; the last
    line says how many products there were."""
    families = [name for name in available_isas() if name in FLAGS]
    n_products, n_wrong = 0, 0
    with np.load(path, allow_pickle=False) as found:
        for fmt in QUANTS:
            for n in TOKENS:
                case = Case(*(found[f"{fmt}.{n}.{field}"] for field in Case._fields))
                for family in families:
                    run = _function(found[f"{fmt}.{n}.{family}"].tobytes(), tile_name(fmt, n))
                    for kind in ("plain", "exact"):
                        n_products += 1
                        if not np.array_equal(_product(run, fmt, case, kind), getattr(case, kind)):
                            n_wrong += 1
                            yield f"{fmt} times {n} tokens on {family}: other {kind} sums"
    yield f"{n_products} products by {', '.join(families)}, {n_wrong} differ"


def _function(code: bytes, name: str) -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * Pointers.N_ARGS)
    run = kind(engine.get_function_address(name))
    run.engine = engine  # type: ignore[attr-defined]  # the code lives as long as it
    return run


def _product(run: Any, fmt: str, case: Case, kind: str) -> np.ndarray:
    layout, out = format_of(fmt).layout, np.full(case.plain.shape, np.nan, np.float32)
    at = [aligned(plane.shape, plane.dtype) for plane in case[:6]]  # as the kernels' planes are
    for copy, plane in zip(at, case[:6], strict=True):
        copy[...] = plane
    is_plain = kind == "plain"
    unit = NO_UNIT if is_plain else UNIT // layout.step_columns
    sums = SumArgs(unit, unit, int(Kind.PLAIN if is_plain else Kind.ROUNDED), 0, 0, 0)
    run(
        layout.n_steps(COLS), len(case.quants), at[0].ctypes.data, at[1].ctypes.data,
        case.quants.shape[1], case.scales.shape[1], *(plane.ctypes.data for plane in at[2:]),
        out.ctypes.data, out.strides[0], AHEAD, AHEAD, 0, *sums,
    )  # fmt: skip
    return out


if __name__ == "__main__":
    lines = list(differences(Path(sys.argv[1])))
    print("\n".join(lines))
    sys.exit(len(lines) > 1)
