"""Byte-level BPE on the `tokenizers` library: words by regex, bytes as letters, merges by rank."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from tokenizers import Regex
from tokenizers import Tokenizer as Engine
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

from dllama.errors import TokenizerError
from dllama.tokenizer.vocabulary import Vocabulary

log = logging.getLogger(__name__)


def build_bpe_engine(vocabulary: Vocabulary) -> Engine:
    """An engine whose ids are the vocabulary's, for plain text without special tokens.

    Raises TokenizerError where an expression cannot be read or the merges make nothing.
    """
    words = vocabulary.words
    ids = vocabulary.mergeable()
    # In line, as a vocabulary may have 300,000 merges.
    merges = [
        (left, right)
        for left, right in vocabulary.merges
        if left in ids and right in ids and left + right in ids
    ]
    n_lost = len(vocabulary.merges) - len(merges)
    if n_lost:
        log.warning("%d of %d merges make no known token; ignored", n_lost, len(vocabulary.merges))
    if vocabulary.merges and not merges:
        raise TokenizerError(
            "None of the tokenizer's merges makes one of its tokens; the file is corrupt. "
            "Convert it again, or give another one with --tokenizer."
        )
    engine = Engine(BPE(vocab=ids, merges=merges, ignore_merges=words.ignore_merges))
    if words.is_nfc:
        engine.normalizer = NFC()
    cuts = [Split(_compiled(pattern), "isolated") for pattern in words.patterns]
    letters = ByteLevel(add_prefix_space=False, use_regex=False)
    engine.pre_tokenizer = Sequence([*cuts, letters])
    return engine


def _compiled(pattern: str) -> Regex:
    try:
        return Regex(pattern)
    except Exception as error:  # the library raises nothing more specific
        raise TokenizerError(
            f"The tokenizer cuts words by the expression {pattern[:200]!r}, which cannot be read "
            f"({error}). The file is corrupt: convert it again, or give one with --tokenizer."
        ) from error


def split_merges(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Merges as GGUF writes them, "left right"; a line without two parts is a TokenizerError."""
    merges: list[tuple[str, str]] = []
    for i, line in enumerate(lines):
        at = line.find(" ", 1)
        if at < 0:
            raise TokenizerError(
                f"Merge {i} of the tokenizer is {line!r}; expected two pieces with a space "
                f"between. The file is corrupt: convert it again, or give one with --tokenizer."
            )
        merges.append((line[:at], line[at + 1 :]))
    return merges
