"""The bytes of streams that go on without a client: bounded, and forgotten in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api import conversation_streams
from api.conversation_streams import (
    Conversation,
    ConversationStream,
    ConversationStreams,
    OffsetLost,
)
from api.replies.event_stream import SSE
from api.requests.stream_options import MAX_CONVERSATION_CHARS, MAX_CONVERSATIONS
from dllama.errors import EngineBusy
from tests.api.serving import run, until

Write = Callable[[ConversationStream], Coroutine[None, None, None]]


def writes(*pieces: bytes) -> Write:
    async def write(stream: ConversationStream) -> None:
        for piece in pieces:
            await stream.write(piece)

    return write


def named(name: str) -> Conversation:
    return Conversation("", name)


async def never_ends(stream: ConversationStream) -> None:
    await asyncio.Event().wait()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=12), st.integers(1, 40), st.integers(0, 200))
def test_it_holds_the_newest_bytes(pieces: list[bytes], limit: int, offset: int) -> None:
    async def check() -> None:
        stream = ConversationStream(named("a"), SSE, 0)
        for piece in pieces:
            await stream.write(piece)
            assert stream.n_kept <= limit
        stream.end()
        whole = b"".join(pieces)
        assert (stream.n_total, stream.n_kept) == (len(whole), min(len(whole), limit))
        if offset < len(whole) - limit:
            with pytest.raises(OffsetLost):
                await stream.read(offset)
        else:
            assert await stream.read(offset) == whole[offset:]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversation_streams, "MAX_STREAM_BYTES", limit)
        asyncio.run(check())


def test_several_readers_wait_for_the_same_bytes() -> None:
    async def body() -> None:
        stream = ConversationStream(named("a"), SSE, 0)
        readers = [asyncio.create_task(stream.read(0)) for _ in range(3)]
        await asyncio.sleep(0)
        await stream.write(b"news")
        assert await asyncio.gather(*readers) == [b"news"] * 3
        late = asyncio.create_task(stream.read(4))
        await asyncio.sleep(0)
        stream.end()
        assert await late == b""

    run(body)


def test_a_complete_stream_is_forgotten_in_time() -> None:
    async def body() -> None:
        streams = ConversationStreams(kept_s=0.05)
        stream = streams.open(named("a"), SSE, writes(b"x"))
        await until(lambda: stream.is_done)
        assert streams.find(named("a")) is stream
        await until(lambda: streams.find(named("a")) is None)
        again = streams.open(named("a"), SSE, never_ends)
        await asyncio.sleep(0.1)  # the timer of the first leaves the second alone
        assert streams.find(named("a")) is again
        await streams.close()

    run(body)


def test_the_oldest_complete_streams_make_room(monkeypatch) -> None:
    monkeypatch.setattr(conversation_streams, "MAX_DONE", 3)
    monkeypatch.setattr(conversation_streams, "MAX_DONE_BYTES", 10)

    async def body() -> None:
        streams = ConversationStreams()
        live = streams.open(named("live"), SSE, never_ends)
        for name in "abcde":
            stream = streams.open(named(name), SSE, writes(b"x"))
            await until(lambda stream=stream: stream.is_done)
        assert [name for name in "abcde" if streams.find(named(name))] == ["c", "d", "e"]
        big = streams.open(named("big"), SSE, writes(b"x" * 9))
        await until(lambda: big.is_done)
        assert [name for name in "abcde" if streams.find(named(name))] == ["e"]
        assert streams.find(named("big")) is big and streams.find(named("live")) is live
        await streams.close()

    run(body)


def test_too_many_at_once_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(conversation_streams, "MAX_LIVE", 2)

    async def body() -> None:
        streams = ConversationStreams()
        for name in "ab":
            streams.open(named(name), SSE, never_ends)
        with pytest.raises(EngineBusy, match="2 answers"):
            streams.open(named("c"), SSE, never_ends)
        streams.remove(named("a"))
        streams.open(named("c"), SSE, never_ends)
        streams.open(named("b"), SSE, never_ends)  # in its own place
        await streams.close()
        assert streams.of("", ["a", "b", "c"]) == []

    run(body)


def test_a_stream_that_is_removed_before_it_begins_ends_all_the_same() -> None:
    async def body() -> None:
        streams = ConversationStreams()
        stream = streams.open(named("a"), SSE, never_ends)
        streams.remove(named("a"))
        assert await stream.read(0) == b"" and streams.find(named("a")) is None
        await streams.close()

    run(body)


def test_what_went_wrong_is_kept_and_the_stream_is_not() -> None:
    async def fails(stream: ConversationStream) -> None:
        raise EngineBusy("no room", retry_after_s=1.0)

    async def body() -> None:
        streams = ConversationStreams()
        stream = streams.open(named("a"), SSE, fails)
        assert await stream.read(0) == b""
        assert isinstance(stream.failure, EngineBusy) and streams.find(named("a")) is None

    run(body)


def test_the_document_shows_the_limits() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "streams.md").read_text()
    limits = conversation_streams
    for shown in (
        f"| {limits.MAX_STREAM_BYTES >> 20} MiB |",
        f"| {limits.KEPT_S:.0f} s |",
        f"| {limits.MAX_LIVE} |",
        f"| {limits.MAX_DONE:,} and {limits.MAX_DONE_BYTES >> 20} MiB together |",
        f"| {MAX_CONVERSATION_CHARS} |",
        f"| {MAX_CONVERSATIONS:,} |",
    ):
        assert shown in text, shown
