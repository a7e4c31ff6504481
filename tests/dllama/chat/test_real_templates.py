"""Templates of real models render as `transformers` renders them."""

from __future__ import annotations

from datetime import datetime
from itertools import product

import pytest

from dllama.chat import ChatTemplate, stop_texts
from dllama.errors import TemplateError
from tests.dllama.chat.conversations import (
    CONVERSATIONS,
    NOW,
    OBJECT,
    TEXT,
    TOOLS,
    assistant,
    call,
    oracle,
    result,
    system,
    user,
)
from tests.shared_data import shared_file, shared_names

NAMES = [name.removeprefix("templates/") for name in shared_names("templates/*.jinja")]
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>"}
# Where transformers fails we may help: no system role, arguments of the other kind, null content.
RESCUED = {"system", "system and turns", "call", "call as text", "two calls", "two systems"}
# Arguments that came as text are parsed for templates that would write them as JSON once more.
PARSED = ("Qwen2.5", "meta-llama", "Nemo")


def source_of(name: str) -> str:
    return shared_file(f"templates/{name}").read_text(encoding="utf-8")


def test_templates_are_there() -> None:
    shared_file("templates")
    assert len(NAMES) >= 10


@pytest.mark.parametrize("name", NAMES)
def test_equal_to_transformers(name: str) -> None:
    source = source_of(name)
    template = ChatTemplate(source, name=name, now=lambda: NOW, **SPECIALS)
    n_equal = 0
    thinking: list[dict[str, object]] = [{}, {"enable_thinking": True}, {"enable_thinking": False}]
    for title, tools, add, more in product(CONVERSATIONS, (None, TOOLS), (True, False), thinking):
        messages = CONVERSATIONS[title]
        wanted = oracle(source, messages, tools, add, **SPECIALS, **more)
        if wanted is None:
            try:
                template.render(messages, tools, add, **more)
                assert title in RESCUED or "Gemma" in source or title.startswith("call")
            except TemplateError as error:
                assert name in str(error)
            continue
        if title == "call as text" and any(family in name for family in PARSED):
            continue
        assert template.render(messages, tools, add, **more) == wanted, (title, add, more)
        n_equal += 1
    assert n_equal >= 30


@pytest.mark.parametrize("name", NAMES)
def test_more_variables_reach_the_template(name: str) -> None:
    source = source_of(name)
    more = {"date_string": "1 Jan 2031", "tools_in_user_message": False, "documents": []}
    template = ChatTemplate(source, name=name, now=lambda: NOW, **SPECIALS)
    messages = [user("w?"), assistant("b"), user("c")]
    for tools in (None, TOOLS):
        wanted = oracle(source, messages, tools, True, **SPECIALS, **more)
        if wanted is not None:
            assert template.render(messages, tools=tools, **more) == wanted


@pytest.mark.parametrize("name", [name for name in NAMES if any(f in name for f in PARSED)])
def test_arguments_as_text_are_parsed_where_objects_are_wanted(name: str) -> None:
    template = ChatTemplate(source_of(name), name=name, **SPECIALS)
    as_text = [user("w?"), assistant(None, tool_calls=[call(TEXT)]), result()]
    as_object = [user("w?"), assistant(None, tool_calls=[call(OBJECT)]), result()]
    rendered = template.render(as_text)
    assert TEXT in rendered
    assert rendered == template.render(as_object)


def test_arguments_as_object_are_written_where_text_is_wanted() -> None:
    name = "deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja"
    template = ChatTemplate(source_of(name), name=name, **SPECIALS)
    for arguments in (OBJECT, TEXT):
        messages = [user("w?"), assistant(None, tool_calls=[call(arguments)])]
        assert f"```json\n{TEXT}\n```" in template.render(messages)


def test_system_goes_to_the_user_where_the_template_refuses_it() -> None:
    template = ChatTemplate(source_of("google-gemma-2-2b-it.jinja"), **SPECIALS)
    wanted = template.render([user("S\n\nU"), assistant("A"), user("V")])
    for role in ("system", "developer"):
        messages = [{"role": role, "content": "S"}, user("U"), assistant("A"), user("V")]
        assert template.render(messages) == wanted


@pytest.mark.parametrize("name", NAMES)
def test_parts_are_the_text_they_hold(name: str) -> None:
    template = ChatTemplate(source_of(name), name=name, **SPECIALS)
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    tools = TOOLS if "tool_use" in name else None
    assert template.render([user(parts)], tools) == template.render([user("one\ntwo")], tools)


@pytest.mark.parametrize("name", NAMES)
def test_developer_is_system(name: str) -> None:
    template = ChatTemplate(source_of(name), name=name, **SPECIALS)
    tools = TOOLS if "tool_use" in name else None
    developer = {"role": "developer", "content": "S"}
    assert template.render([developer, user("U")], tools) == template.render(
        [system("S"), user("U")], tools
    )


@pytest.mark.parametrize("name", [name for name in NAMES if "Llama-3." in name])
def test_llamas_are_told_the_date_of_today(name: str) -> None:
    template = ChatTemplate(source_of(name), now=lambda: NOW, **SPECIALS)
    assert "Today Date: 03 Feb 2031\n" in template.render([user("a")])
    today = datetime.now().strftime("Today Date: %d %b %Y")  # it may be midnight just now
    assert ChatTemplate(source_of(name), **SPECIALS).render([user("a")]).find(today) >= 0 or (
        datetime.now().strftime("Today Date: %d %b %Y") != today
    )


ENDS = {
    "Hermes": "<|im_end|>",
    "Qwen": "<|im_end|>",
    "deepseek": "<｜end▁of▁sentence｜>",
    "gemma": "<end_of_turn>",
    "Llama-3.": "<|eot_id|>",
    "Phi": "<|end|>",
    "Nemo": "</s>",
}


@pytest.mark.parametrize("name", NAMES)
def test_the_end_of_a_turn_is_found(name: str) -> None:
    wanted = next(end for family, end in ENDS.items() if family in name)
    assert stop_texts(ChatTemplate(source_of(name), name=name, **SPECIALS)) == (wanted,)
