"""What ranks exchange for a synchronisation, in bytes: the one place of the planner that knows how
`cluster/mesh` sends sums. Pure."""

from __future__ import annotations

from typing import NamedTuple

from cluster.mesh.layout import is_scattered, n_groups
from cluster.mesh.sync_type import SyncType

SYNC_BYTES = {SyncType.EXACT: 4.0, SyncType.F32: 4.0, SyncType.BF16: 2.0, SyncType.Q80: 34 / 32}
"""Bytes of a value of a partial sum on the wire."""
SUM_BYTES = 4  # of a value of a sum that is made
QUANT_BYTES = 36 / 32  # of a value of a normed row that is read quantized


class Exchanged(NamedTuple):
    """A synchronisation of some rows: in each hop a rank sends every other so many bytes, and it
    adds up so many of its own and of each other's. While one of `n_groups` of the rows travels,
    another one is computed; each rank norms `normed_rows` of them."""

    hops: tuple[float, ...]
    added_bytes: float
    n_groups: int
    normed_rows: float


def exchanged(
    dim: int, n_rows: int, world_size: int, sync_type: SyncType, normed_quants: bool, n_least: int
) -> Exchanged:
    """Returns what ranks exchange for `n_rows` rows of `dim` values, of which a group has at least
    `n_least`."""
    of_value = SYNC_BYTES[sync_type]
    n_bytes, own_rows = n_rows * dim * of_value, n_rows / world_size
    if groups := n_groups(n_rows, dim, n_least, world_size):
        gathered = own_rows * dim * (QUANT_BYTES if normed_quants else SUM_BYTES)
        return Exchanged((n_bytes / world_size, gathered), n_bytes / world_size, groups, own_rows)
    if is_scattered(world_size, n_rows, int(dim * of_value), SUM_BYTES * dim):
        gathered = own_rows * dim * SUM_BYTES
        return Exchanged((n_bytes / world_size, gathered), n_bytes / world_size, 1, n_rows)
    return Exchanged((n_bytes,), n_bytes, 1, n_rows)
