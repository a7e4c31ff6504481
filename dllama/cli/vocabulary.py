"""Finds the tokenizer and the chat template that go with a model file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dllama.errors import TokenizerError
from dllama.formats import first_bytes
from dllama.formats.gguf import MAGIC as GGUF_MAGIC
from dllama.formats.gguf import GgufFile
from dllama.tokenizer import Tokenizer

T_MAGIC = b"\x24\x71\x56\x00"  # distributed-llama's .t


def metadata_of(model: str, tokenizer: Path | None) -> Mapping[str, object]:
    """GGUF metadata of the file the tokenizer comes from; empty for other formats."""
    path = tokenizer or Path(model)
    return GgufFile(path).metadata if first_bytes(path) == GGUF_MAGIC else {}


def load_tokenizer(model: str, tokenizer: Path | None) -> Tokenizer:
    """The tokenizer named, or the model file's own, or the .t file beside a .m file.

    Raises TokenizerError where there is none, ModelFileError where a file is damaged.
    """
    path = tokenizer or Path(model)
    if tokenizer is None and first_bytes(path) != GGUF_MAGIC:
        path = Path(model).with_suffix(".t")
        if not path.exists():
            raise TokenizerError(
                f"{model} holds no tokenizer and there is no {path.name} beside it; name the "
                "model's .t file, or a GGUF of the same model, with --tokenizer"
            )
    if first_bytes(path) == T_MAGIC:
        return Tokenizer.from_t_file(path)
    return Tokenizer.from_gguf_metadata(metadata_of(model, path))
