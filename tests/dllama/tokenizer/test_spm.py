"""SPM: the ids are those of the merge by score, in every vocabulary, ties and gaps included."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllama.tokenizer import Tokenizer
from dllama.tokenizer.score_merge import ScoreMerge
from tests.dllama.tokenizer.score_reference import ids_by_score, merge_by_score
from tests.dllama.tokenizer.vocabularies import real_metadata, real_tokenizer, spm_metadata

words = st.text(alphabet="ab", min_size=2, max_size=6)
texts = st.text(alphabet="ab ▁é", max_size=24)


def reference_ids(metadata: dict, text: str) -> list[int]:
    """Escape, merge by score, number: all of it written out again."""
    tokens = list(metadata["tokenizer.ggml.tokens"])
    kinds = list(metadata["tokenizer.ggml.token_type"])
    numbers = list(metadata["tokenizer.ggml.scores"])
    normal = [i for i, kind in enumerate(kinds) if kind == 1]
    ids = {tokens[i]: i for i in normal}
    scores = {tokens[i]: float(numbers[i]) for i in normal}
    escaped = (" " + text).replace(" ", "▁") if text else ""
    return ids_by_score(escaped, scores, ids, lambda b: tokens.index(f"<0x{b:02X}>"))


@settings(max_examples=150)
@given(pieces=st.lists(words, unique=True, max_size=20), seed=st.integers(0, 2**16), text=texts)
def test_distinct_scores(pieces: list[str], seed: int, text: str) -> None:
    scores = random.Random(seed).sample(range(len(pieces) + 3), len(pieces) + 3)
    letters = {letter: -100.0 - i for i, letter in enumerate("ab▁")}
    metadata = spm_metadata(letters | dict(zip(pieces, map(float, scores), strict=False)))
    tokenizer = Tokenizer.from_gguf_metadata(metadata)
    assert tokenizer.is_fast
    assert tokenizer.encode(text) == reference_ids(metadata, text)


@settings(max_examples=150)
@given(
    pieces=st.dictionaries(st.text("ab▁", min_size=2, max_size=5), st.integers(0, 2), max_size=12),
    letters=st.sets(st.sampled_from("ab▁"), min_size=1),
    text=texts,
)
def test_shared_scores_and_missing_letters(
    pieces: dict[str, int], letters: set[str], text: str
) -> None:
    base = dict.fromkeys(sorted(letters), -9.0)
    metadata = spm_metadata(base | {piece: float(score) for piece, score in pieces.items()})
    assert Tokenizer.from_gguf_metadata(metadata).encode(text) == reference_ids(metadata, text)


@settings(max_examples=200)
@given(text=st.text(alphabet=st.sampled_from("▁▁▁▁ax"), max_size=80))
def test_runs_of_spaces_that_share_a_score(text: str) -> None:
    """Llama 2's case: pieces of 2 to 16 spaces with one score, below those of all words."""
    runs = {"▁" * n: -1e9 for n in (2, 4, 8, 16, 3, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15)}
    metadata = spm_metadata({"▁": -1.0, "a": -2.0, "x": -3.0, "▁a": -0.5, "ax": -0.7} | runs)
    tokenizer = Tokenizer.from_gguf_metadata(metadata)
    assert tokenizer.is_fast
    assert tokenizer.encode(text) == reference_ids(metadata, text)


@pytest.mark.parametrize("name", ["llama-spm", "phi-3"])
def test_real_vocabulary_on_random_text(name: str) -> None:
    tokenizer, metadata = real_tokenizer(name), real_metadata(name)
    assert tokenizer.is_fast
    tokens = metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    pick = random.Random(7)
    for _ in range(60):
        pieces = pick.choices(tokens[259:32000], k=4) + pick.choices(
            [" ", "  ", "\t", "é", "1"], k=4
        )
        pick.shuffle(pieces)
        text = "".join(pieces).replace("▁", " ") + " " * pick.randint(0, 40)
        assert tokenizer.encode(text) == reference_ids(metadata, text), text


@settings(max_examples=200)
@given(pieces=st.dictionaries(words, st.integers(0, 4)), text=st.text("ab▁", max_size=30))
def test_score_merge_equals_the_reference(pieces: dict[str, int], text: str) -> None:
    ids = {piece: i for i, piece in enumerate(pieces)}
    engine = ScoreMerge(ids, {p: float(s) for p, s in pieces.items()}, {}, unk_id=None)
    assert engine.merge(text) == merge_by_score(text, pieces)


def test_control_tokens_are_never_made_by_merging() -> None:
    pieces = {letter: -1.0 - i for i, letter in enumerate("<s>/0xA▁")} | {"<s": 5.0, "</": 4.0}
    tokenizer = Tokenizer.from_gguf_metadata(spm_metadata(pieces))
    for text in ("<s>", "</s>", "<0x0A>", "<unk>"):
        ids = tokenizer.encode(text)
        assert not any(tokenizer.is_control(token) for token in ids)
        assert tokenizer.decode(ids) == text


def test_without_byte_tokens_an_unknown_letter_is_unk() -> None:
    metadata = spm_metadata({"a": -1.0, "▁": -2.0})
    metadata["tokenizer.ggml.token_type"][3:259] = 5
    tokenizer = Tokenizer.from_gguf_metadata(metadata)
    assert tokenizer.encode("aéa") == [260, 259, 0, 259]


def test_space_prefix_comes_first_and_after_special_tokens() -> None:
    letters = {"▁": -1.0, "a": -2.0, "▁a": -0.5}
    tokenizer = Tokenizer.from_gguf_metadata(spm_metadata(letters))
    assert tokenizer.encode("a</s>a a", parse_special=True) == [261, 2, 261, 261]
    assert tokenizer.decode([261, 2, 261, 261]) == "a</s>a a"
    bare = Tokenizer.from_gguf_metadata(
        spm_metadata(letters) | {"tokenizer.ggml.add_space_prefix": False}
    )
    assert bare.encode("a</s>a a", parse_special=True) == [260, 2, 260, 261]
    assert bare.decode([261, 2, 261]) == " a</s> a"


def test_user_defined_tokens_are_always_taken_whole() -> None:
    pieces = {"▁": -1.0, "a": -2.0, "aa": -0.5, "<x>": 0.0, "<x><x>": 0.0}
    types = {"<x>": 4, "<x><x>": 4}
    tokenizer = Tokenizer.from_gguf_metadata(spm_metadata(pieces, types=types))
    assert tokenizer.encode("a<x><x><x>a") == [259, 260, 263, 262, 259, 260]
    assert tokenizer.is_special(262) and not tokenizer.is_control(262)
    assert tokenizer.decode([262, 260], skip_special=True) == "<x>a"
