"""Checks of a description of a model: sizes that a rank may make tables and memory of."""

from __future__ import annotations

import math
from dataclasses import astuple

from dllama.config import DeltaSizes, Latent, ModelConfig
from dllama.errors import ProtocolError
from dllama.models import FAMILIES
from dllama.models.delta import is_delta_sound
from dllama.models.latent import LATENT_ATTENTION

MAX_DIMENSION = 1 << 24
MAX_EXPERTS = 1 << 12
MAX_GROWTHS = 1 << 16  # factors of a table that a rank makes for queries that grow


def check_config(config: ModelConfig) -> None:
    """Raises ProtocolError where the sizes of a model off the wire make no model."""
    sizes = (
        config.dim, config.hidden_dim, config.n_layers, config.n_heads, config.n_kv_heads,
        config.head_dim, config.vocab_size, config.max_seq_len,
    )  # fmt: skip
    is_sound = config.arch in FAMILIES and all(0 < size <= MAX_DIMENSION for size in sizes)
    is_sound = is_sound and 0 < config.n_tokens <= config.vocab_size
    is_sound = is_sound and 0 < config.rotary_dim <= config.head_dim and config.rotary_dim % 2 == 0
    factors = (config.rope_factors, config.long_rope_factors)
    is_sound = is_sound and all(f is None or len(f) == config.rotary_dim // 2 for f in factors)
    is_sound = is_sound and 0 <= config.n_active_experts <= config.n_experts <= MAX_EXPERTS
    is_sound = is_sound and (config.n_active_experts > 0) == (config.n_experts > 0)
    is_sound = is_sound and 0 <= config.shared_hidden_dim <= MAX_DIMENSION
    is_sound = is_sound and config.shared_hidden_dim % config.hidden_dim == 0
    is_sound = is_sound and (config.delta is None or _makes_states(config.delta))
    is_sound = is_sound and _is_mixture_sound(config)
    is_sound = is_sound and _is_attention_sound(config)
    if not is_sound or config.n_heads % config.n_kv_heads:
        raise ProtocolError(f"the root sent the sizes of no model: {config}")


def _makes_states(sizes: DeltaSizes) -> bool:
    """Returns whether there are gated delta nets of these sizes."""
    numbers = [size for size in astuple(sizes) if not isinstance(size, bool)]
    return all(0 < size <= MAX_DIMENSION for size in numbers) and is_delta_sound(sizes)


def _is_mixture_sound(config: ModelConfig) -> bool:
    """Returns whether experts divide into groups that have enough for a token, and dense layers
    have columns."""
    n_groups, n_active = config.n_expert_groups, config.n_active_groups
    is_sound = 0 < n_active <= n_groups <= max(1, config.n_experts)
    is_sound = is_sound and config.n_experts % n_groups == 0
    is_sound = is_sound and config.n_active_experts <= config.n_experts // n_groups * n_active
    is_sound = is_sound and 0 <= config.n_dense_layers <= config.n_layers
    is_sound = is_sound and 0 < config.mixture_interval <= config.n_layers
    least = min(1, config.n_dense_layers + config.mixture_interval - 1)
    return is_sound and least <= config.dense_hidden_dim <= MAX_DIMENSION


def _is_attention_sound(config: ModelConfig) -> bool:
    """Returns whether each layer has its kind of attention, and scales and caps are numbers."""
    layers, theta, latent = config.attention_layers, config.local_rope_theta, config.latent
    growth = config.query_growth
    factors = (
        config.attention_softcap, config.final_softcap, config.embedding_scale,
        config.residual_scale, config.logit_scale,
    )  # fmt: skip
    return (
        len(layers) in (0, config.n_layers)
        and all(layer.window is None or 0 < layer.window <= MAX_DIMENSION for layer in layers)
        and (theta is None or (math.isfinite(theta) and theta > 1))
        and all(math.isfinite(factor) and factor >= 0 for factor in factors)
        and (growth is None or (math.isfinite(growth.scale) and growth.first in (0, 1)))
        and (growth is None or growth.length > config.max_seq_len / MAX_GROWTHS)
        and all(layer.window is not None or not layer.is_chunked for layer in layers)
        and (config.attention_scale is None or math.isfinite(config.attention_scale))
        and (latent is not None) == (FAMILIES[config.arch].attention is LATENT_ATTENTION)
        and (latent is None or _is_latent_sound(config, latent))
    )


def _is_latent_sound(config: ModelConfig, sizes: Latent) -> bool:
    """Returns whether heads are of the sizes that latent attention makes them of."""
    of_rows = (sizes.kv_rank, sizes.rope_dim, sizes.nope_dim, sizes.value_dim)
    return (
        all(0 < size <= MAX_DIMENSION for size in of_rows)
        and 0 <= sizes.q_rank <= MAX_DIMENSION
        and config.n_kv_heads == config.n_heads
        and config.head_dim == sizes.nope_dim + sizes.rope_dim
        and config.rotary_dim == sizes.rope_dim
    )
