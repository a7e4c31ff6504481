"""ChatTemplate: Jinja as transformers' dialect, adaptations, limits, and errors as sentences."""

from __future__ import annotations

from typing import Any

import pytest

from dllama.chat import ChatTemplate, stop_texts, template_stop_ids
from dllama.chat.builtin_templates import BUILTIN_TEMPLATES
from dllama.errors import TemplateError
from dllama.tokenizer import Tokenizer
from tests.api.harmony_model import TEMPLATE as HARMONY
from tests.dllama.chat.conversations import TOOLS, assistant, call, oracle, system, user
from tests.dllama.tokenizer.vocabularies import bpe_metadata, real_tokenizer

LOOP = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"

DIALECT = [
    "{{ messages | tojson }}",
    "{{ {'é': '<&>', 'b': [1, none]} | tojson(indent=2) }}",
    "{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':'), ensure_ascii=true) }}",
    "  {% if true %}\n  x\n  {% endif %}\n y",
    "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% if i > 4 %}"
    "{% break %}{% endif %}{% endfor %}",
    "{% generation %}{% set x = 1 %}{{ x }} {% endgeneration %}[{{ x }}]",
    "{% macro m(a, b=2) %}{{ a }}-{{ b }}{% endmacro %}{{ m(1) }}{{ m('x', b='y') }}",
    "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}in{% endcall %}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
    "{{ ns.n }}",
    "{{ messages[::-1][0].content }}{{ messages | map(attribute='role') | join('/') }}",
    "{% for k, v in {'a': 1}.items() %}{{ k ~ '=' ~ v ~ none }}{% else %}no{% endfor %}",
    "{{ 'abc' | center(9) }}|{{ 'a\nb' | indent(3) }}|{{ '%s-%03d' | format('x', 7) }}",
    "{{ 'a.b.a' | replace('a', 'c') }}{{ 'aa' | replace('a', 'b', 1) }}{{ 'x'.replace('x', 'y') }}",
    "{{ '%d%%' % 5 }}{{ '{:>5}'.format(3) }}{{ 'ab' * 3 }}{{ [1] + [2] }}{{ 2 ** 5 }}",
    "{{ missing }}{{ missing is defined }}{{ tools is none }}{{ documents is none }}",
    "{% for m in messages recursive %}{{ loop.index }}{{ loop.last }}{% endfor %}",
    "{% for m in messages if m.role == 'user' %}{{ loop.first }}{{ loop.length }}{% endfor %}",
    "{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}",
    "{%- set a, b = 1, 2 -%}{{ a }}{{ b }}{% raw %}{{ x }}{% endraw %}{# note #}",
]


@pytest.mark.parametrize("source", DIALECT)
def test_dialect_is_transformers(source: str) -> None:
    messages = [user("a"), assistant("b")]
    specials = {"bos_token": "<s>", "eos_token": "</s>"}
    wanted = oracle(source, messages, None, True, **specials)
    assert wanted is not None
    assert ChatTemplate(source, **specials).render(messages) == wanted


def test_syntax_errors_are_named_with_the_line() -> None:
    with pytest.raises(TemplateError, match=r"\(mine\) is no valid Jinja.*line 2.*--chat-template"):
        ChatTemplate("ok\n{% if %}", name="mine")


def test_a_refusal_tells_what_the_template_says() -> None:
    template = ChatTemplate("{{ raise_exception('No ' ~ messages[0].role) }}", name="strict")
    with pytest.raises(TemplateError, match=r"\(strict\) refuses these messages: No user\.$"):
        template.render([user("a")])


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[9].content }}",
        "{{ 1 + 'a' }}",
        "{{ none.x.y }}",
        "{{ missing | tojson }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ 1 // 0 }}",
        "{{ strftime_now(3) }}",
        "{% include 'secret' %}",
    ],
)
def test_failures_become_template_errors(source: str) -> None:
    with pytest.raises(TemplateError, match=r"fails on these messages.*--chat-template\.$"):
        ChatTemplate(source).render([user("a")])


def test_the_line_of_a_failure_is_told() -> None:
    with pytest.raises(TemplateError, match="in line 3: "):
        ChatTemplate("a\nb\n{{ 1 // 0 }}\nc").render([user("a")])


NESTED = "{% for i in range(99999) %}" * 2 + "{% endfor %}" * 2
DOUBLING = "{%% set ns = namespace(x='abcd') %%}{%% for i in range(60) %%}{%% set ns.x = %s %%}"


@pytest.mark.parametrize(
    "source",
    [
        NESTED,
        "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}",
        "{{ 'a' * 10 ** 9 }}",
        "{{ [0] * 10 ** 9 }}",
        "{{ (20_000_000 * 'a') | length }}",
        "{{ 9 ** 99 ** 9 }}",
        "{{ 'a'.ljust(10 ** 12) }}",
        "{{ 'a' | center(10 ** 12) }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ ('a' * 9999).replace('a', 'b' * 9999) }}",
        "{{ ('a' * 9999) | replace('a', 'b' * 9999) }}",
        DOUBLING % "ns.x ~ ns.x" + "{% endfor %}",
        DOUBLING % "ns.x + ns.x" + "{% endfor %}",
        "{% set _dllama_turn = 1 %}" + NESTED,
    ],
)
def test_hostile_templates_are_stopped(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dllama.chat.limits.MAX_TURNS", 10_000)
    template = ChatTemplate(source)
    with pytest.raises(TemplateError):
        template.render([user("a")])


def test_long_conversations_are_within_the_limits() -> None:
    messages = [user("x" * 500), assistant("y" * 500)] * 2000
    assert len(ChatTemplate(LOOP).render(messages)) > 2_000_000


def test_input_is_left_as_it_was() -> None:
    parts = [{"type": "text", "text": "a"}]
    messages: list[dict[str, Any]] = [
        {"role": "developer", "content": parts},
        user(parts),
        assistant(None, tool_calls=[call('{"a": 1}')], reasoning="r"),
    ]
    before = repr(messages)
    ChatTemplate(BUILTIN_TEMPLATES["gemma"]).render(messages)
    assert repr(messages) == before


def test_null_content_is_empty_where_it_would_be_written_out() -> None:
    messages = [user("a"), assistant(None, tool_calls=[call("{}")])]
    assert ChatTemplate(LOOP).render(messages) == "user:a;assistant:;"
    assert ChatTemplate(BUILTIN_TEMPLATES["chatml"]).render(messages).count("None") == 0


def test_parts_stay_parts_for_templates_that_know_them() -> None:
    source = (
        "{% for m in messages %}{% if m.content is string %}S:{{ m.content }}{% else %}"
        "{% for p in m.content %}P:{{ p.text }}{% endfor %}{% endif %}{% endfor %}"
    )
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    template = ChatTemplate(source)
    assert template.render([user(parts), user("c")]) == "P:aP:bS:c"
    only_parts = "{% for m in messages %}{{ m.content[0]['text'] }}{% endfor %}"
    assert ChatTemplate(only_parts).render([user("abc")]) == "abc"


def test_reasoning_is_found_under_its_older_names() -> None:
    for name in ("reasoning_content", "thinking"):
        source = "{% for m in messages %}{{ m." + name + " }}{{ m.content }}{% endfor %}"
        for key in ("reasoning", "thinking", "reasoning_content"):
            assert ChatTemplate(source).render([assistant("b", **{key: "R"})]) == "Rb"


def test_system_without_a_following_user() -> None:
    template = ChatTemplate(BUILTIN_TEMPLATES["gemma"], bos_token="<bos>")
    wanted = "<bos><start_of_turn>user\nS<end_of_turn>\n"
    assert template.render([system("S")], add_generation_prompt=False) == wanted


def test_system_text_is_told_once_before_the_user_it_precedes() -> None:
    template = ChatTemplate(BUILTIN_TEMPLATES["gemma"])
    messages = [system("S"), user("a"), assistant("b"), user("c"), system("T"), user("d")]
    assert template.render(messages, add_generation_prompt=False) == (
        "<start_of_turn>user\nS\n\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n"
        "<start_of_turn>user\nc<end_of_turn>\n<start_of_turn>user\nT\n\nd<end_of_turn>\n"
    )


def test_broken_arguments_stay_text() -> None:
    source = (
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}"
        "{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}"
    )
    template = ChatTemplate(source)
    for text, wanted in (('{"a": ', '"{\\"a\\": "'), ("[1]", '"[1]"'), ("", "{}")):
        messages = [user("x"), assistant("", tool_calls=[call(text)])]
        assert template.render(messages) == "x" + wanted


def test_the_tool_template_is_used_when_there_are_tools() -> None:
    template = ChatTemplate("plain", tool_source="{{ tools | length }} tools")
    assert template.render([user("a")]) == "plain"
    assert template.render([user("a")], []) == "plain"
    assert template.render([user("a")], TOOLS) == "2 tools"


# Formats whose turns end with a line feed, with nothing, or with a mark that is the model's EOS.
WITHOUT_MARK = (
    "deepseek-ocr", "exaone3", "exaone4", "minicpm", "pangu-embedded", "rwkv-world", "seed_oss",
    "yandex",
)  # fmt: skip


@pytest.mark.parametrize("name", BUILTIN_TEMPLATES)
def test_built_in_templates_hold_every_text_in_order(name: str) -> None:
    template = ChatTemplate(BUILTIN_TEMPLATES[name], bos_token="<s>", eos_token="</s>", name=name)
    messages = [system("S1"), user("U2"), assistant("A3"), user("U4")]
    prompt = template.render(messages)
    places = [prompt.index(text) for text in ("S1", "U2", "A3", "U4")]
    assert places == sorted(places)
    assert prompt.startswith(template.render(messages, add_generation_prompt=False))
    assert len(stop_texts(template)) == (name not in WITHOUT_MARK)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("command-r", "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>S<|END_OF_TURN_TOKEN|>"
         "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>U<|END_OF_TURN_TOKEN|>"
         "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"),
        ("llama2-sys", "[INST] <<SYS>>\nS\n<</SYS>>\n\n U  [/INST]"),
        ("mistral-v1", " [INST] S\n\n U  [/INST]"),
        ("mistral-v3-tekken", "[INST]S\n\n U [/INST]"),
        ("orion", "Human: S\n\n U \n\nAssistant: </s>"),
        ("deepseek", "S### Instruction:\n U \n### Response:\n"),
        ("bailing", "<role>SYSTEM</role>S<role>HUMAN</role> U <role>ASSISTANT</role>"),
        ("gpt-oss", "<|start|>system<|message|>S<|end|><|start|>user<|message|> U <|end|>"
         "<|start|>assistant"),
        ("phi4", "<|im_start|>system<|im_sep|>S<|im_end|><|im_start|>user<|im_sep|> U <|im_end|>"
         "<|im_start|>assistant<|im_sep|>"),
    ],
)  # fmt: skip
def test_formats_of_llama_server(name: str, wanted: str) -> None:
    template = ChatTemplate(BUILTIN_TEMPLATES[name], bos_token="<s>", eos_token="</s>", name=name)
    assert template.render([system("S"), user(" U ")]) == wanted


def test_stop_ids_of_a_template() -> None:
    llama3 = real_tokenizer("llama-bpe")
    template = ChatTemplate(BUILTIN_TEMPLATES["llama3"], bos_token=llama3.bos_text)
    assert template_stop_ids(template, llama3) == {128009}
    llama2 = real_tokenizer("llama-spm")
    for name in ("llama2", "zephyr", "mistral"):
        template = ChatTemplate(BUILTIN_TEMPLATES[name], bos_token="<s>", eos_token="</s>")
        assert template_stop_ids(template, llama2) == {2}


def test_an_end_of_thoughts_is_no_end_of_a_turn() -> None:
    """Harmony ends all messages of a turn but the last with the same token."""
    marks = {"<|start|>": 3, "<|message|>": 3, "<|end|>": 3, "<|return|>": 3, "<|call|>": 3}
    tokenizer = Tokenizer.from_gguf_metadata(bpe_metadata([], marks))
    [returns] = tokenizer.encode("<|return|>", parse_special=True)
    found = template_stop_ids(ChatTemplate(HARMONY), tokenizer)
    assert found == {returns} <= tokenizer.eog_ids


def test_an_end_that_is_no_token_gives_no_id() -> None:
    tokenizer = Tokenizer.from_gguf_metadata(bpe_metadata([], {"<|bos|>": 3}))
    template = ChatTemplate(BUILTIN_TEMPLATES["chatml"])
    assert stop_texts(template) == ("<|im_end|>",)
    assert template_stop_ids(template, tokenizer) == frozenset()
    assert stop_texts(ChatTemplate(LOOP)) == ()
    assert stop_texts(ChatTemplate("{{ raise_exception('x') }}")) == ()
