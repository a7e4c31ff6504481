"""Rules by which byte-level BPE normalizes text and cuts it into words before merging: one row for
each `tokenizer.ggml.pre`.

Sources: the `pre_tokenizer` of the models' tokenizer.json files, and llama.cpp's table of names
(src/llama-vocab.cpp). Expressions are applied one after another; each cuts the pieces that the
one before left, into matches and what lies between them. Syntax: Oniguruma.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dllama.errors import TokenizerError


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """One rule. `add_bos` is the default where the file does not say; with `ignore_merges` a word
    that is a token as a whole is taken whole, whatever the merges say; `is_nfc`: letters and their
    accents are composed first (Unicode's normal form C)."""

    patterns: tuple[str, ...]
    add_bos: bool = False
    ignore_merges: bool = False
    is_nfc: bool = False


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_ASCII_SIGN = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
_KANJI_KANA = r"[一-龥぀-ゟ゠-ヿ]+"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS}|{_SPACES}"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}|{_SIGNS}|{_SPACES}"
_QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
)


def _capitalized(upper: str, lower: str, tail: str) -> str:
    lead = r"[^\r\n\p{L}\p{N}]?"
    return rf"{lead}{upper}*{lower}+{tail}|{lead}{upper}+{lower}*{tail}"


def _cased(tail: str, digits: str) -> str:
    """Words that end where a capital begins, as tekken and gpt-4o cut them."""
    words = _capitalized(_UPPER, _LOWER, tail)
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"


def _but_han(letters: str) -> str:
    return letters.replace("]", r"&&[^\p{Han}]]")


_KIMI = (
    rf"\p{{Han}}+|{_capitalized(_but_han(_UPPER), _but_han(_LOWER), f'{_CONTRACTIONS}?')}"
    rf"|\p{{N}}{{1,3}}|{_SIGNS}|{_SPACES}"
)
_TEKKEN = _cased("", r"\p{N}")
_GPT4O = _cased(f"{_CONTRACTIONS}?", r"\p{N}{1,3}")
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    _KANJI_KANA,
    rf"{_ASCII_SIGN}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}",
)
# Cased letters of the Unicode version that DeepSeek LLM's tokenizer was trained with.
# Letters that another Unicode normal form would change are written as numbers.
_CASED_LETTERS = (
    r"A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕ"
    r"ἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\x{1F7D}ᾀ-ᾴᾶ-ᾼ\x{1FBE}ῂ-ῄῆ-ῌῐ-\x{1FD3}ῖ-\x{1FDB}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ"
    r"\x{2126}ℨ\x{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻"
    r"𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_CJK_AND_MORE = "[一-龥ࠀ-一가-퟿]+"
_DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[{_CASED_LETTERS}]+",
    r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
    r"\s+$",
    _CJK_AND_MORE,
    r"\p{N}+",
)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK_AND_MORE, r"\p{N}")
_JAIS2 = (
    rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS}|\s*[\r\n]+|"
    + "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4))
    + r"|\s{1,2}(?!\S)|\s{1}"
)
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_MINICPM5 = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}+|{_SIGNS}|{_SPACES}"
_BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
_SEED = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}"
_DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")
_FALCON = (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")

_LLAMA3_ROW = PreTokenizer((_LLAMA3,), add_bos=True, ignore_merges=True)
_LLAMA3_MERGING = PreTokenizer((_LLAMA3,))
_QWEN2_ROW = PreTokenizer((_QWEN2,))
_GPT2_ROW = PreTokenizer((_GPT2,))
_DIGIT_GPT2_ROW = PreTokenizer((r"\p{N}", _GPT2))
_GPT4O_ROW = PreTokenizer((_GPT4O,))
_DEEPSEEK3_ROW = PreTokenizer(_DEEPSEEK3)
_BLOOM_ROW = PreTokenizer((_BLOOM,))
# The makers' files cut digits singly, GGUF's rule cuts between digits and others: the same tokens,
# as no token has two digits.
_DEEPSEEK_LLM_FILE = (*_DEEPSEEK_LLM[:-1], r"\p{N}")
_BAILING_ROW = PreTokenizer((_BAILING,))

_GROUPS: tuple[tuple[PreTokenizer, str], ...] = (
    (PreTokenizer(_DEFAULT), "default"),
    (_LLAMA3_ROW, "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2"),
    (_LLAMA3_MERGING, "dbrx smaug-bpe chatglm-bpe glm4"),
    (_QWEN2_ROW, "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2"),
    (PreTokenizer((_QWEN35,)), "qwen35"),
    (_GPT2_ROW, "gpt-2 phi-2 gigachat a.x-4.0 mellum exaone4 mpt olmo jais trillion"),
    (_GPT2_ROW, "granite-docling modern-bert jina-es jina-de jina-v2-es jina-v2-de"),
    (_DIGIT_GPT2_ROW, "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2"),
    (PreTokenizer((_TEKKEN,), add_bos=True, ignore_merges=True), "tekken"),
    (_GPT4O_ROW, "gpt-4o llama4 kanana2 talkie minimax-m2"),
    (PreTokenizer(_DEEPSEEK_LLM), "deepseek-llm"),
    (PreTokenizer(_DEEPSEEK_CODER), "deepseek-coder"),
    (_DEEPSEEK3_ROW, "deepseek-v3 hunyuan-dense joyai-llm"),
    (PreTokenizer((_KIMI,)), "kimi-k2"),
    (PreTokenizer(_FALCON), "falcon"),
    (PreTokenizer((_JAIS2,)), "jais-2"),
    (_BLOOM_ROW, "bloom poro-chat gpt3-finnish"),
    (PreTokenizer((_BLOOM, r"\p{N}")), "viking"),
    (PreTokenizer((r"\p{N}{1,3}", _MINICPM5), ignore_merges=True), "minicpm5"),
    (_BAILING_ROW, "bailingmoe bailingmoe2 llada-moe"),
    (PreTokenizer((_SEED,)), "seed-coder"),
)

# GGUF files do not tell of normalizers. These names are of tokenizers that have NFC, in classes of
# transformers or in the makers' own code; the others leave the text as it is.
_NFC = frozenset(
    {
        *("qwen2", "qwen35", "deepseek-r1-qwen", "f2llmv2"),  # Qwen2Tokenizer and descendants
        "command-r",  # CohereTokenizer
        *("mpt", "olmo", "modern-bert"),  # GPTNeoXTokenizer
        "hunyuan",  # the code that Qwen's first models came with
    }
)

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    name: replace(row, is_nfc=name in _NFC) for row, names in _GROUPS for name in names.split()
}


def find_pre_tokenizer(name: str) -> PreTokenizer:
    """The row of that name, or TokenizerError with the names that are known."""
    try:
        return PRE_TOKENIZERS[name]
    except KeyError:
        known = ", ".join(sorted(PRE_TOKENIZERS))
        raise TokenizerError(
            f"The tokenizer cuts words by the rule {name!r} (tokenizer.ggml.pre), which this "
            f"version does not know; known are {known}. Use a newer version, or give another "
            f"tokenizer with --tokenizer."
        ) from None


def name_of_rule(patterns: Sequence[str], *, ignore_merges: bool, is_nfc: bool) -> str | None:
    """Returns the name of the row with these expressions; None where there is none. One that treats
    merges otherwise is better than none: o200k's files differ in it."""
    wanted = spelled(patterns)
    if wanted == spelled(_DEEPSEEK_LLM_FILE) and not is_nfc:
        return "deepseek-llm"
    found = {
        row.ignore_merges: name
        for name, row in reversed(PRE_TOKENIZERS.items())
        if (spelled(row.patterns), row.is_nfc) == (wanted, is_nfc)
    }
    return found.get(ignore_merges, found.get(not ignore_merges))


def _letter(code: re.Match[str]) -> str:
    """Returns the letter that an escape stands for; the escape where the letter may mean more."""
    number = int(code[1], 16)
    return chr(number) if number > 127 else code[0]


def spelled(patterns: Sequence[str]) -> tuple[str, ...]:
    """Returns expressions in one spelling, to compare them: files have ends of lines and letters as
    themselves or by escapes."""
    return tuple(
        re.sub(r"\\x\{([0-9A-Fa-f]{2,5})\}", _letter, pattern)
        .replace("\r", r"\r")
        .replace("\n", r"\n")
        for pattern in patterns
    )
