"""All families of instructions that this processor runs give the same bits: those of the portable
one, for every quant type. `make test-arm64` does the same on AArch64."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.cpu import available_isas
from kernels.formats import format_of
from kernels.weights.layout import BLOCK, BlockType
from tests.arm64.cross import QUANTS, tile_object
from tests.arm64.tile_cases import KINDS, TOKENS, Case, product, random_case, tile_function

OTHERS = [name for name in available_isas() if name != "generic"]


@pytest.mark.skipif(not OTHERS, reason="this processor has the portable family alone")
@pytest.mark.parametrize("fmt", QUANTS)
def test_products_are_those_of_the_portable_family(fmt: str) -> None:
    case, portable = random_case(fmt), tile_function(tile_object(fmt, TOKENS, "generic"), fmt)
    expected = {kind: product(portable, fmt, case, kind) for kind in KINDS}
    assert all(np.isfinite(found).all() and found.any() for found in expected.values())
    largest = with_largest_numbers(fmt, case)
    expected_of_largest = product(portable, fmt, largest, "plain")
    for family in OTHERS:
        run = tile_function(tile_object(fmt, TOKENS, family), fmt)
        for kind in KINDS:
            assert np.array_equal(product(run, fmt, case, kind), expected[kind]), (family, kind)
        assert np.array_equal(product(run, fmt, largest, "plain"), expected_of_largest), family


def with_largest_numbers(fmt: str, case: Case) -> Case:
    """The case with activations of 127, and where quants are packed as numbers, the largest of
    them: sums of products that some families keep in 16 bits still have to fit."""
    layout = format_of(fmt).layout
    assert isinstance(layout, BlockType)
    quants = case.quants if layout.runs else np.full_like(case.quants, 255)
    largest, sums = np.full_like(case.a_quants, 127), np.empty_like(case.a_sums)
    sums[..., :2], sums[..., 2] = -127 * (BLOCK // 2), -127 * BLOCK
    weighted = sums.astype(np.float32) * case.a_scales[..., None]
    return case._replace(quants=quants, a_quants=largest, a_sums=sums, a_weighted=weighted)
