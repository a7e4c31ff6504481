"""The registry of types: each is what ggml says it is, and the one place to add one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dllama.qtypes import BLOCK, COMPUTABLE, PACKED_BYTES, QType, packed_row_bytes
from kernels.formats import ALL_TYPES, QUANT_TYPES, format_of
from kernels.weights.layout import WORD_BYTES, BlockType

gguf = pytest.importorskip("gguf")

NEWER = {"q2_0": (64, 18)}
"""Sizes of types that the gguf package does not know yet, as ggml has them."""


@pytest.mark.parametrize("name", ALL_TYPES)
def test_blocks_are_ggmls(name: str) -> None:
    layout = format_of(name).layout
    size = NEWER.get(name) or gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name.upper()]]
    assert (layout.values, layout.row_bytes(layout.values)) == size == BLOCK[QType[name.upper()]]
    assert layout.name == name


@pytest.mark.parametrize("name", QUANT_TYPES)
def test_a_packed_unit_is_as_large_as_the_block(name: str) -> None:
    """Or at most a tenth larger, and memory needs know of it."""
    layout = format_of(name).layout
    assert isinstance(layout, BlockType)
    quants, scales = layout.group_bytes(layout.values)
    packed_bytes = PACKED_BYTES.get(QType[name.upper()], layout.raw_bytes)
    assert quants + scales == 16 * packed_bytes
    assert layout.raw_bytes <= packed_bytes <= 1.1 * layout.raw_bytes
    sizes = [WORD_BYTES[kind] for _, kind in layout.words]
    assert sizes == sorted(sizes, reverse=True)  # each word lies at a multiple of its size


@pytest.mark.parametrize("own", [range(512), range(256, 512), range(32, 480), range(96)], ids=str)
@pytest.mark.parametrize("name", ALL_TYPES)
def test_memory_needs_know_what_is_kept_of_cut_units(name: str, own: range) -> None:
    layout = format_of(name).layout
    first_block = own.start % layout.values // 32
    kept = sum(layout.group_bytes(len(own), first_block))
    assert 16 * packed_row_bytes(QType[name.upper()], own) == kept


def test_what_can_be_computed_follows_from_the_registry() -> None:
    assert {qtype.name.lower() for qtype in COMPUTABLE} == set(ALL_TYPES)


def test_the_list_of_types_does_not_load_the_compiler() -> None:
    code = "import sys, dllama.qtypes; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
