"""Opens the model file of the command line, under the name and with the context that will be
served, and finds its tokenizer.

What reads folders of safetensors files, or quantizes, is imported where it is needed: every start
would wait for it.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dllama.cli.flags.settings import DEFAULT_CONTEXT, EngineSettings
from dllama.config import ModelConfig
from dllama.errors import ConfigError, TokenizerError
from dllama.formats import check_is_model, first_bytes, open_model
from dllama.formats.checkpoint.folder import checkpoint_folder, tokenizer_folder
from dllama.formats.foreign import HEAD_BYTES, describe_foreign
from dllama.formats.gguf import MAGIC as GGUF_MAGIC
from dllama.formats.gguf import GgufFile
from dllama.formats.gguf_metadata import GgufMetadata
from dllama.host.container import available_memory
from dllama.weight_source import WeightSource

if TYPE_CHECKING:  # an engine opens models, and seldom reads text
    from dllama.tokenizer import Tokenizer

log = logging.getLogger(__name__)

SLOTS_PER_SEQUENCE = 2  # of states, for each conversation that may run at once


class Renamed:
    """A WeightSource under another config: the context and the name the command line asked for."""

    def __init__(self, source: WeightSource, config: ModelConfig) -> None:
        self._source, self.config = source, config
        self.trained_context = source.config.max_seq_len  # tokens
        self.tensors, self.stamp = source.tensors, source.stamp
        self.read, self.release, self.close = source.read, source.release, source.close
        self.drop_kept = source.drop_kept


def trained_context(model: str) -> int:
    """Returns the tokens that a model was trained to read."""
    source = open_model(model)
    source.close()
    return source.config.max_seq_len


def context_size(config: ModelConfig, asked: int) -> int:
    """Returns the tokens that a conversation may have: at most those that the model was trained
    for, which is told."""
    if asked > config.max_seq_len:
        log.warning(
            "--ctx-size %d is more than the %d tokens this model was trained for; these are served",
            asked, config.max_seq_len,
        )  # fmt: skip
        return config.max_seq_len
    return asked or min(config.max_seq_len, DEFAULT_CONTEXT)


def open_source(settings: EngineSettings) -> Renamed:
    """Opens the model file, with the context length and the number of tokens that will be served.
    Raises ConfigError where the tokenizer has more tokens than the model."""
    source = _open_weights(settings)
    config = source.config
    context = context_size(config, settings.ctx_size)
    n_tokens = _n_tokens(settings) or config.tokenizer_size
    if n_tokens is not None and n_tokens > config.vocab_size:
        source.close()
        raise ConfigError(
            f"the tokenizer has {n_tokens} tokens, but the model only knows {config.vocab_size}; "
            "name the tokenizer that belongs to it (--tokenizer)"
        )
    name = settings.name or config.name
    served = replace(config, max_seq_len=context, name=name, tokenizer_size=n_tokens)
    return Renamed(source, with_slots(served, settings))


def with_slots(config: ModelConfig, settings: EngineSettings) -> ModelConfig:
    """Returns the config with a slot for the state of every conversation that may run at once, and
    as many for those that can be gone on with, where layers keep states. Raises ConfigError where
    conversations are to outgrow their context then."""
    if config.delta is None:
        return config
    if settings.context_shift:
        raise ConfigError(
            f"layers of {config.name} keep a state, which cannot forget the older half of a "
            "conversation; start without --context-shift, and answers end where the context is full"
        )
    slots = SLOTS_PER_SEQUENCE * settings.max_batch
    return replace(config, delta=replace(config.delta, n_slots=slots))


def _open_weights(settings: EngineSettings) -> WeightSource:
    if settings.quantize is None:
        return open_model(settings.model)
    from dllama.formats.quantized import open_weights

    keeps = available_memory() // KEPT_SHARE if settings.workers else 0
    return open_weights(settings.model, settings.quantize, keeps_bytes=keeps)


def _n_tokens(settings: EngineSettings) -> int | None:
    """Returns the number of tokens of a tokenizer outside of the model file; None without one."""
    named = Path(settings.tokenizer) if settings.tokenizer else None
    path = _tokenizer_path(settings.model, named)
    if path == Path(settings.model) or not path.exists():
        return None
    if (folder := tokenizer_folder(path)) is not None:
        from dllama.formats.checkpoint.tokenizer_files import count_tokens as count_in_folder

        return count_in_folder(folder)
    if first_bytes(path) == T_MAGIC:
        from dllama.tokenizer.t_file import count_tokens

        return count_tokens(path)
    return GgufFile(path).metadata.array_length("tokenizer.ggml.tokens")


KEPT_SHARE = 4  # of the free memory: quantized weights on their way to several ranks
T_MAGIC = b"\x24\x71\x56\x00"  # distributed-llama's .t


def metadata_of(model: str, tokenizer: Path | None) -> GgufMetadata:
    """Returns the metadata of the file or folder that the tokenizer comes from, under GGUF's keys;
    empty for other formats."""
    path = tokenizer or Path(model)
    if (folder := checkpoint_folder(path)) is not None:
        from dllama.formats.checkpoint.source import checkpoint_metadata

        return checkpoint_metadata(folder)
    if (folder := tokenizer_folder(path)) is not None:
        return GgufMetadata(_folder_metadata(folder))
    return GgufFile(path).metadata if first_bytes(path) == GGUF_MAGIC else GgufMetadata({})


def _folder_metadata(folder: Path) -> dict[str, object]:
    from dllama.formats.checkpoint.tokenizer_keys import tokenizer_metadata

    return tokenizer_metadata(folder)


def load_tokenizer(model: str, tokenizer: Path | None) -> Tokenizer:
    """Loads the tokenizer named, or the model's own, or the .t file beside a .m file.

    Raises TokenizerError where there is none, ModelFileError where a file is damaged.
    """
    from dllama.tokenizer import Tokenizer

    check_is_model(Path(model))
    path = _tokenizer_path(model, tokenizer)
    if tokenizer is None and not path.exists():
        raise TokenizerError(
            f"{model} holds no tokenizer and there is no {path.name} beside it; name the "
            "model's .t file, or a GGUF of the same model, with --tokenizer"
        )
    if (folder := tokenizer_folder(path)) is not None:
        return Tokenizer.from_gguf_metadata(_folder_metadata(folder))
    if first_bytes(path) == T_MAGIC:
        return Tokenizer.from_t_file(path)
    if first_bytes(path) != GGUF_MAGIC:
        what = describe_foreign(first_bytes(path, HEAD_BYTES))
        raise TokenizerError(
            f"{path} is {what}. Expected a .t tokenizer, a GGUF file, or a folder "
            "with tokenizer.json or tiktoken.model."
        )
    return Tokenizer.from_gguf_metadata(metadata_of(model, path))


def _tokenizer_path(model: str, tokenizer: Path | None) -> Path:
    """Returns the file of the tokenizer, which may be missing: the one named, the model's own, or
    the .t file beside a .m file."""
    if tokenizer is not None:
        return tokenizer
    path = Path(model)
    holds_its_own = checkpoint_folder(path) is not None or first_bytes(path) == GGUF_MAGIC
    return path if holds_its_own else path.with_suffix(".t")


def check_same_vocabulary(model: str, tokenizer: Path | None, draft_model: str) -> None:
    """Raises ConfigError where the ids of a draft model mean other tokens than the model's."""
    ours = load_tokenizer(model, tokenizer).token_texts
    theirs = load_tokenizer(draft_model, None).token_texts
    if list(ours) == list(theirs):
        return
    name, n = Path(draft_model).name, min(len(ours), len(theirs))
    at = next((i for i in range(n) if ours[i] != theirs[i]), n)
    what = (
        f"token {at} is {theirs[at]!r} in the one and {ours[at]!r} in the other"
        if at < n
        else f"the one has {len(theirs)} tokens and the other {len(ours)}"
    )
    raise ConfigError(
        f"the draft model {name} has another vocabulary than {Path(model).name}: {what}. Its "
        "guesses are token ids, so both have to have the same list of tokens; name a smaller "
        "model of the same family with --draft-model, or leave it out"
    )
