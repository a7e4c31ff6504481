"""One table says what becomes of every field, and docs/fields.md shows it."""

from __future__ import annotations

import typing

import pytest

from api.requests.verdicts import Verdict
from tests.api.requests.fields_page import APIS, PAGE, page

OFFICIAL = {
    "chat": ("openai.types.chat.completion_create_params", "CompletionCreateParamsBase"),
    "completions": ("openai.types.completion_create_params", "CompletionCreateParamsBase"),
    "responses": ("openai.types.responses.response_create_params", "ResponseCreateParamsBase"),
    "embeddings": ("openai.types.embedding_create_params", "EmbeddingCreateParams"),
    "messages": ("anthropic.types.beta.message_create_params", "MessageCreateParamsBase"),
}


def test_the_page_shows_the_table() -> None:
    assert PAGE.read_text() == page(), "run python -m tests.api.requests.fields_page"


@pytest.mark.parametrize("api", OFFICIAL)
def test_every_official_field_has_a_verdict(api: str) -> None:
    module, name = OFFICIAL[api]
    params = getattr(pytest.importorskip(module), name)
    fields, rules = APIS[api]
    known = {name for field in fields for name in field.names} | set(rules)
    assert set(typing.get_type_hints(params)) <= known


@pytest.mark.parametrize("api", APIS)
def test_what_is_honoured_is_in_no_other_row(api: str) -> None:
    fields, rules = APIS[api]
    honoured = {name for field in fields for name in field.names}
    assert not {n for n in honoured & set(rules) if rules[n].verdict is Verdict.REFUSED}
    assert all(rule.why for rule in rules.values())
