"""What goes in comes out; what no sender of ours wrote is refused with a ProtocolError."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.wire.codec import PROTOCOL_VERSION
from cluster.wire.engine_messages import MAX_MESSAGE_BYTES, decode_message, encode_message
from dllama.errors import ProtocolError
from dllama.nodes import MAX_NODES, NodeRow, NodesAction, NodesCall, NodesReply
from dllama.requests import (
    Abort,
    EngineState,
    FinishReason,
    Output,
    SamplingParams,
    SessionAction,
    SessionCall,
    SessionReply,
    StatsQuery,
    StatsReply,
    StepDone,
    Submit,
    TokenProbs,
)

texts = st.text(max_size=40)
ids = st.text(max_size=256)
token_lists = st.lists(st.integers(0, 2**31 - 1), max_size=20)
numbers = st.floats(allow_nan=False)
integers = st.integers(-(2**63), 2**64 - 1)
plain = st.recursive(
    st.none() | st.booleans() | integers | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)
samplings = st.builds(
    SamplingParams,
    **dict.fromkeys(
        (
            "temperature",
            "top_p",
            "min_p",
            "repeat_penalty",
            "presence_penalty",
            "frequency_penalty",
            "dynatemp_range",
            "typical_p",
            "top_n_sigma",
            "xtc_threshold",
            "dry_base",
            "mirostat_tau",
        ),
        numbers,
    ),
    **dict.fromkeys(("top_k", "repeat_last_n", "seed", "mirostat", "min_keep"), integers),
    dry_breakers=token_lists,
    dry_phrases=st.lists(token_lists, max_size=3),
    samplers=st.lists(texts, max_size=4).map(tuple),
    n_probs=st.none() | integers,
    post_sampling_probs=st.booleans(),
    logit_bias=st.dictionaries(st.integers(0, 2**31 - 1), numbers, max_size=4),
)
token_probs = st.builds(
    TokenProbs,
    token=st.integers(0, 2**31 - 1),
    value=numbers,
    top_ids=token_lists,
    top_values=st.lists(numbers, max_size=4),
)
outputs = st.builds(
    Output,
    id=ids,
    tokens=token_lists,
    finish=st.none() | st.sampled_from(FinishReason),
    error=st.none() | texts,
    n_prompt=integers,
    n_cached=integers,
    retry_after_s=st.none() | numbers,
    probs=st.none() | st.lists(token_probs, max_size=3),
    n_drafted=integers,
    n_accepted=integers,
)
counts = st.integers(0, 2**63 - 1)
node_rows = st.builds(
    NodeRow,
    address=texts,
    state=texts,
    share=numbers,
    since_s=numbers,
    reason=texts,
    rank=st.none() | st.integers(0, MAX_NODES),
    kv_heads=counts,
    hidden=counts,
    rss_bytes=st.none() | counts,
    memory_bytes=st.none() | counts,
)
messages = st.one_of(
    st.builds(
        Submit,
        id=ids,
        tokens=token_lists,
        sampling=samplings,
        stop_ids=token_lists,
        max_tokens=st.none() | integers,
        cache_prompt=st.booleans(),
        session_id=st.none() | ids,
        deadline_s=st.none() | numbers,
        context_shift=st.booleans(),
        n_keep=integers,
        draft_max=st.none() | integers,
        draft_min=integers,
        draft_p_min=numbers,
    ),
    st.builds(
        SessionCall,
        id=ids,
        action=st.sampled_from(SessionAction),
        session_id=ids,
        filename=texts,
    ),
    st.builds(
        SessionReply,
        id=ids,
        error=st.none() | texts,
        n_tokens=integers,
        n_bytes=integers,
        elapsed_ms=numbers,
    ),
    st.builds(NodesCall, id=ids, action=st.sampled_from(NodesAction), address=texts, share=numbers),
    st.builds(NodesReply, id=ids, error=st.none() | texts, nodes=st.lists(node_rows, max_size=3)),
    st.builds(Abort, id=ids),
    st.builds(StatsQuery, id=ids),
    st.builds(StepDone, outputs=st.lists(outputs, max_size=4)),
    st.builds(EngineState, state=texts, progress=numbers, detail=texts),
    st.builds(StatsReply, id=ids, stats=st.dictionaries(texts, plain, max_size=3)),
)


@given(message=messages)
def test_a_message_survives_the_trip(message: Any) -> None:
    assert decode_message(encode_message(message)) == message


def test_a_finish_reason_comes_back_as_itself() -> None:
    sent = StepDone([Output("a", [1], FinishReason.LENGTH)])
    received = decode_message(encode_message(sent))
    assert isinstance(received, StepDone)
    assert received.outputs[0].finish is FinishReason.LENGTH


def test_whole_numbers_are_numbers() -> None:
    sent = Submit("a", [1], SamplingParams(temperature=1, logit_bias={5: -3}))
    received = decode_message(encode_message(sent))
    assert isinstance(received, Submit)
    assert type(received.sampling.temperature) is float
    assert type(received.sampling.logit_bias[5]) is float


@given(data=st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_message(data)


@given(message=messages, place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_damaged_message_is_refused_or_another_message(
    message: Any, place: float, byte: int
) -> None:
    data = bytearray(encode_message(message))
    data[int(place * len(data))] = byte
    try:
        received = decode_message(bytes(data))
    except ProtocolError:
        return
    encode_message(received)  # whatever it is, it is a whole message of ours


@given(message=messages, share=st.floats(0, 1, exclude_max=True))
def test_a_cut_message_is_refused(message: Any, share: float) -> None:
    data = encode_message(message)
    with pytest.raises(ProtocolError):
        decode_message(data[: int(share * len(data))])


def submit_map(**changed: Any) -> dict[str, Any]:
    fields: dict[str, Any] = msgpack.unpackb(
        encode_message(Submit("a", [1, 2])), strict_map_key=False
    )
    return {**fields, **changed}


def a_map(kind: object, **fields: Any) -> dict[str, Any]:
    return {"v": PROTOCOL_VERSION, "e": 0, "k": kind, "a": [], **fields}


def sampling(**changed: Any) -> dict[str, Any]:
    return {**submit_map()["sampling"], **changed}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (a_map("Grant"), "unknown kind 'Grant'.*one of Submit"),
        (a_map(["Submit"]), "no kind"),
        ({"v": PROTOCOL_VERSION, "e": 0, "a": [], "id": "a"}, "no kind"),
        ([1, 2], "not a map"),
        (a_map("Abort", id="a", why=1), "an Abort holds id, why, and exactly id"),
        (a_map("Abort"), "an Abort holds nothing"),
        (a_map("Abort", id=5), "'id' of an Abort.*int 5.*a text"),
        (a_map("Abort", id="x" * 257), "at most 256"),
        (submit_map(tokens=[1, -1]), "'tokens'.*integers from 0"),
        (submit_map(tokens=[1, 2**31]), "'tokens'"),
        (submit_map(tokens=[1, True]), "'tokens'"),
        (submit_map(tokens=[1, 1.0]), "'tokens'"),
        (submit_map(tokens="12"), "'tokens'"),
        (submit_map(tokens=None), "'tokens'"),
        (submit_map(max_tokens=1.5), "'max_tokens'.*an integer"),
        (submit_map(max_tokens=True), "'max_tokens'"),
        (submit_map(sampling={}), "a SamplingParams holds nothing"),
        (submit_map(sampling=sampling(top_k="4")), "'top_k'"),
        (submit_map(sampling=sampling(top_p=None)), "'top_p'.*a number"),
        (submit_map(sampling=sampling(logit_bias=[1])), "'logit_bias'"),
        (submit_map(sampling=sampling(logit_bias={"1": 1})), "'logit_bias'"),
        (submit_map(sampling=sampling(logit_bias={1: "x"})), "'logit_bias'"),
        (submit_map(sampling=sampling(logit_bias={-1: 1.0})), "'logit_bias'"),
        (submit_map(sampling=sampling(dry_phrases=[[1], [-2]])), "'dry_phrases'"),
        (submit_map(sampling=sampling(samplers=["x" * 257])), "'samplers'"),
        (submit_map(session_id="x" * 257), "'session_id'.*at most 256"),
        (submit_map(cache_prompt=1), "'cache_prompt'.*true or false"),
        (a_map("StepDone", outputs={}), "'outputs'"),
        (a_map("StatsReply", id="a", stats={"x": b"bytes"}), "'stats'"),
        (a_map("StatsReply", id="a", stats={"x": {1: 2}}), "'stats'"),
        (a_map("StatsReply", id="a", stats=[]), "'stats'"),
    ],
)
def test_what_is_not_ours_is_named(raw: object, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        decode_message(msgpack.packb(raw))


def test_an_unknown_finish_reason_is_refused() -> None:
    raw = msgpack.unpackb(encode_message(StepDone([Output("a", [], FinishReason.STOP)])))
    raw["outputs"][0]["finish"] = "bored"
    with pytest.raises(ProtocolError, match=r"'finish'.*bored.*stop, length, abort, error"):
        decode_message(msgpack.packb(raw))


@pytest.mark.parametrize("embedding", [bytes(3), bytes((1 << 22) + 4), "text", [1.0]])
def test_an_embedding_is_whole_floats_within_its_limit(embedding: object) -> None:
    raw = msgpack.unpackb(encode_message(StepDone([Output("a", [], embedding=bytes(8))])))
    raw["outputs"][0]["embedding"] = embedding
    with pytest.raises(ProtocolError, match="'embedding'"):
        decode_message(msgpack.packb(raw))


def test_statistics_may_not_nest_without_end() -> None:
    tree: dict[str, object] = {}
    for _ in range(20):
        tree = {"x": tree}
    with pytest.raises(ProtocolError, match="nested"):
        decode_message(encode_message(StatsReply("a", tree)))


def test_extensions_and_deep_nesting_are_refused() -> None:
    for data in (msgpack.packb(msgpack.ExtType(4, b"x")), b"\x91" * 100_000):
        with pytest.raises(ProtocolError):
            decode_message(data)


def test_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolError, match="at most"):
        decode_message(bytes(MAX_MESSAGE_BYTES + 1))


@pytest.mark.parametrize(
    "message",
    [
        Abort(id=2**70),  # type: ignore[arg-type]
        StatsReply("a", {"x": object()}),
        StatsReply("a", {"x": 1j}),
        Output("a", []),
    ],
)
def test_what_cannot_be_sent_is_refused_by_the_sender(message: Any) -> None:
    with pytest.raises(ProtocolError):
        encode_message(message)
