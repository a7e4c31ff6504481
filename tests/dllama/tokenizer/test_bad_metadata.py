"""Metadata that makes no tokenizer is refused with a sentence that says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dllama.errors import TokenizerError
from dllama.tokenizer import Tokenizer
from tests.dllama.tokenizer.vocabularies import bpe_metadata, spm_metadata

SPM = spm_metadata({"a": -1.0, "▁": -2.0})
BPE = bpe_metadata([("a", "b")])
N = len(SPM["tokenizer.ggml.tokens"])


@pytest.mark.parametrize(
    ("metadata", "key", "value", "message"),
    [
        (SPM, "model", None, "holds no tokenizer; give one with --tokenizer"),
        (SPM, "tokens", None, "holds no tokenizer; give one with --tokenizer"),
        (SPM, "tokens", [], "has 0 tokens"),
        (SPM, "tokens", "abc", "no list of texts"),
        (SPM, "tokens", [1] * N, "more than texts"),
        (SPM, "model", 7, "is no text"),
        (SPM, "model", "t5", "kind 't5'; this version knows 'llama' and 'gpt2'"),
        (SPM, "scores", None, "lacks tokenizer.ggml.scores"),
        (SPM, "scores", np.zeros(5, np.float32), f"{N} tokens but 5 entries"),
        (SPM, "scores", np.full(N, np.nan), "no list of numbers"),
        (SPM, "scores", "high", "no list of numbers"),
        (SPM, "token_type", np.zeros(N + 1, np.int32), f"{N} tokens but {N + 1} entries"),
        (SPM, "bos_token_id", N, f"expected a token between 0 and {N - 1}"),
        (SPM, "eos_token_id", -1, "expected a token between"),
        (SPM, "unknown_token_id", "x", "expected a token between"),
        (SPM, "add_bos_token", 1, "expected true or false"),
        (BPE, "merges", None, "lacks tokenizer.ggml.merges"),
        (BPE, "merges", ["ab"], "Merge 0 of the tokenizer is 'ab'"),
        (BPE, "merges", ["x yz", "q q"], "None of the tokenizer's merges"),
        (BPE, "add_bos_token", True, "asks for a BOS token"),
        (BPE, "add_eos_token", True, "asks for an EOS token"),
    ],
)
def test_refused(metadata: dict[str, Any], key: str, value: object, message: str) -> None:
    changed = metadata | {f"tokenizer.ggml.{key}": value}
    if value is None:
        del changed[f"tokenizer.ggml.{key}"]
    with pytest.raises(TokenizerError, match=message) as caught:
        Tokenizer.from_gguf_metadata(changed)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("ids", [[0, N], [-1], [0.5], [[1]], "x"])
def test_tokens_that_do_not_exist_drop_no_white_space(ids: object) -> None:
    key = "dllama.tokenizer.strips_right"
    with pytest.raises(TokenizerError, match=f"{key} is no list of tokens"):
        Tokenizer.from_gguf_metadata(SPM | {key: ids})


def test_absent_types_are_normal_ones_and_minus_one_is_no_token() -> None:
    changed = BPE | {"tokenizer.ggml.bos_token_id": 2**32 - 1}
    del changed["tokenizer.ggml.token_type"]
    tokenizer = Tokenizer.from_gguf_metadata(changed)
    assert tokenizer.bos_id is None and tokenizer.bos_text == ""
    assert tokenizer.encode("ab") == [256]


def test_chat_templates_of_the_file_are_kept_by_name() -> None:
    changed = SPM | {"tokenizer.chat_template": "A", "tokenizer.chat_template.tool_use": "B"}
    assert Tokenizer.from_gguf_metadata(changed).chat_templates == {"default": "A", "tool_use": "B"}
