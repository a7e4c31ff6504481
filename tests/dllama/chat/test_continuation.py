"""Prompts that end within the last message, byte for byte as transformers continues it."""

from __future__ import annotations

from itertools import product

import pytest

from dllama.chat import ChatTemplate, Cut
from dllama.chat.builtin_templates import BUILTIN_TEMPLATES
from dllama.errors import TemplateError
from tests.dllama.chat.conversations import BEGUN, NOW, TOOLS, assistant, oracle, user
from tests.dllama.chat.test_real_templates import NAMES, SPECIALS, source_of

# Conversations that a template refuses: roles must alternate, or tools are what it is for.
REFUSED = {
    "gemma": ("system", "after a result", "the assistant's alone", "system and the assistant's"),
    "Nemo": ("the assistant's alone", "system and the assistant's"),
}


@pytest.mark.parametrize(("name", "title"), list(product(NAMES, BEGUN)))
def test_equal_to_transformers(name: str, title: str) -> None:
    source, messages = source_of(name), BEGUN[title]
    template = ChatTemplate(source, name=name, now=lambda: NOW, **SPECIALS)
    n_equal = 0
    for tools, more in product((None, TOOLS), ({}, {"enable_thinking": False})):
        wanted = oracle(
            source, messages, tools, False, continue_final_message=True, **SPECIALS, **more
        )
        if wanted is not None:
            assert template.render_up_to(Cut.AFTER_TEXT, messages, tools, **more) == wanted
            n_equal += 1
            continue
        try:
            found = template.render_up_to(Cut.AFTER_TEXT, messages, tools, **more)
        except TemplateError as error:
            assert name in str(error)
        else:  # we help where transformers does not, as in whole conversations
            assert found is None or found.endswith(messages[-1]["content"])
    refused = any(family in name and title in titles for family, titles in REFUSED.items())
    assert n_equal == (0 if refused else 2 if "tool_use" in name else 4)


@pytest.mark.parametrize("field", ["reasoning_content", "thinking", "reasoning"])
@pytest.mark.parametrize("name", NAMES)
def test_thoughts_equal_to_transformers(name: str, field: str) -> None:
    source = source_of(name)
    template = ChatTemplate(source, name=name, now=lambda: NOW, **SPECIALS)
    messages = [user("Hi"), assistant("", **{field: "They greet.\nSo"})]
    wanted = oracle(source, messages, None, False, continue_final_message=field, **SPECIALS)
    try:
        found = template.render_up_to(Cut.AFTER_THOUGHTS, messages)
    except TemplateError:
        found = None  # one for conversations with tools only
    assert found == wanted
    assert (found is not None) is ("reasoning_content" in source)


# Formats that ask for an answer in other words than they write one with.
OWN_FRAME = (
    "bailing-think", "chatglm3", "glmedge", "gpt-oss", "hunyuan-dense", "solar-open", "yandex",
)  # fmt: skip


@pytest.mark.parametrize("name", BUILTIN_TEMPLATES)
def test_built_in_templates_continue(name: str) -> None:
    template = ChatTemplate(BUILTIN_TEMPLATES[name], bos_token="<s>", eos_token="</s>", name=name)
    messages = [user("Hi"), assistant("The answer is")]
    opened = template.render(messages[:1])
    continued = template.render_up_to(Cut.AFTER_TEXT, messages)
    if name in OWN_FRAME:
        opened = template.render(messages[:1], None, False)
        assert continued.startswith(opened) and continued.endswith("The answer is")
        return
    assert continued in (opened + "The answer is", opened + " The answer is")
    assert template.render_up_to(Cut.BEFORE_TEXT, messages) == continued.removesuffix(
        "The answer is"
    )


def test_templates_that_take_parts() -> None:
    source = (
        "{% for m in messages %}[{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for p in m.content %}<{{ p.text }}>{% endfor %}{% endif %}]{% endfor %}"
    )
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b "}]
    template = ChatTemplate(source)
    wanted = oracle(source, [user(parts), assistant(parts)], None, False,
                    continue_final_message=True)  # fmt: skip
    assert wanted == "[<a><b >][<a><b "
    assert template.render_up_to(Cut.AFTER_TEXT, [user(parts), assistant(parts)]) == wanted


def test_what_a_template_leaves_out_cannot_be_continued() -> None:
    template = ChatTemplate("{% for m in messages[:-1] %}{{ m.content }}{% endfor %}")
    messages = [user("Hi"), assistant("The", reasoning_content="So")]
    assert [template.render_up_to(cut, messages) for cut in Cut] == [None, None, None]
    short = "{% for m in messages %}{{ m.content[-25:] }}{% endfor %}"
    messages = [user("Hi"), assistant("The answer is")]
    assert ChatTemplate(short).render_up_to(Cut.AFTER_TEXT, messages) is None
    assert oracle(short, messages, None, False, continue_final_message=True) is None
