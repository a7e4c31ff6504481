"""Ranks get the pieces that they ask for, in order, within the window."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.feed import WINDOW, Feeder, FeedProgress, RankFeed
from cluster.wire.messages import Chunk
from dllama.errors import ProtocolError
from dllama.qtypes import QType
from dllama.sharding.pieces import pieces_of, read_piece, whole_model
from dllama.sharding.plan import plan_for
from tests.cluster.array_source import ArraySource, small_config

SOURCE = ArraySource(small_config(dim=64, head_dim=16), QType.Q8_0)
PIECES = [p for tiled in whole_model(SOURCE.config, SOURCE.tensors) for p in tiled.sized()]


def piece_bytes(number: int) -> bytes:
    return read_piece(SOURCE, PIECES[number]).tobytes()


def drained(feed: RankFeed, *earlier: Chunk) -> dict[int, bytes]:
    """All that the feed sends, and has sent earlier, by piece in the order of sending."""
    got: dict[int, bytes] = {chunk.piece: chunk.data.tobytes() for chunk in earlier}
    while chunks := list(feed.next_chunks()):
        assert len(chunks) <= WINDOW
        for chunk in chunks:
            assert chunk.offset == len(got.setdefault(chunk.piece, b""))
            got[chunk.piece] += chunk.data.tobytes()
        feed.credit(len(chunks))
    return got


@pytest.mark.parametrize("chunk_bytes", [100, 1 << 20])
def test_a_feed_sends_what_is_wanted_in_that_order(chunk_bytes: int) -> None:
    feed = RankFeed(SOURCE, PIECES, chunk_bytes=chunk_bytes)
    assert not drained(feed) and not feed.is_done, "nothing is sent before the rank has asked"
    wanted = [5, 0, 7, len(feed.pieces) - 1]
    feed.want(wanted)
    got = drained(feed)
    assert list(got) == wanted and all(got[n] == piece_bytes(n) for n in wanted)
    assert feed.is_done and feed.sent_bytes == sum(len(data) for data in got.values())
    assert feed.found_bytes + feed.sent_bytes == feed.total_bytes == sum(p.n_bytes for p in PIECES)


def test_what_is_asked_for_later_comes_next() -> None:
    feed = RankFeed(SOURCE, PIECES, window=1, chunk_bytes=64)
    feed.want([0, 1, 2])
    first = next(feed.next_chunks())
    feed.credit(1)
    feed.want([6, 5])
    got = drained(feed, first)
    assert list(got) == [0, 6, 5, 1, 2] and all(got[n] == piece_bytes(n) for n in got)
    assert feed.n_again == 2
    assert feed.is_done


def test_a_rank_that_wants_nothing_is_done_at_once() -> None:
    feed = RankFeed(SOURCE, PIECES)
    feed.want([])
    assert feed.is_done and feed.found_bytes == feed.total_bytes and not drained(feed)


@pytest.mark.parametrize("number", [-1, 10_000])
def test_pieces_that_are_not_there_cannot_be_asked_for(number: int) -> None:
    with pytest.raises(ProtocolError, match="no part"):
        RankFeed(SOURCE, PIECES).want([number])


def test_credit_for_chunks_that_were_not_sent_is_an_error() -> None:
    feed = RankFeed(SOURCE, PIECES)
    feed.want([0])
    assert len(list(feed.next_chunks())) == 1
    for n_chunks in (0, -1, 2):
        with pytest.raises(ProtocolError):
            feed.credit(n_chunks)


def test_credit_for_several_chunks_is_for_the_oldest() -> None:
    feed = RankFeed(SOURCE, PIECES)
    feed.want([0, 1, 2, 3])
    sizes = [chunk.data.size for chunk in feed.next_chunks()]
    taken = []
    for n_chunks in (2, 1, 1):
        assert not feed.is_done
        feed.credit(n_chunks)
        taken.append(feed.sent_bytes)
    assert taken == [sum(sizes[:2]), sum(sizes[:3]), sum(sizes)] and feed.is_done


def test_a_feeder_tells_what_every_rank_has() -> None:
    shards = plan_for(SOURCE.config, SOURCE.tensors, [1.0, 2.0])
    sent: dict[int, list[Chunk]] = {0: [], 1: []}
    seen: list[FeedProgress] = []
    feeds = {
        r: RankFeed(SOURCE, pieces_of(SOURCE.config, SOURCE.tensors, shards[r])) for r in (0, 1)
    }
    feeder = Feeder(feeds, lambda rank, chunk: sent[rank].append(chunk), seen.append)
    feeder.want(0, [])
    feeder.want(1, list(range(len(feeds[1].pieces))))
    while not feeds[1].is_done:
        feeder.pump()
        assert not sent[0] and len(sent[1]) <= WINDOW
        feeder.credit(1, len(sent[1]))
        sent[1].clear()
    assert feeder.n_again(1) == 0
    feeder.want(1, [3, 4])
    assert (feeder.n_again(0), feeder.n_again(1), seen[-1].n_again) == (0, 2, 0)
    feeder.pump()
    feeder.credit(1, len(sent[1]))
    assert seen[-1].n_again == 2
    last = {p.rank: p for p in seen if not p.n_again}
    assert last[0].found_bytes == last[0].total_bytes == feeds[0].total_bytes
    assert last[0].sent_bytes == last[1].found_bytes == 0
    assert last[1].sent_bytes == last[1].total_bytes == feeds[1].total_bytes


def test_the_memory_behind_a_tensor_is_given_back() -> None:
    source = ArraySource(small_config())
    feed = RankFeed(source, PIECES)
    feed.want(range(len(feed.pieces)))
    while chunks := list(feed.next_chunks()):
        feed.credit(len(chunks))
    assert set(source.released) == {piece.tensor for piece in feed.pieces}
    assert np.unique(source.released).size == len(source.released)


def test_a_rank_that_takes_no_more_is_sent_no_more() -> None:
    feed = RankFeed(SOURCE, PIECES, window=1, chunk_bytes=64)
    feed.want([4, 5, 6])
    first = next(feed.next_chunks())
    feed.credit(1)
    feed.want([])
    assert list(drained(feed, first)) == [4] and feed.is_done
