"""What a root asks of its ranks before it plans, and their figures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from cluster.mesh.probe import SIZES, PeerLink
from dllama.errors import ProtocolError
from dllama.limits import MaxLength, Range
from dllama.qtypes import COMPUTABLE, QType
from dllama.speeds import KernelSpeeds


@dataclass(frozen=True, slots=True)
class Measure:
    """Root to rank, once all have joined: measure the kernels for these types, in at most so much
    memory, and then the links to all other ranks, which do the same. Steps are measured with the
    first type, of which the model has the most bytes. Once in a session."""

    types: Annotated[list[QType], MaxLength(64)]
    max_bytes: Annotated[int, Range(1, (1 << 31) - 1)]


@dataclass(frozen=True, slots=True)
class Measured:
    """Rank to root: its kernels, its links to higher ranks, and a sum of one row over all ranks,
    as steps make it (0 where there is one rank)."""

    speeds: KernelSpeeds
    links: Annotated[list[PeerLink], MaxLength(1 << 10)]
    row_sum_us: float = 0.0


def check_measure(asked: Measure) -> None:
    """Raises ProtocolError for types that there are no kernels for."""
    if not asked.types or not COMPUTABLE.issuperset(asked.types):
        raise ProtocolError(f"the root asks for the speed of types without kernels: {asked.types}")


def check_measured(found: Measured, rank: int, world_size: int, types: Iterable[QType]) -> None:
    """Raises ProtocolError for figures that cannot be, or not of what was asked."""
    is_sound = found.speeds.is_sound and (world_size == 1 or 0 < found.row_sum_us < math.inf)
    is_sound = is_sound and [each.qtype for each in found.speeds.types] == sorted(set(types))
    is_sound = is_sound and [link.rank for link in found.links] == [*range(rank + 1, world_size)]
    for link in found.links:
        sizes = [point.n_bytes for point in link.speed.points]
        is_sound = is_sound and link.speed.is_sound and sizes == [*SIZES[: len(sizes)]]
    if not is_sound:
        raise ProtocolError(f"rank {rank} measured what cannot be: {str(found)[:500]}")
