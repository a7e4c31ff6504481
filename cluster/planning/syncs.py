"""What ranks exchange for a synchronisation, in bytes: the one place of the planner that knows how
`cluster/mesh` sends sums. Pure."""

from __future__ import annotations

from typing import NamedTuple

from cluster.mesh.collective import MIN_GROUP_ROWS
from cluster.mesh.layout import is_scattered
from cluster.mesh.sync_type import SyncType

SYNC_BYTES = {SyncType.EXACT: 4.0, SyncType.F32: 4.0, SyncType.BF16: 2.0, SyncType.Q80: 34 / 32}
"""Bytes of a value of a partial sum on the wire."""
SUM_BYTES = 4  # of a value of a sum that is made


class Exchanged(NamedTuple):
    """A synchronisation of some rows: in each hop a rank sends every other so many bytes, and it
    adds up so many of its own and of each other's. While one of `n_groups` of the rows travels,
    another one is computed."""

    hops: tuple[float, ...]
    added_bytes: float
    n_groups: int


def exchanged(dim: int, n_rows: int, world_size: int, sync_type: SyncType) -> Exchanged:
    """Returns what ranks exchange for `n_rows` rows of `dim` values."""
    of_value = SYNC_BYTES[sync_type]
    n_groups = _n_groups(n_rows, world_size)
    n_bytes = n_rows * dim * of_value
    if is_scattered(world_size, n_rows // n_groups, int(dim * of_value), SUM_BYTES * dim):
        gathered = n_rows * dim * SUM_BYTES / world_size
        return Exchanged((n_bytes / world_size, gathered), n_bytes / world_size, n_groups)
    return Exchanged((n_bytes,), n_bytes, n_groups)


def _n_groups(n_rows: int, world_size: int) -> int:
    """Returns the groups that a long step's rows are computed in, over links (between ranks that
    share memory there is one)."""
    if n_rows < 2 * MIN_GROUP_ROWS or world_size == 1:
        return 1
    return 3 if world_size > 2 and n_rows >= 3 * MIN_GROUP_ROWS else 2
