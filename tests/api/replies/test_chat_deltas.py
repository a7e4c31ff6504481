"""The deltas of a streamed chat: null first, and never an empty text after it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from api.answers.reasoning import TAGS
from api.engines.in_process import InProcessEngineClient
from api.tools.dialects import HERMES
from tests.api.serving import Reply, masks, run, says, served, serving
from tests.scripted_runner import ScriptedEngine

CALL = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}},
    },
}
PIECES = ["<think>", "</think>", "\n", " ", "a", "Hello", "☕", CALL, "<tool", "stop"]


@settings(max_examples=30, deadline=None)
@given(
    text=st.lists(st.sampled_from(PIECES), max_size=6).map("".join),
    has_tools=st.booleans(),
    more=st.sampled_from(
        [{}, {"stop": ["stop"]}, {"return_progress": True}, {"timings_per_token": True},
         {"logprobs": True, "top_logprobs": 1}, {"stream_options": {"include_usage": True}}]
    ),
)  # fmt: skip
def test_no_delta_is_an_empty_text(text: str, has_tools: bool, more: dict[str, object]) -> None:
    engine = ScriptedEngine(says(text), constraints=masks())
    model = replace(served(InProcessEngineClient(engine)), think_tags=TAGS[0], tool_dialect=HERMES)
    replies: list[Reply] = []

    async def body() -> None:
        async with serving(model) as server:
            asked = {**more, **({"tools": [TOOL]} if has_tools else {})}
            replies.append(await server.chat(stream=True, max_tokens=120, **asked))

    run(body)
    [reply] = replies
    deltas = [c["delta"] for event in reply.events for c in event.get("choices", [])]
    assert deltas[0] == {"role": "assistant", "content": None}
    assert all("role" not in delta for delta in deltas[1:])
    for delta in deltas[1:]:
        assert delta.get("content") != "" and delta.get("reasoning_content") != ""
    assert deltas[-1] == {}
