"""Products of several matrices with rows of their own are those of each matrix alone."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.experts.slots import gather
from kernels.matmul.multiply import matmul
from kernels.matmul.sums import FixedSums
from kernels.prepare import activations
from kernels.weights.layout import Needs, Packed
from kernels.weights.packing import Packing
from tests.fixed_sums import values_of
from tests.kernels.experts.test_slots import table_of
from tests.kernels.matmul.test_multiply import _input
from tests.kernels.weights.random_weights import weights

N_MATRICES, ROWS, COLS = 4, 40, 256  # 40 rows are two groups and a half
FORMATS = ["f32", "bf16", "q4_0", "q6_k"]
DEALS = {
    "one-row-each": [(0, 0, 1), (2, 1, 1), (3, 2, 1)],
    "few": [(1, 0, 5), (3, 5, 9)],
    "few-and-many": [(0, 0, 97), (1, 97, 2), (3, 99, 30)],
    "one": [(2, 0, 3)],
}


def packed(team: np.ndarray, fmt: str, raw: np.ndarray, n_matrices: int) -> Packed:
    packing = Packing(team, fmt, len(raw) // n_matrices, COLS, n_matrices)
    packing.add(raw)
    return packing.packed()


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("deal", DEALS.values(), ids=DEALS)
def test_each_batch_is_a_product_of_its_own(
    team: np.ndarray, fmt: str, deal: list[tuple[int, int, int]]
) -> None:
    raw, _ = weights(fmt, N_MATRICES * ROWS, COLS)
    together = packed(team, fmt, raw, N_MATRICES)
    n_rows = sum(count for _, _, count in deal)
    x = np.random.default_rng(n_rows).standard_normal((n_rows, COLS)).astype(np.float32)
    a, needs = activations(n_rows, COLS), Needs(True, True, True)
    gather(team, x, np.arange(n_rows, dtype=np.int32), table_of(deal), a, needs)
    out, sums = np.full((n_rows, 48), np.nan, np.float32), FixedSums.zeros(n_rows, 48)
    matmul(team, together, a, n_rows, out, table=table_of(deal))
    matmul(team, together, a, n_rows, sums, 0, 64, table_of(deal))
    for matrix, first, count in deal:
        alone = packed(team, fmt, raw[matrix * ROWS : (matrix + 1) * ROWS], 1)
        own = _input(team, x[first : first + count])
        wanted, exact = np.zeros((count, 48), np.float32), FixedSums.zeros(count, 48)
        matmul(team, alone, own, count, wanted)
        matmul(team, alone, own, count, exact, 0, 64)
        assert np.array_equal(out[first : first + count], wanted)
        part = sums.rows(slice(first, first + count))
        assert np.array_equal(values_of(part), values_of(exact))


def test_matrices_lie_in_one_plane_at_equal_distances(team: np.ndarray) -> None:
    """Also where the rows of each come in two parts."""
    raw, _ = weights("q4_0", N_MATRICES * ROWS, COLS)
    each = raw.reshape(N_MATRICES, ROWS, -1)
    packing = Packing(team, "q4_0", ROWS, COLS, N_MATRICES)
    for part in (each[:, :24], each[:, 24:]):
        packing.add(np.ascontiguousarray(part).reshape(-1, each.shape[2]))
    found = packing.packed()
    assert np.array_equal(found.quants, packed(team, "q4_0", raw, N_MATRICES).quants)
    assert (found.rows, found.n_matrices, len(found.quants)) == (ROWS, N_MATRICES, N_MATRICES * 3)
    for matrix in range(N_MATRICES):
        alone = packed(team, "q4_0", each[matrix], 1)
        assert np.array_equal(found.quants[3 * matrix :][:3], alone.quants)
    with pytest.raises(ValueError, match="not as many of each of 4"):
        Packing(team, "q4_0", ROWS, COLS, N_MATRICES).add(raw[:5])
