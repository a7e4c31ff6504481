"""Vocabularies that no text trained are consistent ones."""

from __future__ import annotations

import pytest

from benchmarks.writers.filler_vocabulary import bpe_metadata, spm_metadata


@pytest.mark.parametrize("size", [260, 352, 2048, 151936])
def test_a_filler_vocabulary_is_a_consistent_bpe(size: int) -> None:
    metadata = bpe_metadata(size)
    tokens, merges = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.merges"]
    assert isinstance(tokens, list) and isinstance(merges, list)
    assert len(set(tokens)) == size and len(set(merges)) == size - 260
    known = set(tokens[:256])
    for merge, token in zip(merges, tokens[256:], strict=False):
        left, right = merge.split(" ")
        assert left in known and right in known and left + right == token
        known.add(token)


@pytest.mark.parametrize("size", [352, 4096])
def test_a_filler_vocabulary_is_a_consistent_spm(size: int) -> None:
    metadata = spm_metadata(size)
    tokens = metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    assert len(set(tokens)) == size
    assert tokens[3] == "<0x00>" and tokens[258] == "<0xFF>"


def test_impossible_vocabulary_sizes_are_refused() -> None:
    for build, size in ((bpe_metadata, 259), (bpe_metadata, 10**6), (spm_metadata, 300)):
        with pytest.raises(ValueError, match=f"cannot have {size} tokens"):
            build(size)
