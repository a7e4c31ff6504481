"""The machine code of quantized weights for AArch64 has the instructions that it was written for.
Made by cross-compiling: no such processor is needed. `make test-arm64` also runs it."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.arm64.cross import QUANTS, tile_instructions

DOTS_OF_A_TOKEN = 32  # 32 columns of 16 rows are 8 vectors of 64 bytes: 4 registers each


@pytest.mark.parametrize("fmt", QUANTS)
def test_each_type_multiplies_four_bytes_at_once(fmt: str) -> None:
    found = Counter(tile_instructions(fmt, 1, "dotprod"))
    assert found["sdot"] == DOTS_OF_A_TOKEN
    assert not found["smmla"] and not found["smull"]


@pytest.mark.parametrize(("tokens", "pairs", "alone"), [(1, 0, 1), (3, 1, 1), (4, 2, 0)])
def test_pairs_of_tokens_are_multiplied_with_pairs_of_rows(
    tokens: int, pairs: int, alone: int
) -> None:
    found = Counter(tile_instructions("q4_0", tokens, "i8mm"))
    assert found["smmla"] == pairs * DOTS_OF_A_TOKEN  # half as many as sdot
    assert found["sdot"] == alone * DOTS_OF_A_TOKEN


def test_a_processor_without_dot_products_multiplies_in_16_bits() -> None:
    found = Counter(tile_instructions("q8_0", 1, "neon"))
    assert found["smull"] + found["smull2"] == 2 * DOTS_OF_A_TOKEN
    assert found["sadalp"] + found["saddlp"] == DOTS_OF_A_TOKEN
    assert not found["sdot"] and not found["smmla"]


def test_tables_are_looked_up_in_one_instruction() -> None:
    assert Counter(tile_instructions("iq4_nl", 1, "dotprod"))["tbl"] == DOTS_OF_A_TOKEN
