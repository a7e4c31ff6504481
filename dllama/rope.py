"""The frequencies of rotary position embedding, with every scaling a ModelConfig can ask for.

Sources: RoFormer (arXiv 2104.09864), YaRN (arXiv 2309.00071, section 3), Meta's llama-models
(the llama3 smoothing), LongRoPE (arXiv 2402.13753), and ggml's freq_factors."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal, localcontext
from typing import NamedTuple

import numpy as np

from dllama.config import ModelConfig, RopeScaling, RopeScalingKind

_DIGITS = 30  # float64 holds 17


def rope_frequencies(config: ModelConfig) -> tuple[np.ndarray, float]:
    """Returns the angle each pair turns by per position, float64 (rotary_dim / 2,), and the
    magnitude that cosines and sines are multiplied by (1.0 but for YaRN and LongRoPE).

    Pair j of a head is its values j and j + rotary_dim / 2.
    """
    frequency = _plain(config.rope_theta, config.rotary_dim)
    magnitude = 1.0
    scaling = config.rope_scaling
    if scaling is not None:
        match scaling.kind:
            case RopeScalingKind.LINEAR:
                frequency = frequency / scaling.factor
            case RopeScalingKind.LLAMA3:
                frequency = _llama3(frequency, scaling)
            case RopeScalingKind.YARN:
                frequency = _yarn(frequency, scaling, config)
                magnitude = _yarn_magnitude(scaling)
            case RopeScalingKind.LONGROPE:
                magnitude = scaling.attention_factor or 1.0
    factors = config.long_rope_factors if _is_long(config) else config.rope_factors
    if factors is not None:
        frequency = frequency / np.array(factors, np.float64)
    return frequency, magnitude


class Rotations(NamedTuple):
    """The rotary positions of all layers: tables of angles, and which of them a layer turns by."""

    inv_freq: np.ndarray  # (tables, rotary_dim / 2) float64: the angle of each pair per position
    magnitudes: tuple[float, ...]  # of each table
    table_of: tuple[int, ...]  # of each layer

    @property
    def by_layer(self) -> np.ndarray:
        """The angles of each layer, (n_layers, rotary_dim / 2) float64."""
        found: np.ndarray = self.inv_freq[list(self.table_of)]
        return found


def rotations(config: ModelConfig) -> Rotations:
    """Returns the rotary positions of a model's layers. Layers that are not rotated turn by angles
    of zero, which changes no bit."""
    kinds = [config.attention_of(layer) for layer in range(config.n_layers)]
    wanted = [(kind.is_rotated, kind.has_local_rope and kind.is_rotated) for kind in kinds]
    tables = list(dict.fromkeys(wanted))
    found = [_table(config, *table) for table in tables]
    return Rotations(
        np.array([frequency for frequency, _ in found]),
        tuple(magnitude for _, magnitude in found),
        tuple(tables.index(table) for table in wanted),
    )


def _table(config: ModelConfig, is_rotated: bool, is_local: bool) -> tuple[np.ndarray, float]:
    if not is_rotated:
        return np.zeros(config.rotary_dim // 2), 1.0
    if is_local:
        return _plain(config.local_rope_theta or config.rope_theta, config.rotary_dim), 1.0
    return rope_frequencies(config)


def _is_long(config: ModelConfig) -> bool:
    """Returns whether the context that is served asks for LongRoPE's second table. One table serves
    a whole context: keys that are kept cannot change it."""
    scaling = config.rope_scaling
    if scaling is None or scaling.kind is not RopeScalingKind.LONGROPE:
        return False
    return config.max_seq_len > scaling.original_max_seq_len


def with_rope_factors(config: ModelConfig) -> ModelConfig:
    """Returns the config with Llama 3's scaling as a table of factors, as GGUF files carry it; a
    config without that scaling as it is."""
    scaling = config.rope_scaling
    if scaling is None or scaling.kind is not RopeScalingKind.LLAMA3:
        return config
    plain = _plain(config.rope_theta, config.rotary_dim)
    factors = (plain / _llama3(plain, scaling)).astype(np.float32)
    return replace(config, rope_scaling=None, rope_factors=tuple(factors.tolist()))


def _plain(theta: float, rotary_dim: int) -> np.ndarray:
    """Returns theta^(-2j / rotary_dim) of each pair j. By decimals: powers of float64 differ in
    their last bits from processor to processor, and ranks have to agree."""
    base = Decimal(theta)
    with localcontext(prec=_DIGITS):
        powers = [base ** (Decimal(-2 * j) / rotary_dim) for j in range(rotary_dim // 2)]
    return np.array([float(power) for power in powers])


def _llama3(frequency: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """Llama 3's scaling: short waves stay, long ones are stretched by the factor, those between are
    interpolated. With equal bounds, as Llama 4 Scout's config has them, nothing lies between."""
    turns = scaling.original_max_seq_len * frequency / (2 * math.pi)  # over the trained context
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    keep = np.clip((turns - low) / (high - low), 0.0, 1.0) if high > low else turns >= low
    blended: np.ndarray = keep * frequency + (1 - keep) * frequency / scaling.factor
    return blended


def _yarn(frequency: np.ndarray, scaling: RopeScaling, config: ModelConfig) -> np.ndarray:
    """YaRN's scaling: pairs that turn more than beta_fast times in the trained context stay, those
    that turn less than beta_slow times are stretched, a linear ramp over the pairs lies between."""
    last = config.rotary_dim - 1
    low = _pair_turning(scaling.beta_fast, scaling, config)
    high = _pair_turning(scaling.beta_slow, scaling, config)
    if scaling.is_rounded:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, last)
    ramp = (np.arange(len(frequency)) - low) / max(high - low, 0.001)
    keep = (1 - np.clip(ramp, 0.0, 1.0)) * scaling.extrapolation
    mixed: np.ndarray = keep * frequency + (1 - keep) * frequency / scaling.factor
    return mixed


def _pair_turning(times: float, scaling: RopeScaling, config: ModelConfig) -> float:
    """Returns the pair (a fraction) that turns `times` over the context the model was trained
    on."""
    wave = scaling.original_max_seq_len / (times * 2 * math.pi)
    return config.rotary_dim * math.log(wave) / (2 * math.log(config.rope_theta))


def _yarn_magnitude(scaling: RopeScaling) -> float:
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    return 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0
