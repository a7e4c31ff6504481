"""The KV pages and the memory that a model takes with given settings. Imports no kernels."""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from dataclasses import replace

from dllama.cli.flags.settings import EngineSettings
from dllama.cli.model_file import open_source
from dllama.config import ModelConfig
from dllama.errors import ConfigError
from dllama.kv_type import KvType
from dllama.sharding.memory import PROCESS_BYTES, WIRE_BYTES, kv_bytes, memory_needed
from dllama.sharding.plan import plan_for
from dllama.step import MAX_LOGIT_ROWS, PAGE_TOKENS

KV_SHARE = 4  # by default the KV cache takes at most 1 / KV_SHARE of the free memory
FULL_CONTEXTS = 4  # and at most the pages of FULL_CONTEXTS full conversations


def count_pages(config: ModelConfig, settings: EngineSettings, free_bytes: int) -> int:
    """Returns the number of KV pages; `free_bytes` is the memory that this machine has free."""
    assert settings.max_batch <= MAX_LOGIT_ROWS
    one = -(-config.max_seq_len // PAGE_TOKENS)
    if settings.kv_tokens:
        if settings.kv_tokens < config.max_seq_len:
            raise ConfigError(
                f"--kv-tokens {settings.kv_tokens} has no room for one conversation of "
                f"{config.max_seq_len} tokens; raise it or lower --ctx-size"
            )
        return -(-settings.kv_tokens // PAGE_TOKENS)
    n_shares = len(settings.workers) + 1 if config.latent is None else 1  # rows are on every node
    budget = free_bytes // KV_SHARE * n_shares

    def exceeds(n_pages: int) -> bool:
        taken = kv_bytes(
            config, config.n_kv_heads, n_pages=n_pages, max_step_tokens=step_rows(settings),
            kv_type=KvType(settings.kv_type),
        )  # fmt: skip
        return taken > budget

    sizes = range(one, FULL_CONTEXTS * one + 1)
    return sizes[max(0, bisect_left(sizes, True, key=exceeds) - 1)]


def step_rows(settings: EngineSettings) -> int:
    """Returns the rows of a step: prompt tokens and one for every running sequence."""
    return settings.max_step_tokens + settings.max_batch


def with_pages(settings: EngineSettings, free_bytes: int) -> tuple[EngineSettings, int]:
    """Returns the settings with the KV pages that a model gets if so much memory is free, and the
    memory that all its nodes take together. Raises ModelFileError, ConfigError."""
    with contextlib.closing(open_source(settings)) as source:
        n_pages = count_pages(source.config, settings, free_bytes)
        [whole] = plan_for(source.config, source.tensors, [1.0])
        needed = memory_needed(
            source.config, source.tensors, whole, n_pages=n_pages,
            max_step_tokens=step_rows(settings), kv_type=KvType(settings.kv_type),
        )  # fmt: skip
    needed += len(settings.workers) * (PROCESS_BYTES + WIRE_BYTES)
    if settings.draft_model is not None:
        own = replace(
            settings, model=settings.draft_model, draft_model=None, quantize=None, workers=(),
            shares=(), kv_tokens=0, ctx_size=0,
        )  # fmt: skip
        needed += with_pages(own, free_bytes)[1] - PROCESS_BYTES
    return replace(settings, kv_tokens=n_pages * PAGE_TOKENS), needed
