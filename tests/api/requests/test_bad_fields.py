"""Honour or refuse: every field with a wrong value is a 400 that names it."""

from __future__ import annotations

import pytest

from tests.api.serving import VOCAB_SIZE, ask, run, says, serving_engine
from tests.scripted_runner import ScriptedEngine

HI = [{"role": "user", "content": "Hi"}]

# (field at fault, fields that a request for a text has besides its prompt)
BAD_FIELDS: list[tuple[str, dict[str, object]]] = [
    ("temperature", {"temperature": "hot"}),
    ("temperature", {"temperature": True}),
    ("top_k", {"top_k": 1.5}),
    ("frequency_penalty", {"frequency_penalty": "x"}),
    ("repeat_penalty", {"repeat_penalty": 0}),
    ("repeat_last_n", {"repeat_last_n": -2}),
    ("max_tokens", {"max_tokens": "10"}),
    ("max_tokens", {"max_tokens": 1e30}),
    ("max_tokens", {"max_tokens": 2.5}),
    ("max_tokens", {"max_tokens": -2}),
    ("seed", {"seed": 1.5}),
    ("top_p", {"top_p": "x"}),
    ("n", {"n": 0}),
    ("n", {"n": 17}),
    ("n", {"n": [1]}),
    ("seed", {"seed": "x"}),
    ("stop", {"stop": 5}),
    ("stop", {"stop": ["a", 5]}),
    ("stop", {"stop": ["x"] * 65}),
    ("stop", {"stop": "x" * 5000}),
    ("stream", {"stream": "yes"}),
    ("stream_options", {"stream_options": True}),
    ("include_usage", {"stream_options": {"include_usage": 1}}),
    ("logit_bias", {"logit_bias": 5}),
    ("logit_bias.word", {"logit_bias": {"word": "a lot"}}),
    ("logit_bias", {"logit_bias": "word"}),
    ("logit_bias[0][1]", {"logit_bias": [[65, "a lot"]]}),
    ("logit_bias", {"logit_bias": [[65]]}),
    ("ignore_eos", {"ignore_eos": 1}),
    ("model", {"model": 5}),
    ("best_of", {"best_of": 2}),
    ("echo", {"echo": True}),
    ("suffix", {"suffix": "the end"}),
    ("logprobs", {"logprobs": 21}),
    ("logprobs", {"logprobs": -1}),
    ("logprobs", {"logprobs": True}),
    ("top_logprobs", {"logprobs": 2, "top_logprobs": 2}),
    ("n_probs", {"n_probs": -1}),
    ("n_probs", {"n_probs": 1025}),
    ("post_sampling_probs", {"post_sampling_probs": 1}),
    ("post_sampling_probs", {"post_sampling_probs": True, "logprobs": 2}),
    ("grammar", {"grammar": 'root := "a"'}),
    ("grammar", {"grammar": 5}),
    ("regex", {"regex": "a("}),
    ("guided_regex", {"guided_regex": "(?=a)"}),
    ("json_schema", {"json_schema": {"type": "strng"}}),
    ("json_schema", {"json_schema": "{"}),
    ("regex", {"regex": "a", "json_schema": {}}),
    ("mirostat", {"mirostat": True}),
    ("mirostat_eta", {"mirostat_eta": "x"}),
    ("dry_allowed_length", {"dry_allowed_length": -1}),
    ("dry_penalty_last_n", {"dry_penalty_last_n": -2}),
    ("dry_sequence_breakers", {"dry_sequence_breakers": "x"}),
    ("dry_sequence_breakers", {"dry_sequence_breakers": [""]}),
    ("dry_sequence_breakers", {"dry_sequence_breakers": ["x" * 41]}),
    ("dry_sequence_breakers", {"dry_sequence_breakers": [5]}),
    ("min_keep", {"min_keep": -1}),
    ("samplers", {"samplers": ["top_k", "magic"]}),
    ("samplers", {"samplers": [5]}),
    ("samplers", {"samplers": 5}),
    ("samplers", {"samplers": "kq"}),
    ("samplers", {"samplers": ["top_k"] * 65}),
    ("adaptive_target", {"adaptive_target": 0.5}),
]

BAD_CHAT: list[tuple[str, dict[str, object]]] = [
    ("messages", {"messages": None}),
    ("messages", {"messages": []}),
    ("messages", {"messages": "Hi"}),
    ("messages", {"messages": ["Hi"]}),
    ("messages", {"messages": {}}),
    ("tools[0].function.name", {"tools": [{"type": "function", "function": {}}]}),
    ("tools", {"tools": {}}),
    ("tool_choice", {"tool_choice": "always"}),
    ("parallel_tool_calls", {"parallel_tool_calls": 1}),
    ("tool_choice", {"tool_choice": "required"}),
    ("response_format.type", {"response_format": {"type": "xml"}}),
    ("response_format", {"response_format": "json_object"}),
    ("response_format.json_schema", {"response_format": {"type": "json_schema"}}),
    ("reasoning_format", {"reasoning_format": "loud"}),
    ("enable_thinking", {"enable_thinking": "no"}),
    ("logprobs", {"logprobs": 3}),
    ("top_logprobs", {"top_logprobs": 3}),
    ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
    ("top_logprobs", {"logprobs": False, "top_logprobs": 2}),
    ("modalities", {"modalities": ["audio"]}),
    ("functions", {"functions": [{"name": "f"}]}),
    ("tools[0]", {"tools": ["web_search"]}),
    ("tools[0]", {"tools": [{}]}),
    ("tool_choice", {"tools": [{"type": "web_search"}], "tool_choice": "required"}),
    ("tool_choice", {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
    ("chat_template_kwargs", {"chat_template_kwargs": []}),
    ("chat_template_kwargs", {"chat_template_kwargs": {"messages": []}}),
    ("chat_template_kwargs", {"chat_template_kwargs": {"self": 1}}),
    ("chat_template_kwargs.enable_thinking", {"chat_template_kwargs": {"enable_thinking": "no"}}),
    ("messages", {"chat_template_kwargs": {"refuse": 1}}),
    ("messages", {"messages": [*HI, {"role": "assistant", "content": None, "tool_calls": [{}]}]}),
    ("messages", {"messages": [*HI, *2 * [{"role": "assistant", "content": "x"}]]}),
    ("messages", {"messages": HI, "continue_final_message": True}),
    (
        "messages",
        {
            "messages": [*HI, {"role": "assistant", "content": "x"}],
            "continue_final_message": True,
            "add_generation_prompt": True,
        },
    ),
]


def test_every_bad_field_is_a_400_that_names_it() -> None:
    engine = ScriptedEngine(says("never said"))

    async def body() -> None:
        async with serving_engine(engine) as server:
            for param, fields in BAD_FIELDS:
                reply = await server.complete(**fields)
                assert (reply.status, reply.error["param"]) == (400, param), fields
                assert reply.error["type"] == "invalid_request_error"
                assert reply.error["message"].endswith("."), reply.error
                assert len(reply.error["message"]) < 400
            for param, fields in BAD_CHAT:
                reply = await server.chat(**fields)
                assert (reply.status, reply.error["param"]) == (400, param), fields
            assert (await server.complete()).status == 200

    run(body)
    assert len(engine.submitted) == 1


@pytest.mark.parametrize("role", ["nobody", 5, None])
def test_unknown_roles(role) -> None:
    reply = ask(
        ScriptedEngine(says("a")),
        lambda server: server.chat(messages=[{"role": role, "content": "x"}]),
    )
    assert reply.status == 400
    assert reply.error["param"].startswith("messages")


@pytest.mark.parametrize(
    ("param", "prompt"),
    [
        ("prompt", None),
        ("prompt", 5),
        ("prompt", []),
        ("prompt", {}),
        ("prompt[1]", ["a", 5]),
        ("prompt[0]", [[1.5]]),
        ("prompt", [[]]),
        ("prompt", [VOCAB_SIZE]),
        ("prompt", [-1]),
        ("prompt", [[10**12]]),
        ("prompt", ["x"] * 200),
    ],
)
def test_bad_prompts(param, prompt) -> None:
    reply = ask(ScriptedEngine(says("a")), lambda server: server.complete(prompt))
    assert (reply.status, reply.error["param"]) == (400, param)
