"""The rules by which tokenizer.json files cut words: the library's own tokens, whether GGUF has a
name for them or not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Library

from dllama.cli.model_file import load_tokenizer, metadata_of
from dllama.errors import TokenizerError
from dllama.formats.checkpoint.tokenizer_keys import tokenizer_metadata
from dllama.formats.quantized import open_weights
from dllama.formats.writing.convert import write_gguf
from dllama.tokenizer import Tokenizer
from dllama.tokenizer import gguf_vocabulary as keys_of
from dllama.tokenizer.byte_alphabet import BYTE_ORDER, to_alphabet
from dllama.tokenizer.pretokenizers import PRE_TOKENIZERS, spelled
from tests.checkpoints import write_checkpoint, write_tokenizer

TEXTS = (
    "It's 12345 o'clock,\r\n\r\nISN'T it?  Über 3.14159!!", "def f(x):\n\treturn x[1:20]\n\n\n",
    "東京タワーは333mです。你好，世界！", "한국어 12월 ①②③", "a  b   c ", " ", "\n",
    "e\u0301 é ﬁ ǅ", "A\r\n",
    "#include <a.h>\n  //x", "XMLHttpRequest iPhone12 $5.00", "日本2024年", "¡Olé!\u3000—“q”",
)  # fmt: skip
DIGITS = {"type": "Digits", "individual_digits": True}
LETTERS = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split(pattern: str, kind: str = "Regex") -> dict[str, object]:
    return {
        "type": "Split", "pattern": {kind: pattern}, "behavior": "Isolated", "invert": False
    }  # fmt: skip


def write_rule(
    folder: Path,
    cuts: Sequence[object],
    *,
    is_nfc: bool = False,
    ignore_merges: bool = False,
) -> None:
    """A vocabulary in which every two neighbours of TEXTS are a token, so that a word cut elsewhere
    is seen."""
    letters = [to_alphabet(bytes([b])) for b in BYTE_ORDER]
    spelled = [to_alphabet(text.encode()) for text in TEXTS]
    pairs = sorted({text[i : i + 2] for text in spelled for i in range(len(text) - 1)})
    write_tokenizer(
        folder,
        {
            "added_tokens": [],
            "normalizer": {"type": "NFC"} if is_nfc else {"type": "Sequence", "normalizers": []},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(cuts)},
            "post_processor": LETTERS,
            "model": {
                "type": "BPE", "ignore_merges": ignore_merges, "byte_fallback": False,
                "vocab": {text: i for i, text in enumerate(dict.fromkeys([*letters, *pairs]))},
                "merges": [[pair[0], pair[1]] for pair in pairs],
            },
        },
    )  # fmt: skip


def check_same(folder: Path, tokenizer: Tokenizer) -> None:
    library = Library.from_file(str(folder / "tokenizer.json"))
    for text in TEXTS:
        assert tokenizer.encode(text) == library.encode(text).ids, text


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_a_rule_that_gguf_has_a_name_for_gets_one_of_the_same_rule(
    tmp_path: Path, name: str
) -> None:
    row = PRE_TOKENIZERS[name]
    cuts = [*(split(pattern) for pattern in row.patterns), LETTERS]
    write_rule(tmp_path, cuts, is_nfc=row.is_nfc, ignore_merges=row.ignore_merges)
    metadata = tokenizer_metadata(tmp_path)
    given = PRE_TOKENIZERS[str(metadata["tokenizer.ggml.pre"])]
    assert (given.patterns, given.is_nfc) == (row.patterns, row.is_nfc)
    assert keys_of.PATTERNS_KEY not in metadata
    check_same(tmp_path, Tokenizer.from_gguf_metadata(metadata))


DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)
"""As the tokenizer.json of DeepSeek-V3 has them."""


def as_makers_write(name: str) -> list[object]:
    """DeepSeek's expressions have ends of lines and letters as they are, no escapes for them."""
    if name == "deepseek-v3":
        return [*(split(pattern) for pattern in DEEPSEEK_V3), LETTERS]
    patterns = [
        re.sub(r"\\x\{(\w+)\}", lambda code: chr(int(code[1], 16)), pattern)
        .replace(r"\r", "\r")
        .replace(r"\n", "\n")
        for pattern in PRE_TOKENIZERS[name].patterns
    ]
    cuts: list[object] = [split(pattern) for pattern in patterns]
    return [*cuts[:-1], DIGITS, LETTERS]


@pytest.mark.parametrize("name", ["deepseek-v3", "deepseek-llm", "deepseek-coder"])
def test_deepseeks_files_are_read_as_they_come(tmp_path: Path, name: str) -> None:
    write_rule(tmp_path, as_makers_write(name))
    metadata = tokenizer_metadata(tmp_path)
    assert metadata["tokenizer.ggml.pre"] == name
    # GGUF's rule of the name takes digits together, the file does not.
    assert (keys_of.PATTERNS_KEY in metadata) == (name == "deepseek-llm")
    check_same(tmp_path, Tokenizer.from_gguf_metadata(metadata))


OWN = {
    "expression": [split(r"\d|[^\d]+?(?=[A-Z])"), LETTERS],
    "text": [split(".", "String"), split("a"), LETTERS],
    "digits": [{"type": "Digits", "individual_digits": False}, LETTERS],
    "library's own": [DIGITS, split("[A-Z]+"), {**LETTERS, "use_regex": True}],
}


@pytest.mark.parametrize("cuts", OWN.values(), ids=OWN)
@pytest.mark.parametrize("is_nfc", [False, True])
@pytest.mark.parametrize("ignore_merges", [False, True])
def test_a_rule_without_a_name_is_kept_in_gguf_files_too(
    tmp_path: Path, cuts: Sequence[object], is_nfc: bool, ignore_merges: bool
) -> None:
    write_rule(tmp_path, cuts, is_nfc=is_nfc, ignore_merges=ignore_merges)
    metadata = tokenizer_metadata(tmp_path)
    assert metadata["tokenizer.ggml.pre"] == keys_of.OWN_PATTERNS
    check_same(tmp_path, Tokenizer.from_gguf_metadata(metadata))


def test_a_converted_model_keeps_its_rule(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "toy")
    write_rule(folder, OWN["expression"], is_nfc=True, ignore_merges=True)
    out = tmp_path / "toy.gguf"
    with closing(open_weights(folder, None)) as source:
        write_gguf(source, metadata_of(str(folder), None), out)
    check_same(folder, load_tokenizer(str(out), None))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (keys_of.PATTERNS_KEY, "x", "no list of at most 32 expressions"),
        (keys_of.PATTERNS_KEY, ["x", 1], "no list of at most 32 expressions"),
        (keys_of.PATTERNS_KEY, ["x"] * 33, "no list of at most 32 expressions"),
        (keys_of.PATTERNS_KEY, ["x" * 20_000], "no list of at most 32 expressions"),
        (keys_of.PATTERNS_KEY, ["(a"], r"by the expression '\(a', which cannot be read"),
        (keys_of.IS_NFC_KEY, 1, "expected true or false"),
    ],
)
def test_a_damaged_rule_is_refused(tmp_path: Path, key: str, value: object, said: str) -> None:
    write_rule(tmp_path, OWN["expression"])
    metadata = tokenizer_metadata(tmp_path) | {key: value}
    with pytest.raises(TokenizerError, match=said):
        Tokenizer.from_gguf_metadata(metadata)


def test_a_rule_that_leaves_text_out_is_refused_where_it_does(tmp_path: Path) -> None:
    removed = {"behavior": "Removed", "invert": True}
    write_rule(tmp_path, [split(PRE_TOKENIZERS["gpt-4o"].patterns[0]) | removed, LETTERS])
    check_same(tmp_path, Tokenizer.from_gguf_metadata(tokenizer_metadata(tmp_path)))
    write_rule(tmp_path, [split(r"\w+") | removed, LETTERS])
    with pytest.raises(TokenizerError, match="leaves out what is between words"):
        tokenizer_metadata(tmp_path)


@pytest.mark.parametrize("code", ["110000", "FFFFFF", "3F"])
def test_escapes_that_are_no_letters_stay(tmp_path: Path, code: str) -> None:
    """`\\x{3F}` is a question mark, and no sign that what is before it may be missing."""
    assert spelled(["a\\x{" + code + "}"]) == ("a\\x{" + code + "}",)


def test_nothing_is_cut_where_nothing_is_said(tmp_path: Path) -> None:
    write_rule(tmp_path, [LETTERS])
    metadata = tokenizer_metadata(tmp_path)
    assert metadata[keys_of.PATTERNS_KEY] == []
    check_same(tmp_path, Tokenizer.from_gguf_metadata(metadata))


def test_an_expression_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    write_rule(tmp_path, [split("[a"), LETTERS])
    with pytest.raises(TokenizerError, match="which cannot be read"):
        Tokenizer.from_gguf_metadata(tokenizer_metadata(tmp_path))


def test_an_expression_that_takes_too_long_is_an_error_of_the_text(tmp_path: Path) -> None:
    write_rule(tmp_path, [split(r"(a|a)*$"), LETTERS])
    tokenizer = Tokenizer.from_gguf_metadata(tokenizer_metadata(tmp_path))
    assert tokenizer.encode("ab")
    with pytest.raises(TokenizerError, match=r"gave up on a text of 61 characters .*retry-limit"):
        tokenizer.encode("a" * 60 + "!")
