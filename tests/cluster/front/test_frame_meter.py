"""A meter knows where messages end, whatever pieces they come in, and refuses what has no end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.front.frame_meter import MAX_PARTS, FrameMeter
from dllama.errors import ProtocolError
from tests.cluster.front.zmtp import GREETING, READY, frame

MAX_BYTES = 1000
Parts = st.lists(st.binary(max_size=300), min_size=1, max_size=3)


def message(parts: list[bytes]) -> bytes:
    return b"".join(frame(p, more=i < len(parts) - 1) for i, p in enumerate(parts))


@given(st.lists(Parts, max_size=5), st.integers(1, 97), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_units_are_those_of_the_stream_whatever_its_pieces(
    messages: list[list[bytes]], size: int, max_units: int
) -> None:
    meter = FrameMeter(MAX_BYTES)
    stream = GREETING + READY + b"".join(map(message, messages))
    at = 0
    while at < len(stream):
        before = meter.n_units
        n = meter.take(stream[at : at + size], max_units)
        assert n > 0 and meter.n_units - before <= max_units
        at += n
    assert meter.n_units == 1 + len(messages) and meter.has_greeted


def test_a_message_ends_where_it_is_asked_to_stop() -> None:
    meter = FrameMeter(MAX_BYTES)
    two = message([b"a", b"b"]) + message([b"c"])
    assert meter.take(GREETING + READY + two, 2) == len(GREETING + READY + message([b"a", b"b"]))
    assert meter.n_units == 2


@pytest.mark.parametrize(
    "stream",
    [
        b"GET / HTTP/1.1\r\n",
        GREETING[:9] + b"\x00",
        GREETING[:10] + b"\x01" + GREETING[11:],  # ZMTP 1
        GREETING + b"\x08\x00",
        GREETING + b"\x05\x00",  # a command that goes on
        GREETING + b"\x02" + (MAX_BYTES + 1).to_bytes(8),
        GREETING + b"\x02" + b"\xff" * 8,
        GREETING + READY + message([b"x"] * (MAX_PARTS + 1)),
        GREETING + READY + frame(b"x" * 600, more=True) + frame(b"x" * 600, more=True),
    ],
)
def test_what_breaks_the_rules_is_an_error(stream: bytes) -> None:
    meter = FrameMeter(MAX_BYTES)
    with pytest.raises(ProtocolError):
        meter.take(stream, 100)


def test_half_a_greeting_is_no_hello() -> None:
    meter = FrameMeter(MAX_BYTES)
    assert meter.take(GREETING, 1) == len(GREETING) and not meter.has_greeted


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_noise_is_followed_or_refused(noise: bytes) -> None:
    meter = FrameMeter(MAX_BYTES)
    try:
        assert meter.take(GREETING + noise, 1000) == len(GREETING + noise)
    except ProtocolError:
        return
