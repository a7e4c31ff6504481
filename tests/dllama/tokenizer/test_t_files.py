"""`.t` files: what is written is read, bad files are named as such, and ids equal GGUF's."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from dllama.errors import ModelFileError, TokenizerError
from dllama.tokenizer import Tokenizer
from dllama.tokenizer.byte_alphabet import BYTE_ORDER, from_alphabet
from dllama.tokenizer.t_file import MAGIC, TFile, read_t_file, write_t_file
from tests.dllama.tokenizer.test_real_vocabularies import cases
from tests.dllama.tokenizer.vocabularies import REAL, real_metadata, real_tokenizer

SMALL = TFile(
    tokens=[*(bytes([b]) for b in BYTE_ORDER), b"ab", b"abc", b"<|bos|>", b"<|e|>", b"<think>"],
    scores=[-float(i) for i in range(261)],
    bos_id=258,
    eos_ids=[259, 258],
    add_bos=True,
    chat_template="{{ messages }} é",
)


def spm_bytes(text: str, kind: int) -> bytes:
    if kind == 6:
        return bytes([int(text[3:5], 16)])
    return text.replace("▁", " ").encode()


def t_file_of(name: str) -> TFile:
    """A real vocabulary as distributed-llama's converters write it."""
    metadata = real_metadata(name)
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list)
    pairs = list(zip(tokens, kinds.tolist(), strict=True))  # type: ignore[attr-defined]
    if metadata["tokenizer.ggml.model"] == "llama":
        raw = [spm_bytes(text, kind) for text, kind in pairs]
        scores = [float(score) for score in metadata["tokenizer.ggml.scores"]]  # type: ignore[attr-defined]
    else:
        raw = [from_alphabet(text) if kind == 1 else text.encode() for text, kind in pairs]
        scores = [-float(i) for i in range(len(raw))]
    tokenizer = real_tokenizer(name)
    return TFile(raw, scores, tokenizer.bos_id, [tokenizer.eos_id or 0], tokenizer.add_bos)


@pytest.mark.parametrize("name", [name for name in REAL if name != "phi-3"])
def test_ids_equal_those_of_the_same_vocabulary_in_gguf(name: str, tmp_path: Path) -> None:
    write_t_file(tmp_path / "tokenizer.t", t_file_of(name))
    ours, gguf = Tokenizer.from_t_file(tmp_path / "tokenizer.t"), real_tokenizer(name)
    for text, ids in cases(name):
        assert ours.encode(text) == ids, text
    pick = random.Random(3)
    for _ in range(300):
        parts = [gguf.token_bytes(pick.randrange(gguf.vocab_size)) for _ in range(8)]
        text = b"".join(parts).decode("utf-8", "replace")
        assert ours.encode(text) == gguf.encode(text), text
    special = f"{gguf.bos_text}Hi there{gguf.eos_text} x"
    both = [t.encode(special, add_special=True, parse_special=True) for t in (ours, gguf)]
    assert both[0] == both[1]
    assert (ours.bos_id, ours.eos_id, ours.add_bos) == (gguf.bos_id, gguf.eos_id, gguf.add_bos)
    assert ours.eog_ids == gguf.eog_ids


def test_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "small.t"
    for contents in (SMALL, replace(SMALL, bos_id=None, add_bos=False, chat_template=None)):
        write_t_file(path, contents)
        assert read_t_file(path) == contents


def test_small_file_makes_a_tokenizer(tmp_path: Path) -> None:
    write_t_file(tmp_path / "small.t", SMALL)
    tokenizer = Tokenizer.from_t_file(tmp_path / "small.t")
    assert tokenizer.encode("abcab") == [257, 256]
    assert tokenizer.encode("<|e|>ab", add_special=True, parse_special=True) == [258, 259, 256]
    assert tokenizer.eog_ids == {258, 259}
    assert tokenizer.chat_templates == {"default": "{{ messages }} é"}
    assert tokenizer.decode([260, 256, 259], skip_special=True) == "<think>ab"


def test_older_header_keys_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.t"
    pairs = {0: 1, 1: 2, 2: 1, 3: 0, 4: 1, 5: -1, 6: 1, 8: 3}
    head = struct.pack("<ii", MAGIC, 8 + 8 * len(pairs))
    head += b"".join(struct.pack("<ii", *pair) for pair in pairs.items())
    body = b"".join(struct.pack("<fI", 0.5, 1) + token for token in (b"a", b"b"))
    path.write_bytes(head + b"xyz" + body)
    assert read_t_file(path) == TFile([b"a", b"b"], [0.5, 0.5], 0, [1], True)


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "small.t"
    write_t_file(path, SMALL)
    whole = path.read_bytes()
    for n in [*range(140), *range(140, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:n])
        with pytest.raises(ModelFileError, match=r"small\.t"):
            read_t_file(path)


def test_damaged_bytes_never_give_other_errors(tmp_path: Path) -> None:
    path = tmp_path / "small.t"
    write_t_file(path, SMALL)
    whole = path.read_bytes()
    pick = random.Random(5)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[pick.randrange(120)] = pick.randrange(256)
        path.write_bytes(damaged)
        try:
            Tokenizer.from_t_file(path).encode("abc", add_special=True)
        except (ModelFileError, TokenizerError) as error:
            assert str(error).endswith(".")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GGUF" + b"\0" * 40, "no .t tokenizer file"),
        (struct.pack("<ii", 0x567123, 24) + b"\0" * 40, "old distributed-llama"),
        (struct.pack("<iiii", MAGIC, 16, 11, 1), "header key 11"),
        (struct.pack("<iiii", MAGIC, 16, 0, 2), "version 2"),
        (struct.pack("<iiii", MAGIC, 16, 1, 2**30), "1073741824 tokens"),
        (struct.pack("<ii", MAGIC, 2**30), "claims 1073741824 bytes"),
    ],
)
def test_wrong_files_are_told_apart(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.t"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=message):
        read_t_file(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="cannot be read"):
        Tokenizer.from_t_file(tmp_path / "none.t")


def test_a_vocabulary_without_single_bytes_is_refused(tmp_path: Path) -> None:
    write_t_file(tmp_path / "x.t", TFile([b"a", b"b"], [0.0, 0.0], None, [], False))
    with pytest.raises(TokenizerError, match="neither SentencePiece nor byte-level BPE"):
        Tokenizer.from_t_file(tmp_path / "x.t")
