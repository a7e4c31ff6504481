"""The forms in which clients say nothing, or the same: null, empty values, whole numbers with a
point, values that other servers take."""

from __future__ import annotations

import pytest

from dllama.requests import Submit
from tests.api.serving import VOCAB_SIZE, Reply, ask, masks, says, tokenizer
from tests.scripted_runner import ScriptedEngine

USER = {"role": "user", "content": "Hi"}
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
EMPTY: list[object] = [None, "", [], [{"type": "text", "text": ""}]]


def asked(path: str, body: dict[str, object], text: str = "yes") -> tuple[Reply, Submit]:
    engine = ScriptedEngine(says(text), constraints=masks())
    reply = ask(engine, lambda s: s.post(path, body))
    assert reply.status == 200, reply.data
    return reply, engine.submitted[0]


def prompt(path: str, body: dict[str, object]) -> str:
    return tokenizer().decode(asked(path, body)[1].tokens)


def submitted(**fields: object) -> Submit:
    return asked(CHAT, {"messages": [USER], **fields})[1]


@pytest.mark.parametrize("content", EMPTY)
@pytest.mark.parametrize(
    "more", [{}, {"tool_calls": []}, {"tool_calls": None}, {"refusal": None, "function_call": None}]
)
def test_an_empty_last_message_of_the_assistant_is_as_if_absent(
    content: object, more: dict[str, object]
) -> None:
    last = {"role": "assistant", "content": content, **more}
    assert prompt(CHAT, {"messages": [USER, last]}) == prompt(CHAT, {"messages": [USER]})


@pytest.mark.parametrize("content", EMPTY)
def test_so_it_is_in_other_apis(content: object) -> None:
    last = {"role": "assistant", "content": content}
    bare: dict[str, object] = {"messages": [USER], "max_tokens": 5}
    assert prompt(MESSAGES, {**bare, "messages": [USER, last]}) == prompt(MESSAGES, bare)
    items = [USER, last]
    assert prompt(RESPONSES, {"input": items}) == prompt(RESPONSES, {"input": [USER]})


@pytest.mark.parametrize("content", EMPTY)
@pytest.mark.parametrize("role", ["user", "system", "assistant"])
def test_an_empty_message_anywhere_is_an_empty_text(role: str, content: object) -> None:
    messages = [USER, {"role": role, "content": content}, USER]
    wanted = [USER, {"role": role, "content": ""}, USER]
    assert prompt(CHAT, {"messages": messages}) == prompt(CHAT, {"messages": wanted})


def test_only_an_empty_assistant_is_no_conversation() -> None:
    for path in (CHAT, MESSAGES):
        body = {"messages": [{"role": "assistant", "content": ""}], "max_tokens": 5}
        reply = ask(ScriptedEngine(says("x")), lambda s, p=path, b=body: s.post(p, b))
        assert reply.status == 400 and "`messages`" in reply.json["error"]["message"]


def test_refusals_and_older_calls_are_told() -> None:
    refused = {"role": "assistant", "content": None, "refusal": "I will not."}
    assert "I will not." in prompt(CHAT, {"messages": [USER, refused, USER]})
    part = {"role": "assistant", "content": [{"type": "refusal", "refusal": "Never."}]}
    assert "Never." in prompt(CHAT, {"messages": [USER, part, USER]})
    call = {"role": "assistant", "content": None,
            "function_call": {"name": "get_it", "arguments": '{"a": 1}'}}  # fmt: skip
    result = {"role": "function", "name": "get_it", "content": "found"}
    told = prompt(CHAT, {"messages": [USER, call, result, USER]})
    assert "get_it" in told and "found" in told
    custom = {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c", "type": "custom", "custom": {"name": "patch", "input": "+ line"}}]}  # fmt: skip
    told = prompt(CHAT, {"messages": [USER, custom, USER]})
    assert "patch" in told and "+ line" in told


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": []}, {"tools": None}, {"tool_choice": None}, {"tool_choice": "none"},
        {"tool_choice": "auto"}, {"tools": [], "tool_choice": "none"}, {"functions": []},
        {"stop": []}, {"stop": ""}, {"stop": None}, {"stop": [""]}, {"response_format": None},
        {"response_format": {"type": "text"}}, {"response_format": {}}, {"stream_options": None},
        {"stream_options": {}}, {"logit_bias": {}}, {"logit_bias": None}, {"logit_bias": []},
        {"n": None}, {"user": None}, {"seed": None}, {"max_tokens": None}, {"model": ""},
        {"grammar": ""}, {"json_schema": ""}, {"regex": ""}, {"max_tokens": -1},
        {"n_predict": -1}, {"parallel_tool_calls": None}, {"function_call": None},
        {"reasoning_effort": None}, {"chat_template_kwargs": None}, {"modalities": None},
    ],
)  # fmt: skip
def test_what_says_nothing_changes_nothing(fields: dict[str, object]) -> None:
    plain, same = submitted(seed=1), submitted(**{"seed": 1, **fields})
    if fields.get("seed", 0) is not None:
        assert same.sampling == plain.sampling
    assert (same.tokens, same.max_tokens, same.grammar) == (plain.tokens, None, None)


def test_whole_numbers_may_have_a_point() -> None:
    submit = submitted(max_tokens=8.0, top_k=5.0, seed=7.0, n=1.0, n_probs=2.0, repeat_last_n=9.0,
                       n_keep=3.0, logit_bias=[[65.0, 1]])  # fmt: skip
    assert submit.max_tokens == 8 and submit.n_keep == 3
    sampling = submit.sampling
    assert (sampling.top_k, sampling.seed, sampling.n_probs) == (5, 7, 2)
    assert sampling.logit_bias == {65: 1}
    _, native = asked("/completion", {"prompt": [1.0, 65.0], "n_predict": 3.0})
    assert (native.tokens, native.max_tokens) == ([1, 65], 3)
    _, text = asked("/v1/completions", {"prompt": [1.0, 65.0]})
    assert text.tokens == [1, 65]
    assert asked(RESPONSES, {"input": "x", "max_output_tokens": 4.0})[1].max_tokens == 4
    body: dict[str, object] = {"messages": [USER], "max_tokens": 4.0, "top_k": 3.0}
    assert asked(MESSAGES, body)[1].max_tokens == 4


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": [USER]}), ("/v1/completions", {"prompt": "a"}),
        (RESPONSES, {"input": "a"}), (MESSAGES, {"messages": [USER]}),
        ("/completion", {"prompt": "a"}),
    ],
)  # fmt: skip
def test_n_predict_is_known_on_every_route(path: str, body: dict[str, object]) -> None:
    assert asked(path, {**body, "n_predict": 2})[1].max_tokens == 2
    assert asked(path, {**body, "n_predict": -1})[1].max_tokens is None


def test_no_tokens_means_that_the_prompt_is_read_and_nothing_said() -> None:
    for fields in ({"max_tokens": 0}, {"max_completion_tokens": 0}, {"n_predict": 0.0}):
        reply, submit = asked(CHAT, {"messages": [USER], **fields})
        [choice] = reply.json["choices"]
        assert not choice["message"]["content"] and choice["finish_reason"] == "length"
        assert reply.json["usage"]["completion_tokens"] == 0
        assert reply.json["usage"]["prompt_tokens"] == len(submit.tokens)
    reply, _ = asked("/v1/completions", {"prompt": "a", "max_tokens": 0, "stream": True})
    assert "".join(e["choices"][0]["text"] for e in reply.events if e["choices"]) == ""
    reply, _ = asked(MESSAGES, {"messages": [USER], "max_tokens": 0})
    assert reply.json["stop_reason"] == "max_tokens" and not reply.json["content"]
    assert reply.json["usage"]["output_tokens"] == 0


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"temperature": 3}, "temperature", 3.0), ({"temperature": -1}, "temperature", 0.0),
        ({"top_p": 1.5}, "top_p", 1.0), ({"top_p": 0}, "top_p", 0.0), ({"min_p": -1}, "min_p", 0.0),
        ({"top_k": -1}, "top_k", 0), ({"presence_penalty": 2.5}, "presence_penalty", 2.5),
        ({"frequency_penalty": -3}, "frequency_penalty", -3.0),
        ({"logit_bias": {"65": 200}}, "logit_bias", {65: 200.0}),
        ({"logit_bias": {"65": -1e300}}, "logit_bias", {65: -1e6}),
        ({"logit_bias": {str(VOCAB_SIZE): 1, "-1": 0}}, "logit_bias", None),
        ({"mirostat": 5}, "mirostat", 2), ({"dry_base": 0.5}, "dry_base", 1.75),
        ({"seed": -2}, "seed", 2**63 - 2), ({"seed": 2**63 + 5}, "seed", 5),
    ],
)  # fmt: skip
def test_numbers_are_taken_as_llama_server_takes_them(
    fields: dict[str, object], name: str, value: object
) -> None:
    found = getattr(submitted(**fields).sampling, name)
    if value is None:  # ids that the model does not have are never drawn
        assert VOCAB_SIZE not in found
    else:
        assert found == value


def test_with_one_model_any_name_is_served_and_the_reply_names_it() -> None:
    for path, body in (
        (CHAT, {"messages": [USER]}), ("/v1/completions", {"prompt": "a"}),
        (RESPONSES, {"input": "a"}), (MESSAGES, {"messages": [USER]}),
        ("/completion", {"prompt": "a"}),
    ):  # fmt: skip
        reply, _ = asked(path, {**body, "model": "gpt-4o"})
        assert reply.json["model"] == "toy"
