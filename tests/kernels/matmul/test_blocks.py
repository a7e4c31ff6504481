"""Weights are fetched before they are needed: by every tile of tokens, and only once."""

from __future__ import annotations

from collections import Counter

import pytest

from kernels.cpu import isa
from kernels.formats import QUANT_TYPES, format_of
from kernels.matmul.blocks import MOST_SHARERS, _share
from kernels.matmul.tiles import FEW, n_tiles
from kernels.weights.layout import BlockType
from tests.arm64.cross import tile_instructions

N_STEPS = 4 * MOST_SHARERS
CACHE_LINE = 64
IS_X86 = isa() not in ("neon", "dotprod", "i8mm", "generic")


@pytest.mark.parametrize("n_rows", [*range(1, 3 * FEW), 8 * FEW, 95])
def test_the_tiles_of_a_batch_fetch_each_step_of_the_next_weights_once(n_rows: int) -> None:
    fetched: Counter[int] = Counter()
    for number in range(n_tiles(n_rows, FEW)):
        mask, further = _share(number, n_rows)
        steps = range(1 if mask < 0 else 0, N_STEPS)  # -1 stands for none but the first
        fetched.update(step + further for step in steps if step & mask == 0)
    assert fetched == Counter(range(N_STEPS))


@pytest.mark.skipif(not IS_X86, reason="counts instructions of x86")
@pytest.mark.parametrize("fmt", QUANT_TYPES)
@pytest.mark.parametrize("tokens", [1, FEW])
def test_a_tile_of_any_width_fetches_all_it_reads(fmt: str, tokens: int) -> None:
    layout = format_of(fmt).layout
    assert isinstance(layout, BlockType)
    found = Counter(tile_instructions(fmt, tokens, isa()))
    n_fetches = sum(n for name, n in found.items() if name.startswith("prefetch"))
    assert n_fetches == -(-layout.quant_bytes // CACHE_LINE) + -(-layout.scale_bytes // CACHE_LINE)
