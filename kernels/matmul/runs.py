"""Tiles of tokens over runs of groups, for quantized and for float weights: the emitted code around
a tile, and the share of groups a thread claims."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from kernels.emit.emitter import Emit, call_one_of, emitted_function
from kernels.emit.families import Family
from kernels.emit.jit import intrinsic, jitted
from kernels.emit.later import types
from kernels.emit.vectors import Value
from kernels.matmul.sums import SumArgs
from kernels.matmul.tiles import MANY_FROM

GROUPS_AT_ONCE = 4  # groups that the tiles of many tokens read in turn
BYTES_AT_ONCE = 128 << 10  # of these groups: with the next ones they have to fit a second cache
ROUGH_SHARE = 8  # pieces of work a thread gets, so that a slow core does not hold up the others


class Pointers:
    """The addresses a tile reads from and writes to, and its sizes, as LLVM values."""

    N_ARGS = 16 + len(SumArgs._fields)

    def __init__(self, args: Any) -> None:
        (self.n_steps, self.n_groups, self.quants, self.scales, self.quant_stride,
         self.scale_stride, self.a_quants, self.a_scales, self.a_sums, self.a_weighted, self.out,
         self.out_stride, self.quants_ahead, self.scales_ahead, self.pace, self.first_block,
         *sums) = args  # fmt: skip
        self.sums = SumArgs(*sums)


EmitTile = Callable[[Emit, Pointers, int, int, Value], None]
"""emit_tile(e, pointers, tokens, groups, first) emits `groups` groups of 16 rows from group `first`
on, times a tile of `tokens` tokens."""


def _emit_run(emit_tile: EmitTile, tokens: int, at_once: int, e: Emit, args: Any) -> None:
    """A tile of `tokens` tokens over a run of groups."""
    p, size = Pointers(args), e.i64(at_once)
    with e.loop(e.b.sdiv(p.n_groups, size)) as turn:
        emit_tile(e, p, tokens, at_once, e.b.mul(turn, size))
    if at_once > 1:
        left = e.b.srem(p.n_groups, size)
        with e.loop(left) as turn:
            number = e.b.add(e.b.sub(p.n_groups, left), turn)
            emit_tile(e, p, tokens, 1, number)


def run_function(
    module: Any, name: str, emit_tile: EmitTile, tokens: int, at_once: int,
    family: Family | None = None,
) -> Any:  # fmt: skip
    """Returns the function of a tile of `tokens` tokens over a run of groups, and emits it into a
    module the first time; its arguments are Pointers. `family` is that of this processor unless the
    code is for another one."""
    emit = partial(_emit_run, emit_tile, tokens, at_once)
    full = f"dllama.tile.{name}.{tokens}"
    return emitted_function(module, full, Pointers.N_ARGS, emit, family)


def run_of_groups(
    name: str, emit_tile: EmitTile, narrowest: int, widest: int, at_once: dict[int, int]
) -> Any:
    """An intrinsic tile(tokens, <Pointers>) that calls the function for that many tokens,
    `narrowest` to `widest`. `at_once` says by tokens how many groups are worked on at once; others
    take one."""

    @intrinsic
    def tile(typingctx: Any, tokens: Any, pointers: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            args = [builder.extract_value(values[1], i) for i in range(Pointers.N_ARGS)]
            functions = [
                (n, run_function(builder.module, name, emit_tile, n, at_once.get(n, 1)))
                for n in range(narrowest, widest + 1)
            ]
            call_one_of(builder, values[0], functions, args)
            return context.get_dummy_value()

        return types.void(types.int64, types.UniTuple(types.int64, Pointers.N_ARGS)), codegen

    return tile


@jitted
def groups_at_once(group_bytes):
    """Groups that the tiles of many tokens read in turn, while as many are fetched."""
    return max(1, min(GROUPS_AT_ONCE, BYTES_AT_ONCE // group_bytes))


@jitted
def chunk_of_groups(n_groups, n_threads, n_tokens):
    """Groups to claim at once: whole register tiles; few for many tokens, whose work is long."""
    if n_tokens >= MANY_FROM:
        return GROUPS_AT_ONCE
    share = n_groups // (n_threads * ROUGH_SHARE)
    return max(4, share // 4 * 4)
