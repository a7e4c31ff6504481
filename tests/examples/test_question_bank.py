"""What dllama-demo is taught: complete, true to the commands, and apart from what it is asked."""

from __future__ import annotations

import random
import re

import pytest

from api.routes.table import shown_routes
from dllama.cli.command_table import all_parsers
from examples.demo_model.data.conversations import FOLLOW_UPS, Writer
from examples.demo_model.data.phrasing import expand
from examples.demo_model.data.question_bank import (
    DLLAMA_FILES,
    TALK_FILES,
    load_facts,
    normal,
    parse_facts,
)

FACTS = load_facts(DLLAMA_FILES)
N_DOCUMENTS = 20_000
MAX_SHARED = 0.6


def test_there_are_many_held_out_questions_and_all_differ() -> None:
    held = [normal(question) for fact in FACTS for question in fact.held]
    assert len(held) >= 150
    assert len(set(held)) == len(held)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.id)
def test_a_fact_is_complete_and_its_answers_would_pass(fact) -> None:  # type: ignore[no-untyped-def]
    assert fact.held and fact.says and fact.brief and fact.keys
    assert len(fact.do) + len(fact.what) + len(fact.ask) >= 3
    for answer in (*fact.says, fact.brief):
        assert fact.missing(answer) == []


def test_an_answer_without_a_keyword_is_wrong() -> None:
    [fact] = parse_facts("# a.b\nkeys: --port, x|y, | z", "test")
    assert fact.missing("use --PORT and Y | z") == []
    assert fact.missing("use --port | z") == ["x|y"]


@pytest.mark.parametrize(
    "line", ["do: x", "# a.b (unknown)", "# a.b\nwhatever: x", "# a.b\nno key"]
)
def test_a_bad_line_of_the_bank_is_named(line: str) -> None:
    with pytest.raises(ValueError, match=r"bad\.txt, line \d"):
        parse_facts(line, "bad.txt")


def test_no_held_out_question_is_in_the_training_text() -> None:
    held = [normal(question) for fact in FACTS for question in fact.held]
    lines = set()
    for document in Writer(seed=2).documents(N_DOCUMENTS):
        lines.update(normal(message.content) for message in document.messages)
    text = "\n".join(lines)
    assert [question for question in held if question in text] == []


def test_a_held_out_question_is_recognised_however_it_is_spelled() -> None:
    writer = Writer(seed=0)
    question = writer.dllama[0].held[0]
    assert writer.is_held(f"Hi! {question.upper()} ??")
    assert not writer.is_held("hello")


def test_every_flag_the_model_is_taught_exists() -> None:
    known = {flag for _, parser in all_parsers() for flag in parser._option_string_actions}
    for fact in FACTS:
        for answer in (*fact.says, fact.brief):
            named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", answer))
            assert named <= known, f"{fact.id}: {named - known}"


def test_every_route_the_model_is_taught_exists() -> None:
    known = {route.split()[1] for route in shown_routes()}
    for fact in FACTS:
        for answer in fact.says:
            for route in re.findall(r"(?<![\w/.:])(/v1/[a-z/]+|/(?:de)?tokenize|/stats)", answer):
                assert route.rstrip("/") in known, f"{fact.id}: {route}"


def test_follow_ups_name_facts() -> None:
    ids = {fact.id for fact in (*FACTS, *load_facts(TALK_FILES))}
    assert {i for of, to, _ in FOLLOW_UPS for i in (of, to)} <= ids


def test_no_held_out_question_is_nearly_a_training_question() -> None:
    """Words in common over all words: a new wording, not one with a word exchanged."""
    rng = random.Random(0)
    for fact in FACTS:
        patterns = [*fact.ask, *fact.what, *fact.do]
        taught = [set(normal(expand(rng, p)).split()) for p in patterns for _ in range(5)]
        for question in fact.held:
            words = set(normal(question).split())
            nearest = max(len(words & other) / len(words | other) for other in taught)
            assert nearest <= MAX_SHARED, f"{fact.id}: {question!r} is too near to a taught one"
