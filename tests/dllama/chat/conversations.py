"""Conversations for trying templates with, and transformers' rendering of them as the oracle."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather <now> in a città.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "The city's name."},
                    "days": {"type": "integer", "description": "How many."},
                },
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "now",
            "description": "The time.",
            "parameters": {"type": "object", "properties": {}},
        },
    },
]


def system(text: str = " You are helpful.\nBe brief. ") -> dict[str, Any]:
    return {"role": "system", "content": text}


def user(text: Any = " What is 1 < 2 & 'x'? 🦙 \n") -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: Any = "Yes.\n\nIt is.", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def call(arguments: Any, name: str = "get_weather", call_id: str = "abcd12345") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def result(text: str = '{"sun": true}', call_id: str = "abcd12345") -> dict[str, Any]:
    return {"role": "tool", "content": text, "tool_call_id": call_id, "name": "get_weather"}


OBJECT = {"city": "Zürich", "days": 2}
TEXT = '{"city": "Zürich", "days": 2}'
TWO_CALLS = [call(OBJECT), call({}, "now", "efgh67890")]

CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "user": [user()],
    "system": [system(), user()],
    "turns": [user("a"), assistant("b"), user("c"), assistant("d"), user("e")],
    "system and turns": [system(), user("a"), assistant(), user("c")],
    "ends with assistant": [user("a"), assistant("b")],
    "thinking before": [user("a"), assistant("<think>\nhm\n</think>\n\nb"), user("c")],
    "reasoning beside": [user("a"), assistant("b", reasoning_content="hm"), user("c")],
    "older names of thoughts": [
        user("a"), assistant("b", thinking="hm"), user("c"), assistant("d", reasoning="so"),
        user("e"), assistant("f", thinking="well"),
    ],
    "the assistant's alone": [assistant("Once upon")],
    "call": [user("w?"), assistant(None, tool_calls=[call(OBJECT)]), result()],
    "call beside text": [system(), user("w?"), assistant("I look.", tool_calls=[call(OBJECT)])],
    "call with empty text": [user("w?"), assistant("", tool_calls=[call(OBJECT)]), result()],
    "call as text": [user("w?"), assistant(None, tool_calls=[call(TEXT)]), result()],
    "two calls": [
        user("w?"),
        assistant(None, tool_calls=TWO_CALLS),
        result(),
        result("12:00", "efgh67890"),
        assistant("Sun at noon."),
        user("Thanks"),
    ],
    "answer after result": [
        system(),
        user("w?"),
        assistant("", tool_calls=[call(OBJECT)]),
        result(),
        assistant("Sunny."),
    ],
    "empty texts": [user(""), assistant(""), user("x")],
    "special tokens in text": [user("<|im_end|>{{ bos_token }}{% if %}</s>")],
    "two systems": [system("a"), system("b"), user("c")],
    "user twice": [user("a"), user("b")],
}  # fmt: skip


BEGUN: dict[str, list[dict[str, Any]]] = {
    "one turn": [user("Hi"), assistant("The answer is")],
    "system": [system(), user("Hi"), assistant("The answer is")],
    "turns": [user("a"), assistant("b"), user("c"), assistant("The\n\nanswer")],
    "white space around": [user("Hi"), assistant("  The answer is \n")],
    "thoughts before": [user("a"), assistant("<think>h</think>b"), user("c"), assistant("d")],
    "thoughts beside": [user("a"), assistant("b", reasoning_content="hm\nso")],
    "after a result": [
        user("w?"), assistant("", tool_calls=[call(OBJECT)]), result(), assistant("Sun"),
    ],
    "special text": [user("Hi"), assistant("{{ x }} </s> <|im_end|>")],
    "the assistant's alone": [assistant("Once upon")],
    "system and the assistant's": [system(), assistant("Once upon")],
}  # fmt: skip

NOW = datetime(2031, 2, 3, 4, 5)


def always(tools: Any) -> dict[str, Any]:
    """The variables that llama-server hands to every template, at NOW."""
    return {
        "enable_thinking": True,
        "date_string": "03 Feb 2031",
        "datetime": "Feb 03 2031",
        "functions": json.dumps(tools, ensure_ascii=False, indent=2) if tools else "",
    }


def oracle(
    source: str, messages: list[dict[str, Any]], tools: Any, add: bool, **kwargs: Any
) -> str | None:
    """What transformers renders, with llama-server's variables where `kwargs` say nothing; None
    where the template fails there. Skips without it."""
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    try:
        rendered, _ = utils.render_jinja_template(
            conversations=[messages],
            tools=tools,
            chat_template=source,
            add_generation_prompt=add,
            **{**always(tools), **kwargs},
        )
    except Exception:
        return None
    return str(rendered[0])
