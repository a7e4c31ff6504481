"""Bodies as clients write them: half characters, and too many levels."""

from __future__ import annotations

import pytest

from tests.api.serving import ask, masks, says, tokenizer
from tests.scripted_runner import ScriptedEngine


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (rb"cut \ud83d", "cut \ufffd"),
        (rb"\ude00 and \uD83D\uDE00", "\ufffd and 😀"),
        (rb"\\ud83d \ud83d", "\\ud83d \ufffd"),
        (rb"\\\ud83d\ud83d\ude00", "\\\ufffd😀"),
    ],
)
def test_half_a_surrogate_pair_is_a_character_that_is_lost(written: bytes, read: str) -> None:
    engine = ScriptedEngine(says("yes"))
    data = b'{"prompt": "%b"}' % written
    reply = ask(engine, lambda s: s.request("POST", "/v1/completions", data=data))
    assert reply.status == 200, reply.data
    assert read in tokenizer().decode(engine.submitted[0].tokens)


@pytest.mark.parametrize("data", [b"{", b'{"a": NaN}', b'{"prompt": "\\ud8"}', b'{"a": "\\ud83d}'])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    engine = ScriptedEngine(says("yes"))
    reply = ask(engine, lambda s: s.request("POST", "/v1/completions", data=data))
    assert reply.status == 400 and "is not JSON" in reply.error["message"]


@pytest.mark.parametrize("depth", [100, 300, 900, 20_000])
@pytest.mark.parametrize("field", ["metadata", "response_format", "tools", "stop", "json_schema"])
def test_no_depth_is_too_much_for_a_sentence(depth: int, field: str) -> None:
    inner = b'{"properties":' * depth + b"{}" + b"}" * depth
    data = b'{"messages": [{"role": "user", "content": "Hi"}], "%b": %b}' % (field.encode(), inner)
    engine = ScriptedEngine(says("{}"), constraints=masks())
    reply = ask(engine, lambda s: s.request("POST", "/v1/chat/completions", data=data))
    is_taken = depth == 100 and field in ("metadata", "json_schema")
    assert reply.status == (200 if is_taken else 400), reply.data
    assert is_taken or reply.error["message"].endswith(".")
