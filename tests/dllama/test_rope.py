"""Rotary frequencies against transformers' own functions, and against numbers worked by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from dllama.config import ModelConfig, RopeScaling, RopeScalingKind
from dllama.rope import rope_frequencies

PLAIN = ModelConfig(
    arch="llama",
    name="rope",
    dim=512,
    hidden_dim=512,
    n_layers=1,
    n_heads=4,
    n_kv_heads=4,
    head_dim=128,
    vocab_size=10,
    max_seq_len=32768,
    norm_epsilon=1e-5,
    rope_theta=500000.0,
)


class Tensor(np.ndarray):
    """Enough of torch.Tensor, in float64, for transformers' rope functions to run without it."""

    def to(self, device: object = None, dtype: type | None = None) -> Tensor:
        return self.astype(dtype or self.dtype).view(Tensor)


TORCH = SimpleNamespace(
    int64=np.int64,
    float=np.float64,
    float32=np.float64,
    arange=lambda *args, dtype=np.int64, device=None: np.arange(*args, dtype=dtype).view(Tensor),
    clamp=np.clip,
    where=np.where,
)


def oracle(
    monkeypatch: pytest.MonkeyPatch, config: ModelConfig, parameters: dict[str, object]
) -> tuple[np.ndarray, float]:
    """What transformers computes for the same model."""
    rope_utils = pytest.importorskip("transformers.modeling_rope_utils")
    from transformers import LlamaConfig

    monkeypatch.setattr(rope_utils, "torch", TORCH, raising=False)
    hf = LlamaConfig(
        hidden_size=config.dim,
        num_attention_heads=config.n_heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.max_seq_len,
        rope_parameters={"rope_theta": config.rope_theta, **parameters},
    )
    function = rope_utils.ROPE_INIT_FUNCTIONS[parameters["rope_type"]]
    # As torch does: equal bounds divide by nothing what is not taken.
    with np.errstate(divide="ignore", invalid="ignore"):
        frequency, magnitude = function(hf, None)
    return np.asarray(frequency), float(magnitude)


CASES: list[tuple[ModelConfig, dict[str, object]]] = [
    (  # Llama 4 Scout's: no wave lies between the bounds
        replace(PLAIN, rope_scaling=RopeScaling(RopeScalingKind.LLAMA3, 16.0, 8192, 1.0, 1.0)),
        {
            "rope_type": "llama3",
            "factor": 16.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
        },
    ),
    (
        replace(PLAIN, rope_scaling=RopeScaling(RopeScalingKind.LINEAR, 4.0, 4096)),
        {"rope_type": "linear", "factor": 4.0},
    ),
    (
        replace(PLAIN, rope_scaling=RopeScaling(RopeScalingKind.LLAMA3, 8.0, 8192, 1.0, 4.0)),
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    ),
    (
        replace(
            PLAIN,
            head_dim=64,
            rope_scaling=RopeScaling(RopeScalingKind.LLAMA3, 32.0, 8192, 1.0, 4.0),
        ),
        {
            "rope_type": "llama3",
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    ),
    (
        replace(PLAIN, rope_theta=1e6, rope_scaling=RopeScaling(RopeScalingKind.YARN, 4.0, 32768)),
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
    ),
    (
        replace(
            PLAIN,
            rope_theta=10000.0,
            head_dim=80,
            rope_scaling=RopeScaling(
                RopeScalingKind.YARN,
                16.0,
                2048,
                beta_fast=24.0,
                beta_slow=2.0,
                attention_factor=1.5,
            ),
        ),
        {
            "rope_type": "yarn",
            "factor": 16.0,
            "original_max_position_embeddings": 2048,
            "beta_fast": 24.0,
            "beta_slow": 2.0,
            "attention_factor": 1.5,
        },
    ),
]


@pytest.mark.parametrize(("config", "parameters"), CASES)
def test_scaled_frequencies_are_those_of_transformers(
    monkeypatch: pytest.MonkeyPatch, config: ModelConfig, parameters: dict[str, object]
) -> None:
    expected, expected_magnitude = oracle(monkeypatch, config, parameters)
    frequency, magnitude = rope_frequencies(config)
    assert frequency.dtype == np.float64 and frequency.shape == (config.head_dim // 2,)
    np.testing.assert_allclose(frequency, expected, rtol=1e-12)
    assert magnitude == pytest.approx(expected_magnitude, rel=1e-12)


def test_plain_frequencies_are_powers_of_theta() -> None:
    frequency, magnitude = rope_frequencies(replace(PLAIN, head_dim=4, rope_theta=10000.0))
    np.testing.assert_allclose(frequency, [1.0, 0.01], rtol=1e-15)
    assert magnitude == 1.0


def test_llama3_keeps_short_waves_and_stretches_long_ones() -> None:
    """With theta 10^4 and 4 pairs the waves are 2 pi times 1, 10, 100 and 1000. In a context of
    2000 pi they turn 1000, 100, 10 and 1 times: above 20 is kept, below 5 divided by 8, and 10
    lies a third of the way from 5 to 20."""
    context = round(2000 * math.pi)
    scaling = RopeScaling(RopeScalingKind.LLAMA3, 8.0, context, 5.0, 20.0)
    config = replace(PLAIN, head_dim=8, rope_theta=10000.0, rope_scaling=scaling)
    frequency, _ = rope_frequencies(config)
    blended = 0.01 * (1 / 3 + 2 / 3 / 8)
    np.testing.assert_allclose(frequency, [1.0, 0.1, blended, 0.001 / 8], rtol=1e-4)


def test_yarn_magnitude_grows_with_the_factor() -> None:
    scaling = RopeScaling(RopeScalingKind.YARN, 4.0, 4096)
    _, magnitude = rope_frequencies(replace(PLAIN, rope_scaling=scaling))
    assert magnitude == pytest.approx(1.1386294361119891)


def test_yarn_without_extrapolation_is_linear() -> None:
    yarn = RopeScaling(RopeScalingKind.YARN, 4.0, 4096, extrapolation=0.0)
    linear = RopeScaling(RopeScalingKind.LINEAR, 4.0, 4096)
    np.testing.assert_allclose(
        rope_frequencies(replace(PLAIN, rope_scaling=yarn))[0],
        rope_frequencies(replace(PLAIN, rope_scaling=linear))[0],
    )


def test_factors_divide_each_frequency() -> None:
    factors = tuple(float(1 + i) for i in range(64))
    frequency, _ = rope_frequencies(replace(PLAIN, rope_factors=factors))
    np.testing.assert_allclose(frequency * factors, rope_frequencies(PLAIN)[0], rtol=1e-15)


def test_longrope_has_one_table_for_short_contexts_and_one_for_long_ones() -> None:
    short, long = (1.0,) * 32 + (2.0,) * 32, (3.0,) * 64
    scaling = RopeScaling(RopeScalingKind.LONGROPE, 1.0, 4096, attention_factor=1.19)
    config = replace(PLAIN, rope_scaling=scaling, rope_factors=short, long_rope_factors=long)
    plain, _ = rope_frequencies(PLAIN)
    for context, factors in ((4096, short), (4097, long)):
        frequency, magnitude = rope_frequencies(replace(config, max_seq_len=context))
        np.testing.assert_allclose(frequency * factors, plain, rtol=1e-15)
        assert magnitude == 1.19
