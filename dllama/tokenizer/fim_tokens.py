"""The tokens around a hole in a text (fill-in-the-middle), in the vocabularies that have them.

Source: the texts llama.cpp looks for (src/llama-vocab.cpp, special_fim_*), and GGUF's own keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PREFIXES = (
    "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
    "<|code_prefix|>",
)  # fmt: skip
SUFFIXES = (
    "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
    "<|code_suffix|>",
)  # fmt: skip
MIDDLES = (
    "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
    "<|code_middle|>",
)  # fmt: skip
REPOS = ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>")
SEPARATORS = ("<|file_sep|>",)

# Keys of a GGUF file, behind "tokenizer.ggml."; the second of each is what older files have.
KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "prefix": (("fim_pre_token_id", "prefix_token_id"), PREFIXES),
    "suffix": (("fim_suf_token_id", "suffix_token_id"), SUFFIXES),
    "middle": (("fim_mid_token_id", "middle_token_id"), MIDDLES),
    "repo": (("fim_rep_token_id",), REPOS),
    "separator": (("fim_sep_token_id",), SEPARATORS),
}


@dataclass(frozen=True, slots=True)
class FimTokens:
    """`repo` and `separator` are None where only one file can be told."""

    prefix: int
    suffix: int
    middle: int
    repo: int | None = None
    separator: int | None = None


def find_fim(metadata: Mapping[str, object], tokens: Sequence[str]) -> FimTokens | None:
    """The ids that a file's metadata names or that its texts tell; None without the three."""
    by_text = {text: i for i, text in reversed(list(enumerate(tokens)))}
    found: dict[str, int] = {}
    for part, (keys, texts) in KEYS.items():
        named = (metadata.get(f"tokenizer.ggml.{key}") for key in keys)
        ids = [value for value in named if isinstance(value, int) and 0 <= value < len(tokens)]
        ids += [by_text[text] for text in texts if text in by_text]
        if ids:
            found[part] = ids[0]
    if not {"prefix", "suffix", "middle"} <= found.keys():
        return None
    return FimTokens(**found)
