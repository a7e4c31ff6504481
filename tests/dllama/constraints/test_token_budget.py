"""Answers under a grammar are whole when their tokens run out, whatever would have been drawn."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from benchmarks.random_schemas import random_schema
from dllama.cli.flags.arguments import DEFAULT_MODEL
from dllama.constraints.grammars import GrammarKind, json_part, source_part, whole_answer
from dllama.constraints.masks import GrammarMasks
from dllama.constraints.vocabulary_bytes import VocabularyBytes
from dllama.engine.engine import Engine
from dllama.formats.gguf import GgufFile
from dllama.requests import FinishReason, SamplingParams, Submit
from dllama.tokenizer import Tokenizer
from tests.dllama.engine.days import drain
from tests.dllama.engine.history_runner import HistoryRunner

# A tree whose alternatives lead on and on, whichever way the letters are read.
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "a_left": {"$ref": "#/$defs/node"},
                "name": {"type": "string", "maxLength": 20},
                "z_right": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["name"],
        }
    },
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_gguf_metadata(GgufFile(DEFAULT_MODEL).metadata)


@pytest.fixture(scope="module")
def masks(tokenizer: Tokenizer) -> Iterator[GrammarMasks]:
    made = GrammarMasks(VocabularyBytes.of(tokenizer), tokenizer.vocab_size)
    yield made
    made.close()


def shortest(masks: GrammarMasks, grammar: str) -> list[int]:
    way = masks.completions.find(masks.matcher(grammar), 512)
    assert way is not None
    return way


def written(
    masks: GrammarMasks, tokenizer: Tokenizer, grammar: str, n_tokens: int, seed: int
) -> tuple[str, bool]:
    """What a writer says who draws at random, and never wants to end, in so many tokens; and
    whether the text may end there."""
    rng = random.Random(seed)
    constraint = masks.make(grammar, tokenizer.eog_ids, n_tokens)
    ids: list[int] = []
    is_open = True
    while is_open and len(ids) < n_tokens:
        allowed = [int(i) for i in np.flatnonzero(constraint.mask()) if i not in tokenizer.eog_ids]
        if not allowed:
            break
        token = constraint.keep(rng.choice(allowed))
        assert token in allowed
        ids.append(token)
        is_open = constraint.advance(token)
    may_end = not is_open or bool(constraint.mask()[sorted(tokenizer.eog_ids)].any())
    return tokenizer.decode(ids, is_continuation=True), may_end


@example(schema=random_schema(11594), spare=50, seed=0)  # one token opens what takes 40 to close
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    schema=st.one_of(st.just(TREE), st.integers(0, 10**6).map(random_schema)),
    spare=st.sampled_from([0, 1, 2, 5, 20, 50, 200]),
    seed=st.integers(0, 10**6),
)
def test_whatever_is_drawn_the_json_is_whole(
    masks: GrammarMasks, tokenizer: Tokenizer, schema: dict[str, object], spare: int, seed: int
) -> None:
    grammar = whole_answer(json_part(schema))
    n_tokens = len(shortest(masks, grammar)) + spare
    text, may_end = written(masks, tokenizer, grammar, n_tokens, seed)
    assert may_end
    checker = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    assert checker.is_valid(json.loads(text)), text


def test_the_shortest_way_is_taken_where_nothing_else_fits(
    masks: GrammarMasks, tokenizer: Tokenizer
) -> None:
    grammar = whole_answer(json_part(TREE))
    way = shortest(masks, grammar)
    assert tokenizer.decode(way, is_continuation=True) == '{"name":""}'
    assert written(masks, tokenizer, grammar, len(way), 1) == ('{"name":""}', True)


def test_too_few_tokens_change_nothing(masks: GrammarMasks, tokenizer: Tokenizer) -> None:
    """An answer that cannot be whole is what it would be anyway."""
    grammar = whole_answer(json_part(TREE))
    n = 2
    text, may_end = written(masks, tokenizer, grammar, n, 2)
    assert not may_end and text == written(masks, tokenizer, grammar, n, 2)[0]
    free = masks.make(grammar, tokenizer.eog_ids)
    bound = masks.make(grammar, tokenizer.eog_ids, n)
    for _ in range(n):
        mask = free.mask()
        assert (bound.mask() == mask).all()
        token = int(np.flatnonzero(mask)[-1])
        assert free.keep(token) == bound.keep(token) == token
        assert free.advance(token) == bound.advance(token)


def test_text_that_may_end_anywhere_is_left_alone(
    masks: GrammarMasks, tokenizer: Tokenizer
) -> None:
    """Words are cut where the tokens end; only what is begun in brackets is not."""
    grammar = whole_answer(source_part(GrammarKind.REGEX, r"[a-z ]*"))
    assert shortest(masks, grammar) == []
    text, may_end = written(masks, tokenizer, grammar, 9, 3)
    assert may_end and len(tokenizer.encode_inside(text)) > 4
    grammar = whole_answer(source_part(GrammarKind.REGEX, r"([a-z]|<[a-z]{0,9}>)*"))
    for seed in range(20):
        text, may_end = written(masks, tokenizer, grammar, 12, seed)
        assert may_end and text.count("<") == text.count(">")


def test_brackets_are_opened_while_they_can_still_be_closed(
    masks: GrammarMasks, tokenizer: Tokenizer
) -> None:
    """By a writer who opens one wherever that is allowed."""
    grammar = whole_answer(source_part(GrammarKind.LARK, 'start: "[" start* "]"'))
    [opening], [closing] = tokenizer.encode_inside("["), tokenizer.encode_inside("]")
    for n_tokens in range(2, 14):
        constraint = masks.make(grammar, tokenizer.eog_ids, n_tokens)
        ids: list[int] = []
        is_open = True
        while is_open and len(ids) < n_tokens:
            wanted = opening if constraint.mask()[opening] else closing
            ids.append(constraint.keep(wanted))
            is_open = constraint.advance(ids[-1])
        n_pairs = n_tokens // 2
        assert not is_open
        assert tokenizer.decode(ids, is_continuation=True) == "[" * n_pairs + "]" * n_pairs


def test_no_control_token_is_on_a_way_out() -> None:
    """Not even one whose text is a bracket."""
    texts = [b"]", *(bytes([b]) for b in range(256)), b"<end>"]
    vocabulary = VocabularyBytes(
        texts,
        control_ids=[0, 257],
        end_ids=[257],
        encode=lambda text: [1 + b for b in text.encode()],
    )
    masks = GrammarMasks(vocabulary, len(texts))
    try:
        grammar = whole_answer(source_part(GrammarKind.LARK, 'start: "[" start* "]"'))
        assert shortest(masks, grammar) == [1 + ord("["), 1 + ord("]")]
    finally:
        masks.close()


def test_an_engine_tells_whole_answers(masks: GrammarMasks, tokenizer: Tokenizer) -> None:
    """Each token with its own probability, also the one that took another's place."""
    grammar = whole_answer(json_part(TREE))
    n_least = len(shortest(masks, grammar))
    params = SamplingParams(temperature=1.0, top_k=0, seed=4, n_probs=2)
    for n_tokens in (n_least, n_least + 30):
        runner = HistoryRunner(vocab_size=tokenizer.vocab_size)
        made = GrammarMasks(VocabularyBytes.of(tokenizer), tokenizer.vocab_size)
        engine = Engine(runner, constraints=made)
        engine.submit(
            Submit("a", [1, 2, 3], params, stop_ids=sorted(tokenizer.eog_ids),
                   max_tokens=n_tokens, grammar=grammar)
        )  # fmt: skip
        outputs = drain(engine).outputs["a"]
        tokens = [token for output in outputs for token in output.tokens]
        probs = [told for output in outputs for told in output.probs or []]
        engine.close()
        assert outputs[-1].finish is FinishReason.STOP and len(tokens) <= n_tokens
        assert [told.token for told in probs] == tokens
        answer = json.loads(tokenizer.decode(tokens, is_continuation=True))
        assert Draft202012Validator(TREE).is_valid(answer)
