"""The variables that a chat template finds: transformers', llama-server's, and the client's."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from api.answers.plan import chat_plan
from api.requests.openai import parse_conversation
from api.requests.prompts.prompting import render
from api.tools.dialects import FIREFUNCTION
from dllama.chat import ChatTemplate
from tests.api.prompts import SPECIALS, model_with, prompts, source_of
from tests.api.tools.test_round_trips import allows, read
from tests.dllama.chat.conversations import TOOLS, assistant, call, oracle, result, system, user
from tests.shared_data import shared_names

NAMES = [name.removeprefix("templates/") for name in shared_names("templates/*.jinja")]
HI = [user("Hi")]
# How QwQ, R1-Distill-Qwen and Command R7B end their prompts: they ask whether to think without
# asking whether they were told.
QWQ = "A<think>\n{% if not enable_thinking %}</think>{% endif %}"
R7B = "A{% if not enable_thinking %}<|START_THINKING|><|END_THINKING|>{% endif %}"
FIREFUNCTION_SOURCE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if loop.first %}You may call functools[...].\n{{ functions }}\nToday is {{ datetime }}."
    "{% endif %}|{{ m.role }}|{{ m.content | default('', true) }}"
    "{% if m.tool_calls %} functools[{% for c in m.tool_calls %}"
    '{{ \'{"name": "\' + c.function.name + \'", "arguments": \' + c.function.arguments | tojson }}}'
    "{% if not loop.last %}, {% endif %}{% endfor %}]{% endif %}{% endfor %}|assistant|"
)


@pytest.mark.parametrize(
    ("source", "thinking", "not_thinking"),
    [
        (QWQ, "A<think>\n", "A<think>\n</think>"),
        (R7B, "A", "A<|START_THINKING|><|END_THINKING|>"),
        ("{{ enable_thinking }}", "True", "False"),
    ],
)
def test_the_model_thinks_unless_it_is_told_not_to(
    source: str, thinking: str, not_thinking: str
) -> None:
    off = [
        {"enable_thinking": False},
        {"reasoning_effort": "none"},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ]
    bodies = [{"messages": HI, **more} for more in ({}, {"enable_thinking": True}, *off)]
    assert prompts(source, *bodies) == [thinking] * 2 + [not_thinking] * 3


def test_the_dates_are_llama_servers() -> None:
    source = "{{ date_string }}|{{ datetime }}|{{ strftime_now('%Y-%m-%d') }}"
    own = {"date_string": "26 Jul 2024", "datetime": "then"}
    assert prompts(source, {"messages": HI}, {"messages": HI, "chat_template_kwargs": own}) == [
        "03 Feb 2031|Feb 03 2031|2031-02-03",
        "26 Jul 2024|then|2031-02-03",
    ]


def test_the_clock_is_this_machines() -> None:
    before = datetime.now()
    told = ChatTemplate("{{ date_string }}").render(HI)
    assert told in {day.strftime("%d %b %Y") for day in (before, datetime.now())}


VARIABLES: list[dict[str, object]] = [
    {"tools_in_user_message": False},
    {"builtin_tools": ["brave_search", "code_interpreter"]},
    {"documents": [{"title": "T", "text": "x"}]},
    {"custom_tools": TOOLS[1:], "date_string": "1 Jan 2000"},
    {"enable_thinking": False, "anything": {"a": [1]}},
]


@pytest.mark.parametrize("name", NAMES)
def test_the_clients_own_are_what_transformers_makes_of_them(name: str) -> None:
    source, n_equal = source_of(name), 0
    messages = [system("S"), user("w?"), assistant("b"), user("c")]
    with_tools = model_with(source).tool_dialect.describes_tools
    for more in VARIABLES:
        for tools in (None, TOOLS) if with_tools else (None,):
            wanted = oracle(source, messages, tools, True, **{**SPECIALS, **more})
            if wanted is None:
                continue
            closed = "\n</think>\n\n" if wanted.endswith("<think>\n") and (
                more.get("enable_thinking") is False) else ""  # fmt: skip
            body = {"messages": messages, "chat_template_kwargs": more, "tools": tools}
            assert prompts(source, body) == [wanted + closed]
            n_equal += 1
    assert n_equal >= 5 or "gemma" in name


def test_firefunction_is_told_of_functions_and_calls_them() -> None:
    served = model_with(FIREFUNCTION_SOURCE)
    assert served.tool_dialect is FIREFUNCTION
    written = json.dumps(TOOLS, ensure_ascii=False, indent=2)
    plain, told = prompts(FIREFUNCTION_SOURCE, {"messages": HI}, {"messages": HI, "tools": TOOLS})
    assert written in told and "\n\nToday is Feb 03 2031." in plain
    asked = parse_conversation({"messages": HI, "tools": TOOLS})
    plan = chat_plan(served, asked, None, render(served, asked))
    text = 'So: functools[{"name": "get_weather", "arguments": {"city": "Bern"}}, '
    text += '{"name": "now", "arguments": {}}]'
    assert allows(plan.grammar, text)
    message, reason = read(plan, text)
    assert (message["content"], reason) == ("So:", "tool_calls")
    assert [c["function"]["name"] for c in message["tool_calls"]] == ["get_weather", "now"]
    history = [*HI, assistant("So:", tool_calls=[call('{"city": "Bern"}')]), result()]
    [again] = prompts(FIREFUNCTION_SOURCE, {"messages": history, "tools": TOOLS})
    assert 'So: functools[{"name": "get_weather", "arguments": {"city": "Bern"}}]' in again
