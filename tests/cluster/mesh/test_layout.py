"""How many groups a step's rows are computed in."""

from __future__ import annotations

import pytest

from cluster.mesh.layout import n_groups


@pytest.mark.parametrize(
    ("n_rows", "dim", "least_rows", "n"),
    [
        (31, 2048, 16, 0), (32, 2048, 16, 2), (95, 2048, 16, 2), (96, 2048, 16, 3),
        (63, 1024, 16, 0), (64, 1024, 16, 2), (192, 1024, 16, 3),
        (31, 8192, 16, 0), (32, 8192, 16, 2), (47, 8192, 16, 2), (48, 8192, 16, 3),
        (63, 2048, 32, 0), (64, 2048, 32, 2), (96, 2048, 32, 3), (512, 2048, 32, 3),
    ],
)  # fmt: skip
def test_groups_are_worth_their_messages_and_their_weights(
    n_rows: int, dim: int, least_rows: int, n: int
) -> None:
    assert n_groups(n_rows, dim, least_rows, 2) == n_groups(n_rows, dim, least_rows, 5) == n
    assert n_groups(n_rows, dim, least_rows, 1) == 0
