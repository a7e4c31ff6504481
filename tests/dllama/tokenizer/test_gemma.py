"""A vocabulary as Gemma has it: no space before a text, runs of spaces and line ends and HTML tags
as tokens that are always cut out, with one score. From a folder, and from a GGUF file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as Library

from benchmarks.writers.filler_vocabulary import spm_metadata
from dllama.formats.checkpoint.tokenizer_keys import tokenizer_metadata
from dllama.tokenizer import Tokenizer
from dllama.tokenizer.vocabulary import TokenType
from tests.checkpoints import added, pairs_by_score, template, write_tokenizer

CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
ALWAYS = ["<unused0>", "\n\n", "\n\n\n", "▁▁", "▁▁▁", "▁▁▁▁", "<table>", "</table>"]
SPACES = "Replace", {"String": " "}, "▁"
TEXTS = (
    "Hello world", " Hello  world ", "", " ", "the   cat's 12 hats\n\n\tit'S\n\n\n", "é日本🦙\x00",
    "<start_of_turn>user\nHi<end_of_turn>\n", "a<table> b</table>", "    a", "x\n\n\n\nx", "▁▁ a ▁",
)  # fmt: skip


def vocabulary() -> tuple[list[str], list[int], list[float]]:
    """Texts, types and scores: those of fillers after Gemma's own."""
    filler = spm_metadata(600)
    texts, scores = filler["tokenizer.ggml.tokens"], filler["tokenizer.ggml.scores"]
    assert isinstance(texts, list) and isinstance(scores, np.ndarray)
    n_bytes = 256
    tokens = [*CONTROL, *ALWAYS, *texts[3:-2], "<", ">", "/"]
    types = [TokenType.CONTROL] * len(CONTROL) + [TokenType.USER_DEFINED] * len(ALWAYS)
    types += [TokenType.BYTE] * n_bytes
    types += [TokenType.NORMAL] * (len(tokens) - len(types))
    types[3] = TokenType.UNKNOWN
    own = [0.0] * (len(CONTROL) + len(ALWAYS) + n_bytes)
    return tokens, [int(t) for t in types], own + scores[259:-2].tolist() + [-800.0, -801, -802]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokens, _, scores = vocabulary()
    write_tokenizer(
        tmp_path,
        {
            "added_tokens": [
                *(added(i, text) for i, text in enumerate(CONTROL)),
                *({**added(i, text, special=False), "normalized": False}
                  for i, text in enumerate(ALWAYS, start=len(CONTROL))),
            ],
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            "pre_tokenizer": {
                "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                "invert": False,
            },
            "post_processor": template("<bos>", 2),
            "model": {
                "type": "BPE", "byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True,
                "vocab": {text: i for i, text in enumerate(tokens)},
                "merges": pairs_by_score(tokens, scores),
            },
        },
        bos_token="<bos>", eos_token="<eos>",
    )  # fmt: skip
    return tmp_path


def test_a_folder_gives_the_librarys_tokens(folder: Path) -> None:
    library = Library.from_file(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer.from_gguf_metadata(tokenizer_metadata(folder))
    assert not tokenizer.add_space_prefix and tokenizer.add_bos and tokenizer.is_fast
    for text in TEXTS:
        expected = library.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text, parse_special=True) == expected, text
        assert tokenizer.decode(expected) == text.replace("▁", " ")


def test_a_gguf_file_gives_the_same(folder: Path) -> None:
    """Its tokens of spaces are written as spaces, and all that are always cut have one score."""
    tokens, types, scores = vocabulary()
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [
            text.replace("▁", " ") if kind == TokenType.USER_DEFINED else text
            for text, kind in zip(tokens, types, strict=True)
        ],
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.scores": np.array(
            [-1000.0 if kind == TokenType.USER_DEFINED else score
             for kind, score in zip(types, scores, strict=True)], np.float32),
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": False,
    }  # fmt: skip
    tokenizer = Tokenizer.from_gguf_metadata(metadata)
    of_folder = Tokenizer.from_gguf_metadata(tokenizer_metadata(folder))
    assert tokenizer.is_fast and tokenizer.add_bos
    for text in TEXTS[:-1]:
        assert tokenizer.encode(text, parse_special=True) == of_folder.encode(
            text, parse_special=True
        ), text
    assert {tokenizer.token_text(i) for i in tokenizer.eog_ids} == {"<eos>", "<end_of_turn>"}
