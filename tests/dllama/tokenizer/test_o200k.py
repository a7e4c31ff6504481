"""gpt-oss's tokenizer: its words are those of OpenAI's own expression, its tokens those that the
merges of a tokenizer.json make of them."""

from __future__ import annotations

import unicodedata
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dllama.formats.checkpoint.tokenizer_keys import tokenizer_metadata
from dllama.tokenizer import Tokenizer
from dllama.tokenizer.byte_alphabet import to_alphabet
from tests.checkpoints import added, write_tokenizer
from tests.dllama.tokenizer.test_bpe import words_of
from tests.dllama.tokenizer.vocabularies import bpe_metadata

regex = pytest.importorskip("regex", reason="the oracle for Unicode's classes")

UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
LEAD, TAIL = r"[^\r\n\p{L}\p{N}]?", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = "|".join(
    (
        f"{LEAD}{UPPER}*{LOWER}+{TAIL}", f"{LEAD}{UPPER}+{LOWER}*{TAIL}", r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+",
    )
)  # fmt: skip
"""tiktoken_ext/openai_public.py's `o200k_base`, alternative by alternative."""

LETTERS = st.characters(exclude_categories=("Cs", "Cn", "Co")).filter(
    lambda c: unicodedata.name(c, "") != ""
)
WORDS = st.sampled_from(
    ["don't", "I'LL", "HTTPServer", "camelCase", " /usr/\n", "1234567", "\r\n\r\n", "  ", "\t x",
     "über", "日本語", "ǅ", "e\u0301", "'s", "!?//\n", "\u00a0", " a", "ʰ", "ΑΒΓδ"]
)  # fmt: skip
TEXTS = st.lists(st.one_of(WORDS, st.text(LETTERS, max_size=3)), max_size=8).map("".join)


@given(TEXTS)
@example("it's HTTPServer's I'LL x\n\n y")
def test_words_are_those_of_openais_expression(text: str) -> None:
    assert words_of("gpt-4o", text) == regex.findall(O200K, text)


# "bcd" is a token that merging does not reach: "b" goes to "c" first.
MERGES = [("a", "b"), ("b", "c"), ("c", "d"), ("b", "cd"), ("Ġ", "a"), ("'", "s")]


def plain_tokens(text: str, *, takes_words: bool) -> list[str]:
    """Every word is merged by rank, or is taken whole where it is a token."""
    found: list[str] = []
    for word in regex.findall(O200K, text):
        parts = list(to_alphabet(word.encode()))
        if takes_words and "".join(parts) in ranks():
            found.append("".join(parts))
            continue
        while pairs := [(MERGES.index((a, b)), i) for i, (a, b) in enumerate(pairwise(parts))
                        if (a, b) in MERGES]:  # fmt: skip
            _, at = min(pairs)
            parts[at : at + 2] = ["".join(parts[at : at + 2])]
        found += parts
    return found


@cache
def metadata() -> dict[str, object]:
    return bpe_metadata(MERGES, {"<|start|>": 3, "<|return|>": 3}, pre="gpt-4o")


@cache
def ranks() -> dict[str, int]:
    tokens = metadata()["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    return {text: i for i, text in enumerate(tokens[:-2])}


def write(folder: Path, *, takes_words: bool) -> None:
    tokens = metadata()["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    split = {"type": "Split", "pattern": {"Regex": O200K}, "behavior": "Isolated", "invert": False}
    letters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
               "use_regex": False}  # fmt: skip
    n = len(tokens) - 2
    write_tokenizer(
        folder,
        {
            "added_tokens": [added(n, "<|start|>"), added(n + 1, "<|return|>")],
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, letters]},
            "post_processor": letters | {"trim_offsets": False, "use_regex": True},
            "model": {
                "type": "BPE", "ignore_merges": takes_words, "byte_fallback": False,
                "vocab": {text: i for i, text in enumerate(tokens[:n])},
                "merges": metadata()["tokenizer.ggml.merges"],
            },
        },
        eos_token="<|return|>",
    )  # fmt: skip


@pytest.fixture(scope="module", params=[False, True], ids=["merges", "takes words"])
def from_a_folder(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> tuple[Tokenizer, bool]:
    folder = tmp_path_factory.mktemp("o200k")
    write(folder, takes_words=request.param)
    keys = tokenizer_metadata(folder)
    assert keys["tokenizer.ggml.pre"] == "gpt-4o"
    return Tokenizer.from_gguf_metadata(keys), request.param


@given(text=st.text("abcd 's\nA", max_size=12))
@example("bcd abcd's")
def test_tokens_are_those_of_the_merges(from_a_folder: tuple[Tokenizer, bool], text: str) -> None:
    """tokenizer.json files of o200k differ in whether a word that is a token is taken whole."""
    tokenizer, takes_words = from_a_folder
    wanted = plain_tokens(text, takes_words=takes_words)
    assert [tokenizer.token_texts[i] for i in tokenizer.encode(text)] == wanted


def test_the_two_rules_differ() -> None:
    assert plain_tokens("bcd", takes_words=True) == ["bcd"]
    assert plain_tokens("bcd", takes_words=False) == ["bc", "d"]
