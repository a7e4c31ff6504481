"""Temperature: how much the more likely tokens are preferred. Fixed, or by the entropy of the row.

Source: llama.cpp (src/llama-sampling.cpp); dynamic temperature after Zhu et al. 2023 (EDT).
"""

from __future__ import annotations

import math

from dllama.engine.token_pool import TokenPool
from dllama.requests import SamplingParams

_MAX_INVERSE = 1e30  # keeps logit / temperature finite for any temperature above 0


def is_greedy(params: SamplingParams) -> bool:
    """Whether the best token is chosen whatever the others are."""
    return params.temperature == 0.0 and params.dynatemp_range == 0.0


def has_temperature(params: SamplingParams) -> bool:
    """Whether logits are scaled at all."""
    return params.temperature != 1.0 or params.dynatemp_range > 0.0


def temper(pool: TokenPool, params: SamplingParams) -> TokenPool:
    """Divides the logits by the temperature; at 0 only the best token is left."""
    if len(pool) == 1:
        return pool
    temperature = params.temperature
    if params.dynatemp_range > 0.0:
        temperature = dynamic_temperature(pool, params)
    if temperature <= 0.0:
        return pool.best(1)
    inverse = min(1.0 / temperature, _MAX_INVERSE)
    return TokenPool(pool.ids, pool.x * inverse, pool.top * inverse, pool.is_sorted)


def dynamic_temperature(pool: TokenPool, params: SamplingParams) -> float:
    """From temperature - range (not below 0) where one token is certain, to temperature + range
    where all are alike: the entropy's share of its maximum, to the power of the exponent."""
    p = pool.probabilities()
    # -sum(p log p), with log p = x - log(sum exp(x)) and the best x = 0
    entropy = -math.log(float(p.max())) - float(p @ pool.x)
    share = min(max(entropy / math.log(len(pool)), 0.0), 1.0)
    low = max(0.0, params.temperature - params.dynatemp_range)
    high = params.temperature + params.dynatemp_range
    return low + (high - low) * float(share**params.dynatemp_exponent)
