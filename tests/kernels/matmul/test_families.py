"""All families of instructions that this processor runs give the same bits: those of the portable
one, for every quant type. `make test-arm64` does the same on AArch64."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.cpu import available_isas
from tests.arm64.cross import QUANTS, tile_object
from tests.arm64.tile_cases import KINDS, TOKENS, product, random_case, tile_function

OTHERS = [name for name in available_isas() if name != "generic"]


@pytest.mark.skipif(not OTHERS, reason="this processor has the portable family alone")
@pytest.mark.parametrize("fmt", QUANTS)
def test_products_are_those_of_the_portable_family(fmt: str) -> None:
    case, portable = random_case(fmt), tile_function(tile_object(fmt, TOKENS, "generic"), fmt)
    expected = {kind: product(portable, fmt, case, kind) for kind in KINDS}
    assert all(np.isfinite(found).all() and found.any() for found in expected.values())
    for family in OTHERS:
        run = tile_function(tile_object(fmt, TOKENS, family), fmt)
        for kind in KINDS:
            assert np.array_equal(product(run, fmt, case, kind), expected[kind]), (family, kind)
