"""What the ranks of a plan will need if one of them is lost. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from dllama.config import ModelConfig
from dllama.errors import ShardError
from dllama.sharding.pieces import Piece, SizedPiece, pieces_of
from dllama.sharding.plan import plan_for
from dllama.weight_source import TensorInfo


class SpareNeed(NamedTuple):
    """The pieces that `rank` will need if `lost` goes away, in feed order; there may be none."""

    rank: int
    lost: int
    pieces: list[SizedPiece]


def needs_after_losses(
    config: ModelConfig, tensors: Mapping[str, TensorInfo], shares: Sequence[float]
) -> Iterator[SpareNeed]:
    """Yields what each worker will need after the loss of each other one, but for what it needs
    anyway or was named before. Rank 0 has the model file and cannot be lost.

    Each is planned when it is asked for, which takes milliseconds for a large model. A loss after
    which the model cannot be cut is left out.
    """
    workers = range(1, len(shares))
    plan = plan_for(config, tensors, shares)
    known: dict[int, set[Piece]] = {}
    for lost in workers:
        try:
            rest = plan_for(config, tensors, [s for r, s in enumerate(shares) if r != lost])
        except ShardError:
            continue
        for rank in workers:
            if rank == lost:
                continue
            if rank not in known:
                known[rank] = {sized.piece for sized in pieces_of(config, tensors, plan[rank])}
            needed = pieces_of(config, tensors, rest[rank - (rank > lost)])
            new = [sized for sized in needed if sized.piece not in known[rank]]
            known[rank].update(sized.piece for sized in new)
            yield SpareNeed(rank, lost, new)
