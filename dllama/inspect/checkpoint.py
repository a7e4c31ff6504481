"""The facts of a model in a folder of safetensors files."""

from __future__ import annotations

from math import prod
from pathlib import Path

from dllama.config import ModelConfig
from dllama.errors import ModelFileError, TokenizerError
from dllama.formats.checkpoint.folder import WeightFiles, checkpoint_name
from dllama.formats.checkpoint.source import CheckpointSource
from dllama.formats.checkpoint.text_part import read_config
from dllama.formats.checkpoint.tokenizer_keys import tokenizer_metadata
from dllama.inspect.facts import (
    TOKENIZER_KINDS,
    ModelFacts,
    TensorRow,
    TokenizerFacts,
    group_tensors,
)


def describe_checkpoint(folder: Path, named: Path) -> ModelFacts:
    """The facts of the model in a folder; `named` is what the user named of it. Raises
    ModelFileError where its files are damaged."""
    said = read_config(folder)
    files = WeightFiles(folder, named)
    try:
        rows = [TensorRow(t.name, t.shape, t.dtype, t.n_bytes) for t in files.tensors.values()]
        n_bytes, n_parts = files.n_bytes, len(files.files)
    finally:
        files.close()
    config, n_parameters, unsupported = _try_open(named)
    tokenizer, has_template = _tokenizer(folder)
    context = said.get("max_position_embeddings")
    return ModelFacts(
        path=str(named),
        format="safetensors",
        n_parts=n_parts,
        n_bytes=n_bytes,
        name=checkpoint_name(folder),
        arch=config.arch if config else str(said.get("model_type", "unknown")),
        context=config.max_seq_len if config else context if type(context) is int else None,
        n_parameters=n_parameters or sum(prod(row.dims) for row in rows),
        config=config,
        tokenizer=tokenizer,
        has_chat_template=has_template,
        groups=group_tensors(rows),
        unsupported=unsupported,
    )


def _try_open(path: Path) -> tuple[ModelConfig | None, int, str | None]:
    """Returns the config of a model that can be run and the number of its values, or the sentence
    that says why it cannot be run."""
    try:
        source = CheckpointSource(path)
    except ModelFileError as error:
        return None, 0, str(error)
    source.close()
    n_parameters = sum(info.rows * info.cols for info in source.tensors.values())
    return source.config, n_parameters, None


def _tokenizer(folder: Path) -> tuple[TokenizerFacts | None, bool]:
    """Returns the tokenizer in a folder, None where this version has no use for it; and whether
    there is a chat template."""
    try:
        keys = tokenizer_metadata(folder)
    except (TokenizerError, ModelFileError):
        return None, False
    tokens = keys["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    facts = TokenizerFacts(
        kind=TOKENIZER_KINDS[str(keys["tokenizer.ggml.model"])],
        pre=str(keys["tokenizer.ggml.pre"]),
        n_tokens=len(tokens),
        bos_id=_token_id(keys, "bos"),
        eos_id=_token_id(keys, "eos"),
    )
    return facts, "tokenizer.chat_template" in keys


def _token_id(keys: dict[str, object], which: str) -> int | None:
    value = keys.get(f"tokenizer.ggml.{which}_token_id")
    return value if type(value) is int else None
