"""Which tokens end a generation, found by their text: files name one or two of them at most.

Source: the list llama.cpp keeps (src/llama-vocab.cpp, special_eog_ids)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dllama.tokenizer.vocabulary import TokenType

# Ends whatever type the file gives them: converters forget to mark them.
END_TEXTS = frozenset(
    {
        *("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),  # Llama 3, Granite
        *("<|im_end|>", "<|endoftext|>", "<|end|>"),  # ChatML, GPT-2, Phi
        *("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),  # Qwen: between files
        *("<end_of_turn>", "<turn|>", "<|tool_response>"),  # Gemma
        *("<|return|>", "<|call|>", "<|calls|>", "<|flush|>"),  # gpt-oss, Solar Open
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
