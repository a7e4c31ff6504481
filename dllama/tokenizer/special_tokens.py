"""Special tokens: found in text, those that end a generation, and those around a hole in a text
(fill-in-the-middle)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dllama.tokenizer.vocabulary import TokenType


class SpecialTokens:
    """Cuts text into plain parts and the tokens of a fixed set; the first match counts, of those
    that begin at the same place the longest."""

    def __init__(self, ids: Mapping[str, int], strips_right: frozenset[int] = frozenset()) -> None:
        self._ids = {text: i for text, i in ids.items() if text}
        self._strips_right = strips_right
        longest_first = sorted(self._ids, key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest_first))
        self._pattern = re.compile(pattern) if pattern else None

    def cut(self, text: str) -> Iterator[str | int]:
        """Plain text as str (never empty) and special tokens as ids, in order."""
        at = 0
        for match in self._pattern.finditer(text) if self._pattern else ():
            if match.start() > at:
                yield text[at : match.start()]
            token = self._ids[match.group()]
            yield token
            at = match.end()
            if token in self._strips_right:
                at = len(text) - len(text[at:].lstrip())
        if at < len(text):
            yield text[at:]


# Ends whatever type the file gives them: converters forget to mark them.
END_TEXTS = frozenset(
    {
        *("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),  # Llama 3, Granite
        *("<|eot|>", "<|eom|>"),  # Llama 4
        *("<|im_end|>", "<|endoftext|>", "<|end|>"),  # ChatML, GPT-2, Phi
        *("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),  # Qwen: between files
        *("<end_of_turn>", "<turn|>", "<|tool_response>"),  # Gemma
        *("<|return|>", "<|call|>", "<|calls|>", "<|flush|>"),  # gpt-oss, Solar Open
        *("<|observation|>",),  # GLM: a tool answers now
        *("<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|EOT|>", "<｜end▁of▁sentence｜>"),
        *("<end_of_utterance>", "[e~["),
    }
)
# Ends only where the file marks them: in some vocabularies they are ordinary (HTML) text.
END_TEXTS_IF_SPECIAL = frozenset({"</s>", "<eos>"})
_SPECIAL = (TokenType.CONTROL, TokenType.USER_DEFINED)


def find_end_ids(tokens: Sequence[str], types: Sequence[int]) -> frozenset[int]:
    """The ids of all tokens that end a generation by their text."""
    found = {text: i for i, text in enumerate(tokens) if text in END_TEXTS}
    for i, text in enumerate(tokens):
        if text in END_TEXTS_IF_SPECIAL and types[i] in _SPECIAL:
            found[text] = i
    return frozenset(_without_false_ends(found))


def _without_false_ends(found: Mapping[str, int]) -> Iterable[int]:
    """Leaves out what ends a part of a turn only, in the vocabularies that have it so."""
    ends = dict(found)
    calls = "<|call|>" in ends or "<|calls|>" in ends
    if calls and ("<|return|>" in ends or "<|flush|>" in ends):
        ends.pop("<|end|>", None)  # gpt-oss and Solar Open: the end of a channel
    if "<|tool_response>" in ends or "<eos>" in ends:
        ends.pop("</s>", None)  # Gemma: an HTML tag
    return ends.values()


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

# Keys of a GGUF file, after "tokenizer.ggml."; the second of each is what older files have.
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
