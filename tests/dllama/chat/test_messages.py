"""Messages that are none are refused with the path of the field at fault."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama.chat import check_messages
from dllama.errors import RequestError
from tests.dllama.chat.conversations import CONVERSATIONS, call

FINE = {"role": "user", "content": "a"}
CALL = call("{}")


@pytest.mark.parametrize("title", CONVERSATIONS)
def test_conversations_pass(title: str) -> None:
    check_messages(CONVERSATIONS[title])


@pytest.mark.parametrize(
    "message",
    [
        {"role": "developer", "content": ""},
        {"role": "function", "name": "f", "content": "1"},
        {"role": "ipython", "content": "1"},
        {"role": "user", "content": [{"type": "text", "text": "a"}], "name": "Ann"},
        {"role": "assistant", "content": "a", "tool_calls": [], "refusal": None, "audio": None},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]},
    ],
)
def test_unusual_messages_pass(message: dict[str, Any]) -> None:
    check_messages([message])


def with_call(**changes: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [{**CALL, **changes}]}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        (None, "messages"),
        ("hello", "messages"),
        ({"role": "user"}, "messages"),
        ([FINE, "x"], "messages[1]"),
        ([FINE, {"content": "x"}], "messages[1].role"),
        ([{"role": 5, "content": "x"}], "messages[0].role"),
        ([{"role": "king", "content": "x"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "assistant", "content": None}], "messages[0].content"),
        ([{"role": "assistant", "tool_calls": []}], "messages[0].content"),
        ([{"role": "user", "content": 7}], "messages[0].content"),
        ([{"role": "user", "content": {"type": "text"}}], "messages[0].content"),
        ([{"role": "user", "content": ["a"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": "a", "name": 1}], "messages[0].name"),
        ([{"role": "tool", "content": "a", "tool_call_id": 1}], "messages[0].tool_call_id"),
        ([{**FINE, "tool_calls": [CALL]}], "messages[0].tool_calls"),
        ([{"role": "assistant", "tool_calls": "x"}], "messages[0].tool_calls"),
        ([{"role": "assistant", "tool_calls": ["x"]}], "messages[0].tool_calls[0]"),
        ([with_call(type="magic")], "messages[0].tool_calls[0].type"),
        ([with_call(id=1)], "messages[0].tool_calls[0].id"),
        ([with_call(function="f")], "messages[0].tool_calls[0].function"),
        ([with_call(function={"name": ""})], "messages[0].tool_calls[0].function.name"),
        (
            [with_call(function={"name": "f", "arguments": 1})],
            "messages[0].tool_calls[0].function.arguments",
        ),
        ([{"role": "assistant", "function_call": {"name": "f"}}], "messages[0].function_call"),
    ],
)
def test_refused_with_the_field_at_fault(messages: object, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_messages(messages)
    assert caught.value.param == param
    assert f"`{param}`" in str(caught.value) and str(caught.value).endswith(".")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "tool_calls", "function", "type", "text", "name"]),
            inner | st.sampled_from(["user", "assistant", "text", "function"]),
        )
    ),
)


@given(json_values)
def test_any_json_passes_or_is_refused(value: object) -> None:
    try:
        check_messages(value)
    except RequestError as error:
        assert error.param is not None and error.param.startswith("messages")
