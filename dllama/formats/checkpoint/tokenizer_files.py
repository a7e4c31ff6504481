"""Which file of a folder has its tokenizer: tokenizer.json, else tiktoken.model."""

from __future__ import annotations

from pathlib import Path

from dllama.errors import TokenizerError
from dllama.formats.checkpoint.folder import RANKS, TOKENIZER
from dllama.formats.checkpoint.tiktoken_ranks import count_ranked_tokens, read_ranks_tokenizer
from dllama.formats.checkpoint.tokenizer_json import TokenizerJson, read_tokenizer_json


def read_tokenizer(folder: Path) -> TokenizerJson:
    """Returns the tokenizer in a folder. Raises TokenizerError where there is none, or one of a
    kind that this version does not know; ModelFileError where a file is damaged."""
    if not (folder / TOKENIZER).exists() and (folder / RANKS).exists():
        return read_ranks_tokenizer(folder)
    return read_tokenizer_json(folder)


def count_tokens(folder: Path) -> int | None:
    """Returns the number of tokens of the tokenizer in a folder; None where there is none that this
    version can use."""
    try:
        if (folder / TOKENIZER).exists():
            parts = read_tokenizer_json(folder)
            return 1 + max([*parts.vocab.values(), *(token.id for token in parts.added)])
        return count_ranked_tokens(folder) if (folder / RANKS).exists() else None
    except TokenizerError:
        return None
