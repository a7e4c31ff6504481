"""llama-server's `chat_template_caps` of real templates."""

from __future__ import annotations

import pytest

from dllama.chat.builtin_templates import BUILTIN_TEMPLATES
from dllama.chat.caps import template_caps
from dllama.chat.chat_template import ChatTemplate
from tests.shared_data import shared_file

NAMES = {
    "supports_string_content", "supports_typed_content", "supports_tools", "supports_tool_calls",
    "supports_parallel_tool_calls", "supports_system_role", "supports_preserve_reasoning",
    "supports_reasoning_effort", "supports_object_arguments",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "tools", "parallel"),
    [
        ("Qwen-Qwen2.5-7B-Instruct", True, True),
        ("Qwen-Qwen3-0.6B", True, True),
        ("meta-llama-Llama-3.1-8B-Instruct", True, True),  # one after the other
        ("mistralai-Mistral-Nemo-Instruct-2407", True, True),
        ("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", True, True),
        ("google-gemma-2-2b-it", False, False),
        ("microsoft-Phi-3.5-mini-instruct", False, False),
    ],
)
def test_what_real_templates_can_show(name: str, tools: bool, parallel: bool) -> None:
    source = shared_file(f"templates/{name}.jinja").read_text(encoding="utf-8")
    caps = template_caps(ChatTemplate(source, bos_token="<s>", eos_token="</s>", name=name))
    assert caps.keys() == NAMES
    assert (caps["supports_tools"], caps["supports_tool_calls"]) == (tools, tools)
    assert caps["supports_parallel_tool_calls"] is parallel
    assert caps["supports_system_role"] is True  # gemma's is told in the user's message


def test_efforts_and_thoughts() -> None:
    source = "{% for m in messages %}{{ m.content }}{{ m.reasoning_content }}{% endfor %}"
    caps = template_caps(ChatTemplate(source + "{{ reasoning_effort }}"))
    assert caps["supports_reasoning_effort"] and caps["supports_preserve_reasoning"]
    caps = template_caps(ChatTemplate(BUILTIN_TEMPLATES["chatml"]))
    assert not caps["supports_reasoning_effort"] and not caps["supports_preserve_reasoning"]
