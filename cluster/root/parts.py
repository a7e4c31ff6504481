"""What all sessions of a runner share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cluster.feed import FeedProgress
from cluster.rank import LoadRank
from cluster.root.session_plan import ClusterConfig
from cluster.weights.digests import PieceDigests
from dllama.runtime.embedding import EmbeddingTable
from dllama.weight_source import WeightSource


@dataclass(frozen=True, slots=True)
class RootParts:
    """The parts that all sessions of a runner share."""

    source: WeightSource
    config: ClusterConfig
    load_rank: LoadRank
    embedding: EmbeddingTable
    root: str  # names this runner to daemons
    release: str
    on_progress: Callable[[FeedProgress], None] | None
    digests: PieceDigests
