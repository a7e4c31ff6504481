"""Weights arrive as they left, within the window, and nothing else passes for them."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from cluster import feed as feed_module
from cluster.feed import (
    WINDOW,
    Feeder,
    FeedProgress,
    RankFeed,
    received_tensors,
)
from cluster.wire.messages import Chunk, pack, unpack
from dllama.errors import ProtocolError
from dllama.qtypes import QType
from dllama.sharding.cut import cut_manifest, cut_tensors
from dllama.sharding.plan import plan_for
from dllama.weight_source import TensorFeed, TensorInfo
from tests.cluster.array_source import ArraySource, small_config

ONE = [TensorInfo("norm", QType.F32, 1, 4)]


@pytest.mark.parametrize("chunk_bytes", [100, 1 << 20])
def test_every_rank_gets_its_cut_within_the_window(
    monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    monkeypatch.setattr(feed_module, "CHUNK_BYTES", chunk_bytes)
    config = small_config(dim=64, head_dim=16)
    source = ArraySource(config, QType.Q8_0)
    shards = plan_for(config, source.tensors, [1.0, 2.0])
    manifests = [[c.info for c in cut_manifest(config, source.tensors, s)] for s in shards]
    queues: dict[int, deque[Chunk]] = {0: deque(), 1: deque()}
    seen: list[FeedProgress] = []
    feeder = Feeder(
        {r: RankFeed(cut_tensors(source, shards[r])) for r in (0, 1)},
        lambda rank, chunk: queues[rank].append(chunk),
        seen.append,
    )

    def next_chunk(rank: int) -> Chunk:
        feeder.pump()
        assert len(queues[rank]) <= WINDOW
        return queues[rank].popleft()

    for rank, shard in enumerate(shards):
        received = received_tensors(
            manifests[rank], lambda r=rank: next_chunk(r), lambda n, r=rank: feeder.credit(r, n)
        )
        for (info, array), (want_info, want) in zip(
            received, cut_tensors(source, shard), strict=True
        ):
            assert info == want_info and array.tobytes() == want.tobytes()
    feeder.pump()
    assert feeder.is_done and not any(queues.values())
    for rank in (0, 1):
        last = [p for p in seen if p.rank == rank][-1]
        assert last.done_bytes == last.total_bytes == sum(m.n_bytes for m in manifests[rank])


def test_credit_for_chunks_that_were_not_sent_is_an_error() -> None:
    feed = RankFeed(TensorFeed(ONE, [(ONE[0], np.zeros((1, 16), np.uint8))]))
    assert len(list(feed.next_chunks())) == 1
    for n_chunks in (0, -1, 2):
        with pytest.raises(ProtocolError):
            feed.credit(n_chunks)


def test_credit_for_several_chunks_is_for_the_oldest() -> None:
    infos = [TensorInfo(f"t{n}", QType.F32, 1, n) for n in (1, 2, 3, 4)]
    arrays = [(info, np.zeros((1, info.n_bytes), np.uint8)) for info in infos]
    feed = RankFeed(TensorFeed(infos, arrays))
    assert len(list(feed.next_chunks())) == 4
    taken = []
    for n_chunks in (2, 1, 1):
        assert not feed.is_done
        feed.credit(n_chunks)
        taken.append(feed.done_bytes)
    assert taken == [12, 24, 40] and feed.is_done


@pytest.mark.parametrize(
    "chunk",
    [
        Chunk(1, 0, np.zeros(16, np.uint8)),
        Chunk(0, 4, np.zeros(12, np.uint8)),
        Chunk(0, 4, np.zeros(4, np.uint8)),
        Chunk(0, 0, np.zeros(17, np.uint8)),
        Chunk(0, 0, np.zeros(0, np.uint8)),
        Chunk(0, 0, np.zeros((4, 4), np.uint8)),
    ],
)
def test_a_chunk_that_is_not_the_next_one_is_an_error(chunk: Chunk) -> None:
    def next_chunk() -> Chunk:
        _, received = unpack([bytes(frame) for frame in pack(chunk)])
        assert isinstance(received, Chunk)
        return received

    with pytest.raises(ProtocolError, match=r"norm|'data' of a Chunk"):
        list(received_tensors(ONE, next_chunk, lambda _: None))
