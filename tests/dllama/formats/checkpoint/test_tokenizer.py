"""tokenizer.json and its neighbours, as our tokenizer: the same tokens as the library's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as Library

from dllama.cli.model_file import load_tokenizer, metadata_of
from dllama.errors import ModelFileError, TokenizerError
from dllama.formats.checkpoint.folder import read_json
from dllama.formats.checkpoint.tokenizer_files import count_tokens
from dllama.formats.checkpoint.tokenizer_keys import tokenizer_metadata
from dllama.formats.gguf import GgufFile
from dllama.tokenizer import Tokenizer
from dllama.tokenizer.vocabulary import TokenType
from tests.checkpoints import (
    LLAMA3_WORDS,
    PREPENDING,
    added,
    pairs_by_score,
    template,
    write_bpe_tokenizer,
    write_spm_tokenizer,
    write_tokenizer,
)
from tests.shared_data import shared_file

TEXTS = (
    "Hello world", " Hello  world ", "", " ", "   ", "the cat's 1234 hats\n\n\tit'S", "é日本🦙\x00",
    "a<|im_end|>b", "<s>[INST] tea</s>", "\n", "éé ﬁ", "x" * 50,
)  # fmt: skip
QWEN2_WORDS = LLAMA3_WORDS.replace("{1,3}", "")
METASPACE = {"type": "Metaspace", "replacement": "▁", "split": False}


def ours(folder: Path) -> Tokenizer:
    return Tokenizer.from_gguf_metadata(tokenizer_metadata(folder))


def check_same(folder: Path) -> None:
    """Every text gives the library's tokens, special tokens in it read as such."""
    library, tokenizer = Library.from_file(str(folder / "tokenizer.json")), ours(folder)
    theirs = [library.id_to_token(i) for i in range(tokenizer.vocab_size)]
    assert theirs == list(tokenizer.token_texts)
    for text in TEXTS:
        expected = library.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text, parse_special=True) == expected, text
    expected = library.encode("as a prompt", add_special_tokens=True).ids
    assert tokenizer.encode("as a prompt", add_special=True) == expected


def test_a_byte_level_vocabulary_gives_the_librarys_tokens(tmp_path: Path) -> None:
    write_bpe_tokenizer(tmp_path, 352)
    check_same(tmp_path)
    tokenizer = ours(tmp_path)
    assert (tokenizer.bos_text, tokenizer.eos_text) == ("<|begin_of_text|>", "<|im_end|>")
    assert tokenizer.add_bos and "im_start" in tokenizer.chat_templates["default"]


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        None,
        {**METASPACE, "prepend_scheme": "first"},
        {**METASPACE, "prepend_scheme": "always"},
        {**METASPACE, "prepend_scheme": "never"},
    ],
    ids=["prepend", "first", "always", "never"],
)
def test_a_sentencepiece_vocabulary_gives_the_librarys_tokens(
    tmp_path: Path, pre_tokenizer: Mapping[str, object] | None
) -> None:
    write_spm_tokenizer(tmp_path, 600, pre_tokenizer)
    check_same(tmp_path)


def test_a_real_byte_level_vocabulary(tmp_path: Path) -> None:
    """The vocabulary of a GGUF file as the tokenizer.json that it was made of."""
    metadata = GgufFile(shared_file("vocab/ggml-vocab-qwen2.gguf")).metadata
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list) and isinstance(types, np.ndarray)
    named = [i for i, kind in enumerate(types) if kind in (TokenType.CONTROL, 4)]
    split = {
        "type": "Split",
        "pattern": {"Regex": QWEN2_WORDS},
        "behavior": "Isolated",
        "invert": False,
    }
    letters = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    write_tokenizer(
        tmp_path,
        {
            "added_tokens": [added(i, tokens[i], special=bool(types[i] == 3)) for i in named],
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, letters]},
            "post_processor": None,
            "model": {
                "type": "BPE", "ignore_merges": False,
                "vocab": {text: i for i, text in enumerate(tokens) if i not in set(named)},
                "merges": metadata["tokenizer.ggml.merges"],
            },
        },
    )  # fmt: skip
    check_same(tmp_path)
    assert tokenizer_metadata(tmp_path)["tokenizer.ggml.pre"] == "qwen2"


def test_the_real_sentencepiece_vocabulary(tmp_path: Path) -> None:
    """Llama 2's, with the merges that `transformers` makes of its scores."""
    metadata = GgufFile(shared_file("vocab/ggml-vocab-llama-spm.gguf")).metadata
    tokens, scores = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.scores"]
    assert isinstance(tokens, list) and isinstance(scores, np.ndarray)
    write_tokenizer(
        tmp_path,
        {
            "added_tokens": [added(i, tokens[i]) for i in range(3)],
            "normalizer": PREPENDING,
            "pre_tokenizer": None,
            "post_processor": template("<s>", 1),
            "model": {
                "type": "BPE", "byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True,
                "vocab": {text: i for i, text in enumerate(tokens)},
                "merges": [" ".join(pair) for pair in pairs_by_score(tokens, scores.tolist())],
            },
        },
    )  # fmt: skip
    check_same(tmp_path)


def test_white_space_after_a_token_is_dropped_where_the_file_says_so(tmp_path: Path) -> None:
    """As after Phi-3's special tokens; a GGUF file that is made of the folder keeps it."""
    write_spm_tokenizer(tmp_path, 352)
    said = json.loads((tmp_path / "tokenizer.json").read_text())
    for token in said["added_tokens"]:
        token["rstrip"] = token["content"] == "<|im_end|>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(said))
    check_same(tmp_path)
    text = "a<|im_end|> \n b <s> c<|im_end|>"
    expected = Library.from_file(str(tmp_path / "tokenizer.json")).encode(
        text, add_special_tokens=False
    )
    assert ours(tmp_path).encode(text, parse_special=True) == expected.ids


def test_special_tokens_come_from_whatever_file_names_them(tmp_path: Path) -> None:
    write_bpe_tokenizer(tmp_path, 352)
    path = tmp_path / "tokenizer_config.json"
    said = json.loads(path.read_text())
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [349, 351]}')
    assert ours(tmp_path).eos_id == 351 and {349, 351} <= ours(tmp_path).eog_ids
    path.write_text(json.dumps(said | {"eos_token": None, "bos_token": None}))
    assert (ours(tmp_path).bos_id, ours(tmp_path).eos_id) == (348, 349)
    path.write_text(json.dumps(said | {"add_bos_token": False, "add_eos_token": True}))
    assert not ours(tmp_path).add_bos and ours(tmp_path).add_eos


def test_chat_templates_come_from_their_own_files_first(tmp_path: Path) -> None:
    write_bpe_tokenizer(tmp_path, 352)
    path = tmp_path / "tokenizer_config.json"
    rows = [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": rows}))
    assert ours(tmp_path).chat_templates == {"default": "A", "tool_use": "B"}
    (tmp_path / "chat_template.jinja").write_text("\ufeffC")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("D")
    assert ours(tmp_path).chat_templates == {"default": "C", "tool_use": "D"}


def test_ids_that_nothing_has_are_unused(tmp_path: Path) -> None:
    write_bpe_tokenizer(tmp_path, 352)
    change(tmp_path, lambda parts: parts["added_tokens"].append(added(355, "<far>")))
    keys = tokenizer_metadata(tmp_path)
    assert count_tokens(tmp_path) == 356
    assert keys["tokenizer.ggml.tokens"][352:] == ["[PAD352]", "[PAD353]", "[PAD354]", "<far>"]  # type: ignore[index]
    assert keys["tokenizer.ggml.token_type"][352:].tolist() == [5, 5, 5, 3]  # type: ignore[index]


def test_a_tokenizer_may_be_named_by_its_folder_or_file(tmp_path: Path) -> None:
    write_bpe_tokenizer(tmp_path, 352)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        metadata = metadata_of("unused", path)
        assert metadata.array_length("tokenizer.ggml.tokens") == 352


# ---- what is refused


def change(folder: Path, how) -> None:  # type: ignore[no-untyped-def]
    """Alters the parsed tokenizer.json in place."""
    path = folder / "tokenizer.json"
    parts = json.loads(path.read_text())
    how(parts)
    path.write_text(json.dumps(parts))


UNKNOWN = {
    "model is 'Unigram'": {"model": {"type": "Unigram", "vocab": [["a", 0.0]]}},
    "normalizer is .*Lowercase": {"normalizer": {"type": "Lowercase"}},
    "pre_tokenizer is .*Whitespace": {"pre_tokenizer": {"type": "Whitespace"}},
    "post_processor is .*Bert": {"post_processor": {"type": "BertProcessing"}},
    "neither byte-level BPE nor": {"pre_tokenizer": None},
    "prepend_scheme 'middle'": {"pre_tokenizer": {**METASPACE, "prepend_scheme": "middle"}},
    "goes on behind ByteLevel: .*Digits": {
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
                {"type": "Digits", "individual_digits": True},
            ],
        }
    },
    "cuts words at": {
        "pre_tokenizer": {"type": "Split", "pattern": {"Glob": "x"}, "behavior": "Isolated"}
    },
    "it has no model": {"model": None},
    "it has no vocabulary": {"model": {"type": "BPE", "vocab": {}, "merges": []}},
    "the same id": {"model": {"type": "BPE", "vocab": {"a": 1, "b": 1}, "merges": []}},
    "no sound id;|no sound id\\.": {"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}},
    "numbers its tokens up to": {
        "model": {"type": "BPE", "vocab": {"a": 9_000_000}, "merges": []}, "added_tokens": []
    },
    "merges are no list": {"model": {"type": "BPE", "vocab": {"a": 1}, "merges": 3}},
    "a merge of it is 'abc'": {"model": {"type": "BPE", "vocab": {"a": 1}, "merges": ["abc"]}},
    "more than texts": {"model": {"type": "BPE", "vocab": {"a": 1}, "merges": [[1, 2]]}},
    "added_tokens are no list": {"added_tokens": {"a": 1}},
    "added_tokens has no sound": {"added_tokens": [{"id": "1", "content": "x"}]},
    "no sound list of normalizers": {"normalizer": {"type": "Sequence", "normalizers": [1]}},
}  # fmt: skip


@pytest.mark.parametrize(("said", "parts"), UNKNOWN.items(), ids=UNKNOWN)
def test_a_tokenizer_of_another_kind_is_refused_by_name(
    tmp_path: Path, said: str, parts: Mapping[str, object]
) -> None:
    write_bpe_tokenizer(tmp_path, 352)
    change(tmp_path, lambda found: found.update(parts))
    with pytest.raises(TokenizerError, match=said):
        tokenizer_metadata(tmp_path)


def test_merges_that_no_scores_say_are_refused(tmp_path: Path) -> None:
    write_spm_tokenizer(tmp_path, 600)
    change(tmp_path, lambda parts: parts["model"]["merges"].append(["▁", "t"]))
    with pytest.raises(TokenizerError, match="'▁t', are not in the order of scores"):
        tokenizer_metadata(tmp_path)
    write_spm_tokenizer(tmp_path, 600)
    change(tmp_path, lambda parts: parts["model"]["merges"].pop(5))
    with pytest.raises(TokenizerError, match="are not in the order of scores"):
        tokenizer_metadata(tmp_path)


def test_a_folder_without_tokenizer_or_with_a_broken_one_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        TokenizerError, match=r"has no tokenizer\.json, and no tiktoken\.model; make one with"
    ):
        tokenizer_metadata(tmp_path)
    assert count_tokens(tmp_path) is None
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelFileError, match="is no JSON"):
        tokenizer_metadata(tmp_path)
    with pytest.raises(ModelFileError, match="There is no file"):
        load_tokenizer(str(tmp_path / "absent"), None)


def test_half_a_character_in_a_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text('{"a": "\\ud83d\\ude00"}')
    assert read_json(path) == {"a": "\U0001f600"}
    path.write_text('{"a": ["\\ud83d"]}')
    with pytest.raises(ModelFileError, match="is no JSON"):
        read_json(path)
