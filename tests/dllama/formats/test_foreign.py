"""Files that are no models are named for what they are, by every command that opens one."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllama.cli.flags.settings import EngineSettings
from dllama.cli.model_file import check_same_vocabulary, load_tokenizer, open_source
from dllama.errors import ModelFileError, TokenizerError
from dllama.formats import check_is_model
from dllama.formats.foreign import HEAD_BYTES, describe_foreign
from dllama.inspect.describe import describe
from tests.toy_models import write_toy

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
HEADER = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
FOREIGN = {
    "Git LFS pointer": POINTER,
    "web page": b"<!DOCTYPE html>\n<html lang=en>",
    "web page, not": b"\xef\xbb\xbf\n <HTML>",
    "a web page": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "JSON text .*Repository not found.*refused": b'{"error": "Repository not found"}',
    "a text .*Invalid username": b"Invalid username or password.",
    "safetensors file under another name": struct.pack("<Q", len(HEADER)) + HEADER + bytes(4),
    "full of zeros": bytes(4096),
    "first bytes of a GGUF": b"GGU",
    "PyTorch checkpoint": b"PK\x03\x04" + b"x" * 900,
    "Python pickle": b"\x80\x02}q\x00",
    "gzip; unpack": b"\x1f\x8b\x08\x00" + b"x" * 20,
    "SentencePiece": b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02",
    "no known format": b"\x08\x07\x12\x07\xff\xfe",
}


@pytest.mark.parametrize(("said", "content"), FOREIGN.items(), ids=FOREIGN)
def test_what_is_no_model_is_named(tmp_path: Path, said: str, content: bytes) -> None:
    """Also by what asks for the tokenizer first: that is not what such a file lacks."""
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    toy = write_toy(tmp_path / "toy.gguf")
    for opens in (
        lambda: open_source(EngineSettings(model=str(path), threads=1)),
        lambda: describe(path),
        lambda: load_tokenizer(str(path), None),
        lambda: load_tokenizer(str(path), toy),
        lambda: check_same_vocabulary(str(toy), None, str(path)),
    ):
        with pytest.raises(ModelFileError, match=rf"model\.gguf is .*{said}.*Expected a GGUF or"):
            opens()
    with pytest.raises(TokenizerError, match=rf"model\.gguf is .*{said}.*Expected a \.t tokenizer"):
        load_tokenizer(str(toy), path)


def test_a_model_in_place_of_its_tokenizer_is_named(tmp_path: Path) -> None:
    toy, model = write_toy(tmp_path / "toy.gguf"), write_toy(tmp_path / "toy.m", fmt="m")
    with pytest.raises(TokenizerError, match=r"holds no tokenizer; name its \.t file"):
        load_tokenizer(str(toy), model)


def test_an_empty_file_a_folder_and_a_lone_part(tmp_path: Path) -> None:
    empty, part = tmp_path / "empty.gguf", tmp_path / "m-00002-of-00002.gguf"
    empty.touch()
    write_toy(part)
    for path, said in (
        (empty, "is empty"),
        (
            tmp_path,
            r"is a directory without a config.json, not a model; .* for example empty\.gguf",
        ),
        (part, r"one of 2 parts, and m-00001-of-00002\.gguf is missing"),
    ):
        with pytest.raises(ModelFileError, match=said):
            open_source(EngineSettings(model=str(path), threads=1))
        with pytest.raises(ModelFileError, match=said):
            load_tokenizer(str(path), None)


@settings(max_examples=200)
@given(head=st.binary(max_size=HEAD_BYTES))
def test_any_bytes_are_something(head: bytes) -> None:
    said = describe_foreign(head)
    assert said and said.isprintable()


def test_a_model_is_a_model(tmp_path: Path) -> None:
    check_is_model(write_toy(tmp_path / "toy.gguf"))
    check_is_model(write_toy(tmp_path / "toy.m", fmt="m"))
