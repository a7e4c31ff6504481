"""Masks: whatever is drawn under them, and however, is text of the grammar."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from benchmarks.random_schemas import random_schema
from benchmarks.writers.filler_vocabulary import bpe_metadata
from dllama.cli.flags.arguments import DEFAULT_MODEL
from dllama.constraints.grammars import GrammarKind, json_part, source_part, whole_answer
from dllama.constraints.masks import GrammarConstraint, GrammarMasks
from dllama.constraints.vocabulary_bytes import VocabularyBytes
from dllama.errors import DllamaError, RequestError
from dllama.formats.gguf import GgufFile
from dllama.tokenizer import Tokenizer
from tests.dllama.tokenizer.vocabularies import spm_metadata


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_gguf_metadata(GgufFile(DEFAULT_MODEL).metadata)


@pytest.fixture(scope="module")
def masks(tokenizer: Tokenizer) -> Iterator[GrammarMasks]:
    made = GrammarMasks(VocabularyBytes.of(tokenizer), tokenizer.vocab_size + 7)
    yield made
    made.close()


def written(
    constraint: GrammarConstraint, tokenizer: Tokenizer, choose: Callable[[np.ndarray], int]
) -> str:
    """What a writer says who draws from what the masks leave, to the end of the text."""
    ids: list[int] = []
    while True:
        token = choose(np.flatnonzero(constraint.mask()))
        if token in tokenizer.eog_ids:
            break
        ids.append(token)
        if not constraint.advance(token):
            break
    return tokenizer.decode(ids, is_continuation=True)


def brief_writer(seed: int, tokenizer: Tokenizer) -> Callable[[np.ndarray], int]:
    """Draws at random, but ends texts, lists and numbers where it may, so that it ends at all."""
    rng = random.Random(seed)
    enders = {i for i in range(tokenizer.vocab_size) if tokenizer.token_text(i) in '"]}'}
    n_drawn = 0

    def choose(allowed: np.ndarray) -> int:
        nonlocal n_drawn
        n_drawn += 1
        assert n_drawn < 3000, "the writer finds no end"
        ends = [int(i) for i in allowed if i in tokenizer.eog_ids or int(i) in enders]
        if ends and rng.random() < 0.3 + n_drawn / 300:
            return rng.choice(ends)
        return int(rng.choice(allowed))

    return choose


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(schema_seed=st.integers(0, 10**6), seed=st.integers(0, 10**6))
def test_any_draws_make_valid_json(
    masks: GrammarMasks, tokenizer: Tokenizer, schema_seed: int, seed: int
) -> None:
    schema = random_schema(schema_seed)
    constraint = masks.make(whole_answer(json_part(schema)), tokenizer.eog_ids)
    text = written(constraint, tokenizer, brief_writer(seed, tokenizer))
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(
        json.loads(text)
    )


@pytest.mark.parametrize("seed", range(5))
def test_any_draws_follow_a_regular_expression(
    masks: GrammarMasks, tokenizer: Tokenizer, seed: int
) -> None:
    source = r"(Mr|Ms)\. [A-Z][a-z]{1,9}/\d{2,4}"
    constraint = masks.make(whole_answer(source_part(GrammarKind.REGEX, source)), tokenizer.eog_ids)
    assert re.fullmatch(source, written(constraint, tokenizer, brief_writer(seed, tokenizer)))


def _ids(masks: GrammarMasks, tokenizer: Tokenizer, source: str, text: str) -> GrammarConstraint:
    part = source_part(GrammarKind.REGEX, source)
    constraint = masks.make(whole_answer(part), tokenizer.eog_ids)
    for token in tokenizer.encode(text):
        assert constraint.mask()[token]
        constraint.advance(token)
    return constraint


def test_an_answer_may_end_only_where_the_grammar_does(
    masks: GrammarMasks, tokenizer: Tokenizer
) -> None:
    ends = sorted(tokenizer.eog_ids)
    # Two ways to go on, so that no text is forced, which would be tokenized as a whole.
    assert not _ids(masks, tokenizer, "[ac][bd]+", "a").mask()[ends].any()
    mask = _ids(masks, tokenizer, "[ac][bd]+", "ab").mask()
    assert mask[ends].all()
    assert mask.sum() > len(ends)


def test_a_complete_text_needs_no_end(masks: GrammarMasks, tokenizer: Tokenizer) -> None:
    """The last token says that nothing may follow, so that no step is spent on the end."""
    constraint = masks.make(whole_answer(source_part(GrammarKind.REGEX, "ab")), [])
    is_open = True
    for token in tokenizer.encode("ab"):
        assert is_open
        constraint.mask()
        is_open = constraint.advance(token)
    assert not is_open


def test_without_stop_ids_nothing_ends_a_text_that_could_go_on(
    masks: GrammarMasks, tokenizer: Tokenizer
) -> None:
    constraint = masks.make(whole_answer(source_part(GrammarKind.REGEX, "a+")), [])
    token = tokenizer.encode("a")[0]
    constraint.mask()
    assert constraint.advance(token)
    assert not constraint.mask()[sorted(tokenizer.eog_ids)].any()


def test_tokens_beyond_the_tokenizer_are_never_allowed(
    masks: GrammarMasks, tokenizer: Tokenizer
) -> None:
    constraint = masks.make(whole_answer(source_part(GrammarKind.REGEX, "(.|\n)*")), [])
    mask = constraint.mask()
    assert len(mask) == tokenizer.vocab_size + 7
    assert not mask[tokenizer.vocab_size :].any()


def test_a_token_that_was_not_allowed_is_an_error(
    masks: GrammarMasks, tokenizer: Tokenizer
) -> None:
    constraint = masks.make(whole_answer(source_part(GrammarKind.REGEX, "a")), tokenizer.eog_ids)
    constraint.mask()
    with pytest.raises(DllamaError):
        constraint.advance(tokenizer.encode("b")[0])


def test_a_bad_grammar_is_told_by_the_first_mask(masks: GrammarMasks, tokenizer: Tokenizer) -> None:
    with pytest.raises(RequestError, match="grammar"):
        masks.make("{}", tokenizer.eog_ids).mask()


def test_sequences_of_one_grammar_do_not_share_their_place(
    masks: GrammarMasks, tokenizer: Tokenizer
) -> None:
    grammar = whole_answer(source_part(GrammarKind.REGEX, "[ab]{2}"))
    one, two = (masks.make(grammar, tokenizer.eog_ids) for _ in range(2))
    a, b = tokenizer.encode("a")[0], tokenizer.encode("b")[0]
    one.mask()
    one.advance(a)
    assert two.mask()[[a, b]].all()
    assert one.mask()[[a, b]].all()
    assert not one.advance(b)


def test_a_vocabulary_of_bytes_writes_all_of_it() -> None:
    small = Tokenizer.from_gguf_metadata(bpe_metadata(352))
    masks = GrammarMasks(VocabularyBytes.of(small), small.vocab_size)
    try:
        schema = {"enum": ["größe ✓", {"a": [1, None]}]}
        constraint = masks.make(whole_answer(json_part(schema)), small.eog_ids)
        assert json.loads(written(constraint, small, brief_writer(1, small))) in schema["enum"]
    finally:
        masks.close()


def test_json_has_as_much_white_space_as_people_write(
    masks: GrammarMasks, tokenizer: Tokenizer
) -> None:
    """A small model that may go on with it would."""
    [bracket], [feed], [space] = (tokenizer.encode_inside(text) for text in ("[", "\n", " "))
    grammar = whole_answer(json_part({"type": "array"}))
    for tokens, is_allowed in (([feed, feed], False), ([feed, space], True), ([space], False)):
        constraint = masks.make(grammar, tokenizer.eog_ids)
        for token in (bracket, *tokens):
            assert constraint.mask()[token]
            constraint.advance(token)
        mask = constraint.mask()
        assert not mask[feed] or len(tokens) < 2
        assert mask[space] or not is_allowed
        assert not mask[feed] or tokens == [feed]


def test_control_tokens_write_no_text() -> None:
    """Their texts may be wanted; then other tokens spell them."""
    small = Tokenizer.from_gguf_metadata(bpe_metadata(352))
    [control] = small.encode("<|im_start|>", parse_special=True)
    masks = GrammarMasks(VocabularyBytes.of(small), small.vocab_size)
    try:
        part = source_part(GrammarKind.REGEX, r"<\|im_start\|>|x")
        mask = masks.make(whole_answer(part), small.eog_ids).mask()
        assert not mask[control] and mask[small.encode("<")].all()
    finally:
        masks.close()


def test_sentencepiece_writes_the_mark_of_its_own_spaces() -> None:
    """Its encoder takes that character for a space, also where a grammar leaves no choice."""
    pieces = {"▁": -1.0, "a": -2.0, "b": -2.0, "▁a": -0.5}
    small = Tokenizer.from_gguf_metadata(spm_metadata(pieces))
    masks = GrammarMasks(VocabularyBytes.of(small), small.vocab_size)
    try:
        for source in ("a▁b", "▁[ab]", "[ab] ▁a"):
            part = source_part(GrammarKind.REGEX, source)
            constraint = masks.make(whole_answer(part), small.eog_ids)
            assert re.fullmatch(source, written(constraint, small, brief_writer(1, small)))
    finally:
        masks.close()


def test_forced_text_is_written_as_it_is_whatever_a_tokenizer_says() -> None:
    texts = [*(bytes([b]) for b in range(256)), b"<end>"]
    vocabulary = VocabularyBytes(
        texts, control_ids=[256], end_ids=[256], encode=lambda text: [ord("x")] * len(text)
    )
    masks = GrammarMasks(vocabulary, len(texts))
    try:
        constraint = masks.make(whole_answer(source_part(GrammarKind.REGEX, "abc")), [256])
        for token in b"abc":
            assert np.flatnonzero(constraint.mask()).tolist() == [token]
            constraint.advance(token)
        way = masks.completions.find(
            masks.matcher(whole_answer(source_part(GrammarKind.REGEX, "abc"))), 9
        )
        assert way == [*b"abc"]
    finally:
        masks.close()
