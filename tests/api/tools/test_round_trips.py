"""Tool calls through the real templates: what a template writes of a call in a conversation's
history is what the reader reads and the grammar allows; results go back in."""

from __future__ import annotations

import json
from functools import cache

import pytest

from api.answers.events import Finish, Message, Usage
from api.answers.plan import AnswerPlan, chat_plan
from api.answers.reasoning import tags_of
from api.answers.stop import StopScanner, StopTable
from api.replies.openai import message_of, reason_of
from api.requests.openai import parse_conversation
from api.requests.prompts.conversation import Conversation
from api.requests.prompts.prompting import render
from api.served_model import ServedModel
from api.tools.dialects import (
    COMMAND,
    DEEPSEEK,
    DEEPSEEK_R1,
    GENERIC,
    HERMES,
    KIMI,
    LLAMA3,
    LLAMA4,
    LLAMA4_PYTHONIC,
    MISTRAL,
    ToolDialect,
    dialect_of,
)
from benchmarks.writers.filler_vocabulary import bpe_metadata
from dllama.chat.chat_template import ChatTemplate
from dllama.constraints.masks import GrammarMasks
from dllama.constraints.vocabulary_bytes import VocabularyBytes
from dllama.requests import FinishReason
from dllama.tokenizer.tokenizer import Tokenizer
from tests.api.tools.own_templates import OWN_TEMPLATES
from tests.shared_data import shared_file

DIALECTS = {
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": HERMES,
    "Qwen-Qwen2.5-7B-Instruct": HERMES,
    "Qwen-Qwen3-0.6B": HERMES,
    "mistralai-Mistral-Nemo-Instruct-2407": MISTRAL,
    "meta-llama-Llama-3.1-8B-Instruct": LLAMA3,
    "meta-llama-Llama-3.2-3B-Instruct": LLAMA3,
    "meta-llama-Llama-3.3-70B-Instruct": LLAMA3,
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": GENERIC,
    "google-gemma-2-2b-it": GENERIC,
    "microsoft-Phi-3.5-mini-instruct": GENERIC,
    "DeepSeek-R1": DEEPSEEK_R1,
    "DeepSeek-V3.1": DEEPSEEK,
    "Kimi-K2": KIMI,
    "Command-R7B": COMMAND,
    "Command-A-Reasoning": COMMAND,
    "Llama-4": LLAMA4,
    "Llama-4-pythonic": LLAMA4_PYTHONIC,
}
ARGUMENTS = {"city": 'Zürich {"}', "days": 3}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Tells the {name}.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Where."},
                    "days": {"type": "integer", "description": "How long."},
                },
                "required": ["city", "days"],
            },
        },
    }
    for name in ("weather", "time")
]
QUESTION = {"role": "user", "content": "How is it in Zürich?"}


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.from_gguf_metadata(bpe_metadata(352))


def model(name: str) -> ServedModel:
    source = OWN_TEMPLATES.get(name) or shared_file(f"templates/{name}.jinja").read_text()
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    return ServedModel(
        name, tokenizer(), template, None, 4096, 0, tuple(tokenizer().eog_ids),  # type: ignore[arg-type]
        tool_dialect=dialect_of(template.sources), think_tags=tags_of(template.source),
    )  # fmt: skip


def conversation(*messages: object, **more: object) -> Conversation:
    return parse_conversation({"messages": list(messages), "tools": TOOLS, **more})


def answer_of(dialect: ToolDialect, n: int) -> str:
    """What a model of the dialect says when it calls the first n tools."""
    arguments = json.dumps(ARGUMENTS, ensure_ascii=False)
    if dialect.is_pythonic:
        arguments = ", ".join(
            f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in ARGUMENTS.items()
        )
    calls = [
        f"{dialect.before}{dialect.head(tool['function']['name'], i)}{arguments}{dialect.tail}"
        f"{dialect.after}"
        for i, tool in enumerate(TOOLS[:n])
    ]
    if dialect.is_bare:
        return dialect.bare_opening + dialect.between.join(calls) + dialect.bare_closing
    return dialect.opening + dialect.between.join(calls) + dialect.closing


def marked(dialect: ToolDialect, answer: str) -> str:
    """The calls of an answer after other text: with the mark where they may stand without it."""
    if not dialect.is_bare:
        return answer
    calls = answer.removeprefix(dialect.bare_opening).removesuffix(dialect.bare_closing)
    return dialect.opening + calls + dialect.closing


def read(plan: AnswerPlan, text: str) -> tuple[dict, str]:
    """OpenAI's message that a text is read to, and its finish reason."""
    reader = plan.reader(0, StopScanner(StopTable(())))
    assert reader is not None
    said = Message()
    for part in [part for char in text for part in reader.push(char)] + reader.finish():
        said.add(part)
    usage = Usage(0, 0, 0, 0, 0, 0, 0.0, 0.0, 0)
    finish = Finish(0, FinishReason.STOP, usage, has_calls=reader.has_calls)
    return message_of(said), reason_of(finish)


@pytest.mark.parametrize(("name", "dialect"), DIALECTS.items())
def test_the_template_tells_the_dialect(name: str, dialect: ToolDialect) -> None:
    assert model(name).tool_dialect is dialect


@pytest.mark.parametrize("name", DIALECTS)
def test_a_prompt_tells_of_the_tools(name: str) -> None:
    served = model(name)
    prompt = render(served, conversation(QUESTION))
    for tool in TOOLS:
        assert tool["function"]["name"] in prompt
        assert '"city"' in prompt
    if "tool_use" not in name:  # that one is for conversations with tools only
        assert "weather" not in render(served, parse_conversation({"messages": [QUESTION]}))


@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize("name", DIALECTS)
def test_calls_are_allowed_read_rendered_and_read_again(name: str, choice: str) -> None:
    """A model's answer passes its own grammar and is read; the client sends it back with the
    results; the template writes the very calls again, which are read as the same."""
    served = model(name)
    dialect = served.tool_dialect
    n = 1 if dialect.is_single else 2
    asked = conversation(QUESTION, tool_choice=choice)
    prompt = render(served, asked)
    plan = chat_plan(served, asked, None, prompt)
    thoughts = f"They ask.\n{plan.tags.closing}\n\n" if plan.is_open and plan.tags else ""
    text = thoughts + answer_of(dialect, n)
    assert allows(plan.grammar, text)
    assert not allows(plan.grammar, text.replace("days", "weeks"))
    message, reason = read(plan, text)
    assert reason == "tool_calls"
    assert message.get("reasoning_content") == ("They ask." if plan.is_open else None)
    assert [json.loads(call["function"]["arguments"]) for call in message["tool_calls"]] == (
        [ARGUMENTS] * n
    )
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": f"sunny {i}"}
        for i, call in enumerate(message["tool_calls"])
    ]
    again = render(served, conversation(QUESTION, message, *results))
    assert all(str(result["content"]) in again for result in results)
    before, _, told = again.rpartition(QUESTION["content"])
    assert before
    again_read, _ = read(
        chat_plan(served, asked, None, "closed"), told[told.find(_start(dialect)) :]
    )
    assert [call["function"] for call in again_read["tool_calls"]] == [
        {**call["function"], "arguments": a["function"]["arguments"]}
        for call, a in zip(message["tool_calls"], again_read["tool_calls"], strict=True)
    ]
    assert [json.loads(c["function"]["arguments"]) for c in again_read["tool_calls"]] == (
        [ARGUMENTS] * n
    )


def _start(dialect: ToolDialect) -> str:
    if dialect is LLAMA4:
        return dialect.mark  # before calls of a history, though not before those of an answer
    return dialect.bare_opening + dialect.head("weather") if dialect.is_bare else dialect.mark


@cache
def masks() -> GrammarMasks:
    return GrammarMasks(VocabularyBytes.of(tokenizer()), tokenizer().vocab_size)


def allows(grammar: str | None, text: str) -> bool:
    """Whether the whole text, byte by byte, is of the grammar."""
    assert grammar is not None
    constraint = masks().make(grammar, tokenizer().eog_ids)
    is_open = True
    for token in tokenizer().encode(text):
        if not is_open or not constraint.mask()[token]:
            return False
        is_open = constraint.advance(token)
    return not is_open or bool(constraint.mask()[sorted(tokenizer().eog_ids)].any())


@pytest.mark.parametrize("name", DIALECTS)
def test_text_is_free_unless_a_call_is_required(name: str) -> None:
    served = model(name)
    for choice, is_free in (("auto", True), ("required", False)):
        asked = conversation(QUESTION, tool_choice=choice)
        plan = chat_plan(served, asked, None, "closed")
        assert allows(plan.grammar, 'It is { "sunny" } there.\n') is is_free


@pytest.mark.parametrize("name", DIALECTS)
def test_a_named_function_is_the_only_one(name: str) -> None:
    served = model(name)
    choice = {"type": "function", "function": {"name": "weather"}}
    asked = conversation(QUESTION, tool_choice=choice)
    plan = chat_plan(served, asked, None, "closed")
    one = answer_of(served.tool_dialect, 1)
    assert allows(plan.grammar, one)
    assert not allows(plan.grammar, one.replace("weather", "time"))


@pytest.mark.parametrize("name", DIALECTS)
def test_parallel_calls_may_be_refused(name: str) -> None:
    served = model(name)
    if served.tool_dialect.is_single:
        pytest.skip("the dialect has one call a turn")
    for parallel in (True, False):
        asked = conversation(QUESTION, parallel_tool_calls=parallel)
        plan = chat_plan(served, asked, None, "closed")
        one, two = (marked(served.tool_dialect, answer_of(served.tool_dialect, n)) for n in (1, 2))
        assert allows(plan.grammar, "Well: " + two) is parallel
        assert allows(plan.grammar, "Well: " + one)


def test_ids_of_other_servers_fit_mistral() -> None:
    served = model("mistralai-Mistral-Nemo-Instruct-2407")
    function = {"name": "weather", "arguments": "{}"}
    call = {"id": "call_0123456789abcdef", "type": "function", "function": function}
    prompt = render(
        served,
        conversation(
            QUESTION,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": "sunny"},
        ),
    )
    sent = prompt.partition('"id": "')[2][:9]
    assert f'"call_id": "{sent}"' in prompt
