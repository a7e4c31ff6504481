"""Whole conversations, with tools, calls and results in them, by the route: byte for byte what
transformers renders, for every template and conversation that it can render."""

from __future__ import annotations

from itertools import product

import pytest

from tests.api.prompts import SPECIALS, model_with, prompts, source_of
from tests.dllama.chat.conversations import CONVERSATIONS, TOOLS, oracle
from tests.dllama.chat.test_real_templates import PARSED
from tests.shared_data import shared_names

NAMES = [name.removeprefix("templates/") for name in shared_names("templates/*.jinja")]
# These templates know no tools. One fails on calls, one leaves them out, and one writes them only
# without a text beside: there, transformers loses what the model and the tools have said.
LOSES_CALLS = ("gemma", "Phi-3.5", "R1-Distill")


def is_fair(name: str, title: str) -> bool:
    """Whether transformers' rendering holds all that was said, in the form that was sent."""
    if title == "call as text" and any(family in name for family in PARSED):
        return False  # JSON that is written as JSON once more
    has_calls = any(message.get("tool_calls") for message in CONVERSATIONS[title])
    return not (has_calls and any(family in name for family in LOSES_CALLS))


@pytest.mark.parametrize("name", NAMES)
def test_equal_to_transformers(name: str) -> None:
    source = source_of(name)
    has_tools = model_with(source).tool_dialect.describes_tools
    bodies, wanted = [], []
    for title, tools, add in product(
        CONVERSATIONS, (None, TOOLS) if has_tools else (None,), (True, False)
    ):
        messages = CONVERSATIONS[title]
        rendered = oracle(source, messages, tools, add, **SPECIALS)
        if rendered is None or not is_fair(name, title):
            continue
        add_fields = {"add_generation_prompt": add, "continue_final_message": False}
        bodies.append({"messages": messages, "tools": tools, **add_fields})
        wanted.append(rendered)
    assert len(bodies) >= 14
    assert prompts(source, *bodies) == wanted
