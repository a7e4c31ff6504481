"""The facts of a model file. Files that this version cannot run are described too, with the
reason."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

from dllama.config import ModelConfig
from dllama.errors import ModelFileError
from dllama.formats import FORMATS, first_bytes, open_model
from dllama.formats.checkpoint.folder import checkpoint_folder
from dllama.formats.gguf import MAGIC as GGUF_MAGIC
from dllama.formats.gguf import GgufFile
from dllama.formats.gguf_config import FACTORS
from dllama.formats.gguf_source import GgufSource
from dllama.inspect.checkpoint import describe_checkpoint
from dllama.inspect.facts import (
    TOKENIZER_KINDS,
    ModelFacts,
    TensorRow,
    TokenizerFacts,
    group_tensors,
)


def describe(path: str | Path) -> ModelFacts:
    """The facts of a model. Raises ModelFileError where it is damaged or no model at all."""
    path = Path(path)
    folder = checkpoint_folder(path)
    if folder is not None:
        return describe_checkpoint(folder, path)
    return _describe_gguf(path) if first_bytes(path) == GGUF_MAGIC else _describe_other(path)


def _describe_gguf(path: Path) -> ModelFacts:
    file = GgufFile(path)
    try:
        config, unsupported = _try_config(path)
        metadata = file.metadata
        arch = str(metadata.get("general.architecture", "unknown"))
        context = metadata.get(f"{arch}.context_length")
        rows = [
            TensorRow(t.name, t.dims[::-1], t.type_name, t.n_bytes) for t in file.tensors.values()
        ]
        return ModelFacts(
            path=str(path),
            format=f"GGUF version {file.version}",
            n_parts=len(file.parts),
            n_bytes=file.n_bytes,
            name=str(metadata.get("general.name", path.stem)),
            arch=arch,
            context=config.max_seq_len if config else context if type(context) is int else None,
            n_parameters=sum(prod(dims) for name, dims, _, _ in rows if name not in FACTORS),
            config=config,
            tokenizer=_tokenizer(file),
            has_chat_template=isinstance(metadata.get("tokenizer.chat_template"), str),
            groups=group_tensors(rows),
            unsupported=unsupported,
        )
    finally:
        file.close()


def _try_config(path: Path) -> tuple[ModelConfig | None, str | None]:
    """Returns the config of a GGUF file that can be run, or the sentence that says why it
    cannot."""
    try:
        source = GgufSource(path)
    except ModelFileError as error:
        return None, str(error)
    source.close()
    return source.config, None


def _describe_other(path: Path) -> ModelFacts:
    source = open_model(path)
    try:
        config = source.config
        rows = [
            TensorRow(
                t.name, (t.rows, t.cols) if t.rows > 1 else (t.cols,), t.qtype.name, t.n_bytes
            )
            for t in source.tensors.values()
        ]
        return ModelFacts(
            path=str(path),
            format=FORMATS[first_bytes(path)][0],
            n_parts=1,
            n_bytes=path.stat().st_size,
            name=config.name,
            arch=config.arch,
            context=config.max_seq_len,
            n_parameters=sum(prod(dims) for _, dims, _, _ in rows),
            config=config,
            tokenizer=None,
            has_chat_template=False,
            groups=group_tensors(rows),
            unsupported=None,
        )
    finally:
        source.close()


def _tokenizer(file: GgufFile) -> TokenizerFacts | None:
    metadata = file.metadata
    n_tokens = metadata.array_length("tokenizer.ggml.tokens")
    if n_tokens is None:
        return None
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    return TokenizerFacts(
        kind=TOKENIZER_KINDS.get(str(kind), str(kind)),
        pre=pre if isinstance(pre, str) else None,
        n_tokens=n_tokens,
        bos_id=_token_id(metadata, "bos"),
        eos_id=_token_id(metadata, "eos"),
    )


def _token_id(metadata: Mapping[str, object], which: str) -> int | None:
    value = metadata.get(f"tokenizer.ggml.{which}_token_id")
    return value if type(value) is int else None
