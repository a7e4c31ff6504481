"""The model file as the command line wants it: its name, and the context that will be served."""

from __future__ import annotations

from dataclasses import replace

from dllama.cli.flags.settings import DEFAULT_CONTEXT, EngineSettings
from dllama.config import ModelConfig
from dllama.errors import ConfigError
from dllama.formats import open_model
from dllama.weight_source import WeightSource


class Renamed:
    """A WeightSource under another config: the context and the name the command line asked for."""

    def __init__(self, source: WeightSource, config: ModelConfig) -> None:
        self._source, self.config = source, config
        self.trained_context = source.config.max_seq_len  # tokens
        self.tensors = source.tensors
        self.read, self.release, self.close = source.read, source.release, source.close


def context_size(config: ModelConfig, asked: int) -> int:
    """Tokens a conversation may have. Raises ConfigError where more was asked than was trained."""
    if asked > config.max_seq_len:
        raise ConfigError(
            f"--ctx-size {asked} is more than the {config.max_seq_len} tokens this model was "
            "trained for; ask for at most that"
        )
    return asked or min(config.max_seq_len, DEFAULT_CONTEXT)


def open_source(settings: EngineSettings) -> Renamed:
    """The model file, with the context length that will be served."""
    source = open_model(settings.model)
    config = source.config
    context = context_size(config, settings.ctx_size)
    name = settings.name or config.name
    return Renamed(source, replace(config, max_seq_len=context, name=name))
