"""Machine code of kernels for AArch64, made on any machine: LLVM needs no processor for that. And
for this machine's own processor, to compare with."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from kernels.emit.families import FAMILIES
from kernels.formats import QUANT_TYPES, format_of
from kernels.machine_code import target_machine
from kernels.matmul.blocks import emit_tile
from kernels.matmul.runs import run_function
from kernels.weights.layout import BlockType
from tests.arm64.pretence import TRIPLE

FLAGS = {"neon": "+neon", "dotprod": "+neon,+dotprod", "i8mm": "+neon,+dotprod,+i8mm"}
"""LLVM's features of each family of AArch64."""

QUANTS = tuple(QUANT_TYPES)


@cache
def _machine(family: str) -> Any:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    if family not in FLAGS:
        return target_machine()
    target = llvm.Target.from_triple(TRIPLE)
    return target.create_target_machine(cpu="generic", features=FLAGS[family], opt=3, jit=True)


def tile_name(fmt: str, tokens: int) -> str:
    """The name of a tile's function."""
    return f"dllama.tile.{fmt}.{tokens}"


def _module(fmt: str, tokens: int, family: str) -> Any:
    """The optimised module of a tile of weights of one quant type."""
    layout = format_of(fmt).layout
    assert isinstance(layout, BlockType)
    module = ir.Module("tile")
    module.triple = TRIPLE if family in FLAGS else llvm.get_process_triple()
    tile = partial(emit_tile, layout)
    run_function(module, fmt, tile, tokens, 1, FAMILIES[family]).linkage = "external"
    parsed, machine = llvm.parse_assembly(str(module)), _machine(family)
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(parsed, builder)
    return parsed


def tile_object(fmt: str, tokens: int, family: str) -> bytes:
    """The object code of a tile."""
    return bytes(_machine(family).emit_object(_module(fmt, tokens, family)))


def tile_instructions(fmt: str, tokens: int, family: str) -> list[str]:
    """The names of the instructions of a tile, as they stand in its assembly."""
    text = _machine(family).emit_assembly(_module(fmt, tokens, family))
    lines = (line for line in text.splitlines() if line.startswith("\t"))
    return [line.split()[0] for line in lines if not line.startswith("\t.")]
