"""The last message of the assistant is continued: by the routes, for real templates, byte for byte
as transformers does it. Where that fails or thinks twice, as llama-server does it."""

from __future__ import annotations

import pytest

from api.answers.reasoning import tags_of
from tests.api.prompts import SPECIALS, apply_template, model_with, prompts, source_of
from tests.api.serving import run, says, serving
from tests.dllama.chat.conversations import (
    BEGUN,
    TEXT,
    TOOLS,
    assistant,
    call,
    oracle,
    result,
    system,
    user,
)
from tests.scripted_runner import ScriptedEngine
from tests.shared_data import shared_names

NAMES = [
    name.removeprefix("templates/")
    for name in shared_names("templates/*.jinja")
    if "tool_use" not in name
]
R1 = "deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja"
QWEN3 = "Qwen-Qwen3-0.6B.jinja"
QWEN35 = (  # the part of Qwen3.5's template that writes the assistant's turns
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}<think>\n{{ m.reasoning_content | default('') | trim }}\n"
    "</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}{% endif %}"
)
QWEN_HI = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("name", NAMES)
def test_equal_to_transformers(name: str) -> None:
    source = source_of(name)
    wanted = {
        title: oracle(source, messages, None, False, continue_final_message=True, **SPECIALS)
        for title, messages in BEGUN.items()
    }
    if "Phi-3.5" in name or name == R1:  # they leave calls out, one of them beside empty text
        wanted.pop("after a result")
    taken = [title for title, prompt in wanted.items() if prompt is not None]
    assert len(taken) >= 6
    bodies = [{"messages": BEGUN[title]} for title in taken]
    assert prompts(source, *bodies) == [wanted[title] for title in taken]
    asked = [{**body, "continue_final_message": True} for body in bodies]
    assert prompts(source, *asked) == [wanted[title] for title in taken]


def test_a_message_is_not_continued_inside_open_thoughts() -> None:
    messages = [user("Hi"), assistant("The answer is")]
    assert prompts(source_of(R1), {"messages": messages}) == [
        "<s><｜User｜>Hi<｜Assistant｜>The answer is"
    ]
    wanted = f"{QWEN_HI}<think>\n\n</think>\n\nThe answer is"
    assert prompts(QWEN35, {"messages": messages}) == [wanted]
    assert oracle(QWEN35, messages, None, False, continue_final_message=True) == wanted


def test_thoughts_beside_it_are_rendered_where_the_template_can() -> None:
    body = {"messages": [user("Hi"), assistant("The answer", reasoning_content="They greet.")]}
    thinking = "<think>\nThey greet.\n</think>\n\nThe answer"
    assert prompts(QWEN35, body) == prompts(source_of(QWEN3), body) == [QWEN_HI + thinking]
    assert prompts(source_of(R1), body) == ["<s><｜User｜>Hi<｜Assistant｜>The answer"]


OWN = [  # thoughts that the text brings: as they are, and none beside them
    "<think>\nThey greet.\n</think>\n\nThe answer",
    "<think>They greet.</think>The answer",
    "<think>\nThey greet",
    "<think>\n\n</think>\n\nThe answer",
]


@pytest.mark.parametrize("text", OWN)
def test_text_with_thoughts_of_its_own_is_not_given_others(text: str) -> None:
    body = {"messages": [user("Hi"), assistant(text)]}
    assert prompts(source_of(QWEN3), body) == prompts(QWEN35, body) == [QWEN_HI + text]
    assert prompts(source_of(R1), body) == [f"<s><｜User｜>Hi<｜Assistant｜>{text}"]
    beside = oracle(source_of(QWEN3), body["messages"], None, False, continue_final_message=True)
    if text == OWN[0]:  # the others are thoughts that transformers drops, or writes twice
        assert beside == QWEN_HI + text


def test_thoughts_that_the_prompt_had_opened_come_back() -> None:
    """Clients send back the text that they got with `reasoning_format` none."""
    body = {"messages": [user("Hi"), assistant("They greet.\n</think>\n\nThe answer")]}
    begun = "<think>\nThey greet.\n</think>\n\nThe answer"
    assert prompts(source_of(QWEN3), body) == prompts(QWEN35, body) == [QWEN_HI + begun]
    assert prompts(source_of(R1), body) == [f"<s><｜User｜>Hi<｜Assistant｜>{begun}"]


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_thoughts_alone_are_continued(key: str) -> None:
    for content in ("", None):
        body = {"messages": [user("Hi"), assistant(content, **{key: "They greet.\nSo"})]}
        for source in (source_of(QWEN3), QWEN35):
            assert prompts(source, body) == [QWEN_HI + "<think>\nThey greet.\nSo"]
        begun = "<s><｜User｜>Hi<｜Assistant｜><think>\nThey greet.\nSo"
        assert prompts(source_of(R1), body) == [begun]


def test_the_part_to_continue_can_be_named() -> None:
    messages = [user("Hi"), assistant("The answer", reasoning_content="They greet.")]
    thoughts = {"messages": messages, "continue_final_message": "reasoning_content"}
    content = {"messages": messages, "continue_final_message": "content"}
    source = source_of(QWEN3)
    assert prompts(source, thoughts, content) == [
        QWEN_HI + "<think>\nThey greet.",
        QWEN_HI + "<think>\nThey greet.\n</think>\n\nThe answer",
    ]
    wanted = oracle(source, messages, None, False, continue_final_message="reasoning_content")
    assert prompts(source, thoughts) == [wanted]


def test_a_history_of_calls_is_written_as_the_template_does() -> None:
    """R1's template knows calls and results but no tools, and drops calls beside a text."""
    before = [user("w?"), assistant(None, tool_calls=[call(TEXT)]), result()]
    source, begun = source_of(R1), assistant("Sun")
    wanted = oracle(source, [*before, begun], None, False, continue_final_message=True, **SPECIALS)
    assert wanted is not None and TEXT in wanted and wanted.endswith("<｜tool▁outputs▁end｜>Sun")
    empty = [before[0], {**before[1], "content": ""}, before[2]]
    assert prompts(source, {"messages": [*before, begun]}) == [wanted]
    assert prompts(source, {"messages": [*empty, begun]}) == [wanted]
    assert prompts(source, {"messages": before}) == [wanted.removesuffix("Sun")]
    beside = [before[0], {**before[1], "content": "I look."}, before[2]]
    for body in ({"messages": beside}, {"messages": before, "tools": TOOLS}):
        [prompt] = prompts(source, body)
        assert TEXT in prompt and "<tool_response>" in prompt


def test_parts_of_text_are_joined_as_llama_server_does() -> None:
    parts = [{"type": "text", "text": "The"}, {"type": "text", "text": "answer"}]
    body = {"messages": [user("Hi"), assistant(parts)]}
    assert prompts(source_of(R1), body) == ["<s><｜User｜>Hi<｜Assistant｜>The\n\nanswer"]


REFUSED = [
    ([user("Hi"), assistant("", reasoning_content="hm")], {}, "knows no thoughts"),
    ([user("Hi"), assistant("a"), assistant("b")], {}, "the one before it"),
    ([user("Hi"), assistant("a")], {"continue_final_message": "reasoning"}, "has no thoughts"),
    ([user("Hi"), assistant("a")], {"continue_final_message": "text"}, "reasoning_content"),
    (
        [user("Hi"), assistant("a")],
        {"continue_final_message": True, "add_generation_prompt": True},
        "at the same time",
    ),
    ([user("Hi")], {"continue_final_message": True}, "not the assistant's"),
]


@pytest.mark.parametrize(("messages", "more", "reason"), REFUSED)
def test_what_cannot_be_continued_is_named(messages: list, more: dict, reason: str) -> None:
    source = source_of("google-gemma-2-2b-it.jinja")
    [reply] = apply_template(source, {"messages": messages, **more})
    assert reply.status == 400
    assert reason in reply.error["message"]


@pytest.mark.parametrize(
    ("begun", "said", "thoughts", "content"),
    [
        (assistant("<think>\nThey"), " greet.\n</think>\n\nHello", " greet.", "Hello"),
        (assistant("", reasoning_content="They"), " greet.</think>Hello", " greet.", "Hello"),
        (assistant("Hel"), "lo <think>", None, "lo <think>"),
        (assistant("<think>They greet.</think>Hel"), "lo", None, "lo"),
    ],
)
def test_an_answer_goes_on_where_it_was(
    begun: dict, said: str, thoughts: str | None, content: str
) -> None:
    engine = ScriptedEngine(says(said))

    async def body() -> None:
        async with serving(model_with(source_of(R1), engine)) as server:
            reply = await server.chat(messages=[system(), user("Hi"), begun])
            [choice] = reply.json["choices"]
            assert choice["message"].get("reasoning_content") == thoughts
            assert choice["message"]["content"] == content

    run(body)


def test_cohere_thoughts_are_known() -> None:
    tags = tags_of("{{ '<|START_THINKING|>' }}")
    assert tags is not None and tags.closing == "<|END_THINKING|>"
