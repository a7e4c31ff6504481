"""Answers of the model that comes with dllama, held to grammars by the real engine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from benchmarks.json_schemas import answers, submits, verdict
from benchmarks.random_schemas import random_schema
from dllama.chat import ChatTemplate, find_template
from dllama.cli.flags.arguments import DEFAULT_MODEL
from dllama.constraints.grammars import GrammarKind, source_part, whole_answer
from dllama.constraints.masks import GrammarMasks
from dllama.constraints.vocabulary_bytes import VocabularyBytes
from dllama.engine.engine import Engine
from dllama.formats.gguf import GgufFile
from dllama.requests import FinishReason, SamplingParams, Submit
from dllama.tokenizer import Tokenizer
from tests.local_model import local_runner

LATER_S = float("inf")
N_SCHEMAS = 40


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_gguf_metadata(GgufFile(DEFAULT_MODEL).metadata)


@pytest.fixture(scope="module")
def template(tokenizer: Tokenizer) -> ChatTemplate:
    return find_template(GgufFile(DEFAULT_MODEL).metadata, tokenizer=tokenizer)


def engine_of(tokenizer: Tokenizer, n_pages: int) -> Iterator[Engine]:
    with local_runner(DEFAULT_MODEL, n_pages=n_pages) as runner:
        masks = GrammarMasks(VocabularyBytes.of(tokenizer), runner.config.vocab_size)
        engine = Engine(runner, max_step_tokens=112, constraints=masks)
        yield engine
        masks.close()


@pytest.fixture(scope="module")
def engine(tokenizer: Tokenizer) -> Iterator[Engine]:
    yield from engine_of(tokenizer, 256)


@pytest.fixture(scope="module")
def narrow_engine(tokenizer: Tokenizer) -> Iterator[Engine]:
    """Too few pages for several long answers, so that some are pre-empted."""
    yield from engine_of(tokenizer, 12)


def test_answers_are_valid_json_of_their_schemas(
    engine: Engine, tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    requests = submits(range(N_SCHEMAS), tokenizer, template, 600)
    found = answers(engine, requests, LATER_S)
    n_endless = 0
    for seed in range(N_SCHEMAS):
        tokens, end, error = found[str(seed)]
        text = tokenizer.decode(tokens, is_continuation=True)
        said = verdict(random_schema(seed), text, end, error)
        if "$defs" in random_schema(seed) and end is FinishReason.LENGTH:
            n_endless += 1  # a schema that holds itself: a small model may nest for ever
            continue
        assert said == "valid", (seed, random_schema(seed), text)
    assert n_endless <= 2


def asked(tokenizer: Tokenizer, name: str, source: str, **more: object) -> Submit:
    stops = sorted(tokenizer.eog_ids)
    prompt = tokenizer.encode("What is dllama? ")
    sampling = SamplingParams(temperature=1.0, seed=7, top_k=0)
    grammar = whole_answer(source_part(GrammarKind.REGEX, source))
    return Submit(name, prompt, sampling, stops, 400, grammar=grammar, **more)  # type: ignore[arg-type]


def test_an_answer_ends_by_itself_where_the_grammar_does(
    engine: Engine, tokenizer: Tokenizer
) -> None:
    one = asked(tokenizer, "one", "[a-z]{3}-[0-9]{3}")
    free = Submit("free", one.tokens, one.sampling, one.stop_ids, 20)
    found = answers(engine, [one, free], LATER_S)
    tokens, end, _ = found["one"]
    assert end is FinishReason.STOP
    assert re.fullmatch("[a-z]{3}-[0-9]{3}", tokenizer.decode(tokens))
    assert found["free"][0] != tokens


def test_constrained_answers_are_the_same_alone_together_and_after_preemption(
    engine: Engine, narrow_engine: Engine, tokenizer: Tokenizer
) -> None:
    source = "[a-z ,.]{400,460}!"
    requests = [asked(tokenizer, str(i), source) for i in range(6)]
    alone = answers(engine, requests[:1], LATER_S)["0"]
    together = answers(narrow_engine, requests, LATER_S)
    assert narrow_engine.stats()["kv"]["pages_total"] == 12  # type: ignore[index]
    assert len(alone[0]) > 64  # more than 12 pages hold for six
    assert all(found == alone for found in together.values())
    assert re.fullmatch(source, tokenizer.decode(alone[0]))


def test_a_form_needs_no_top_k_to_be_met(engine: Engine, tokenizer: Tokenizer) -> None:
    """The greedy token of an unlikely form is far below the candidates that ranks would send."""
    request = asked(tokenizer, "odd", "(Ω|✓){4}")
    greedy = SamplingParams(temperature=0.0)
    odd = Submit("odd", request.tokens, greedy, request.stop_ids, 50, grammar=request.grammar)
    tokens, end, _ = answers(engine, [odd], LATER_S)["odd"]
    assert end is FinishReason.STOP
    assert re.fullmatch("(Ω|✓){4}", tokenizer.decode(tokens))


def test_a_grammar_that_cannot_be_compiled_ends_its_sequence_alone(
    engine: Engine, tokenizer: Tokenizer
) -> None:
    good = asked(tokenizer, "good", "[a-z]{5}")
    bad = Submit("bad", good.tokens, good.sampling, good.stop_ids, 50, grammar="{}")
    found = answers(engine, [good, bad], LATER_S)
    assert found["good"][1] is FinishReason.STOP
    assert found["bad"][1] is FinishReason.ERROR
    assert "grammar" in str(found["bad"][2])


def test_an_engine_without_a_vocabulary_refuses_grammars(tokenizer: Tokenizer) -> None:
    with local_runner(DEFAULT_MODEL) as runner:
        found = answers(Engine(runner), [asked(tokenizer, "one", "a")], LATER_S)
    assert found["one"][1] is FinishReason.ERROR
    assert "vocabulary" in str(found["one"][2])


def test_json_can_be_read_by_anyone(engine: Engine, tokenizer: Tokenizer) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 20}}}
    part = source_part(GrammarKind.JSON_SCHEMA, {**schema, "required": ["a"]})
    one = asked(tokenizer, "one", "a")
    request = Submit("one", one.tokens, one.sampling, one.stop_ids, 99, grammar=whole_answer(part))
    tokens, end, _ = answers(engine, [request], LATER_S)["one"]
    assert end is FinishReason.STOP
    assert list(json.loads(tokenizer.decode(tokens))) == ["a"]
